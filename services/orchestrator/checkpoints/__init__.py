"""Checkpoints: a run's state saved outside its log, to start a new run from."""
