"""Mode "single": one agent answers once."""

from __future__ import annotations


class Single:
    def directive(self, *, agent: str, round_number: int, max_rounds: int) -> str:
        del agent, round_number, max_rounds
        return ""

    def question(self, *, topic: str, round_number: int) -> str:
        del round_number
        return topic
