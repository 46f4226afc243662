"""What a mode and a strategy decide. Both are pure."""

from __future__ import annotations

from typing import Protocol


class Mode(Protocol):
    """How agents work together."""

    def directive(self, *, agent: str, round_number: int, max_rounds: int) -> str:
        """What an agent is told about its part, after who it is."""

    def question(self, *, topic: str, round_number: int) -> str:
        """What an agent is asked in a round."""


class Strategy(Protocol):
    """Who speaks next."""

    def next_speaker(self, agents: tuple[str, ...], spoken: tuple[str, ...]) -> str | None:
        """The next of the agents, given who has spoken in the round; None when the round is over."""
