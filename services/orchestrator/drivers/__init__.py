"""Drivers run steps. One for each place a session's journal can live."""
