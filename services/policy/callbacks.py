"""Enforcement actions of one's own: entry points in the group `agentnet.enforcement`, used as `callback:<name>`."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Final

from services.policy.risks import Callback

GROUP: Final = "agentnet.enforcement"


def load_callbacks() -> dict[str, Callback]:
    """All that are installed. Each is an async function of the tenant and the action. One that does not load ends the
    start: an action that would be missing later is known now.
    """
    return {found.name: found.load() for found in entry_points(group=GROUP)}
