"""Agents: their definitions, their lives, what they did and how they are chosen."""

from __future__ import annotations

from services.orchestrator.agents.definition import read_agents
from services.orchestrator.agents.registry import ACTIVE, ARCHIVED, Agents, next_patch, version_key

__all__ = ["ACTIVE", "ARCHIVED", "Agents", "next_patch", "read_agents", "version_key"]
