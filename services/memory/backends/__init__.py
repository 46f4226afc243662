"""Other engines for vectors, each behind the same contract suite as Postgres."""
