"""Mode "brainstorm": every agent speaks in each round and builds on the others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from services.orchestrator.modes import cast
from services.orchestrator.modes.contract import Mode, Part, Phase
from services.orchestrator.state import SessionState


@lru_cache(maxsize=1024)  # asked for at every step of every session
def _ideas(speakers: tuple[str, ...]) -> Sequence[Phase]:
    return (Phase("idea", tuple(Part(agent, "idea") for agent in speakers)),)


class Brainstorm(Mode):
    def phases(self, state: SessionState, number: int) -> Sequence[Phase]:
        del number
        return _ideas(cast.speakers(state.session))

    def directive(self, state: SessionState, number: int, part: Part) -> str:
        del part
        return (
            f"You are in a brainstorm with other experts, round {number} of {state.session.max_rounds}. "
            "Do not repeat others."
        )

    def question(self, state: SessionState, number: int, part: Part) -> str:
        del part
        topic = state.session.topic_start
        if number == 1:
            return f"The topic is: {topic}. Give your idea."
        return f"The topic is: {topic}. Improve the ideas above with one new, concrete point."

    def result(self, state: SessionState) -> str:
        """The ideas of the last round."""
        ideas = [turn for turn in state.spoken if turn.phase == "idea"]
        last = max((turn.round for turn in ideas), default=0)
        return "\n\n".join(f"{cast.short(turn.agent)}: {turn.content.strip()}" for turn in ideas if turn.round == last)
