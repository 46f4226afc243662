"""Seven services, each answering one question; see README.md."""
