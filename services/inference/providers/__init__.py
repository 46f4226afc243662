"""Providers: one contract, one file each."""
