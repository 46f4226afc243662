"""Envoy's configuration, from one place for the embedded mesh, containers and tests."""
