"""Mode "brainstorm": every agent speaks in each round and builds on the others."""

from __future__ import annotations


class Brainstorm:
    def directive(self, *, agent: str, round_number: int, max_rounds: int) -> str:
        del agent
        return (
            f"You are in a brainstorm with other experts, round {round_number} of {max_rounds}. Do not repeat others."
        )

    def question(self, *, topic: str, round_number: int) -> str:
        if round_number == 1:
            return f"The topic is: {topic}. Give your idea."
        return f"The topic is: {topic}. Improve the ideas above with one new, concrete point."
