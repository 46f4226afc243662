"""Prompts: immutable versions by digest, movable labels, typed rendering."""
