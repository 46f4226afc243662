"""Drivers run steps. One for each kind of run, and one for each place its journal can live."""
