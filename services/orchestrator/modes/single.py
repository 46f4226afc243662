"""Mode "single": one agent answers once."""

from __future__ import annotations

from collections.abc import Sequence

from services.orchestrator.modes.contract import Mode, Order, Part, Phase
from services.orchestrator.state import SessionState


class Single(Mode):
    rounds = 1
    takes_strategy = False
    most_agents = 1

    def phases(self, state: SessionState, number: int) -> Sequence[Phase]:
        del number
        return (Phase("answer", (Part(state.session.agents[0], "answer"),), Order.IN_ORDER),)

    def directive(self, state: SessionState, number: int, part: Part) -> str:
        del state, number, part
        return ""

    def question(self, state: SessionState, number: int, part: Part) -> str:
        del number, part
        return state.session.topic_start

    def result(self, state: SessionState) -> str:
        return state.spoken[-1].content if state.spoken else ""
