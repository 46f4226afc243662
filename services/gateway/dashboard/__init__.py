"""The dashboard: its pages, and browsers that sign in to it."""
