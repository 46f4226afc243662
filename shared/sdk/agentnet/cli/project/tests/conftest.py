"""Gives tests the fixture `agents_under_test`; without a mesh they are skipped."""

from __future__ import annotations

pytest_plugins = ["agentnet.testing.plugin"]
