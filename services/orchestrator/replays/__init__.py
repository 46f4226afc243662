"""Running a session again from its log."""
