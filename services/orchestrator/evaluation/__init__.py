"""Evaluation: suites of scenarios, run as cases by workers of their own, scored and compared."""
