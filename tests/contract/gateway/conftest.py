"""Fixtures of gateway's contract tests."""

from __future__ import annotations

from tests.support.valkey import valkey_url

__all__ = ("valkey_url",)
