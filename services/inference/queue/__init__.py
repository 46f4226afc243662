"""Generations that nobody waits for."""
