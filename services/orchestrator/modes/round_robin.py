"""Strategy "round_robin": the agents in their given order, each once a round."""

from __future__ import annotations


class RoundRobin:
    def next_speaker(self, agents: tuple[str, ...], spoken: tuple[str, ...]) -> str | None:
        return next((agent for agent in agents if agent not in spoken), None)
