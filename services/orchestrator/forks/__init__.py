"""Going on from any place in a session's log, and comparing what came of it."""
