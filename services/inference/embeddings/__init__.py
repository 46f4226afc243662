"""Vectors: batched across requests, on the device there is, cached a tenant."""
