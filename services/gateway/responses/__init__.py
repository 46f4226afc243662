"""Responses that are kept: what was asked, what came of it, and what goes on without its caller."""
