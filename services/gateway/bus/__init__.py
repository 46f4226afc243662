"""The event bus: what happened, kept in one order, told to whoever listens, here or at an address of theirs."""
