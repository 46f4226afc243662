"""Task graphs: what is a valid one, what runs next in it, what it came to. Pure: no I/O, no clock, no randomness."""
