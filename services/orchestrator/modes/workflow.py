"""Mode "workflow": agents in sequence, each given the last one's output."""

from __future__ import annotations

from collections.abc import Sequence

from services.orchestrator.modes import cast
from services.orchestrator.modes.contract import Mode, Order, Part, Phase
from services.orchestrator.state import SessionState, Spoken


class Workflow(Mode):
    rounds = 1
    takes_strategy = False

    def phases(self, state: SessionState, number: int) -> Sequence[Phase]:
        del number
        agents = list(state.session.agents)
        parts = [
            Part(agent, "stage", handed_by=before, why="the next stage of the workflow" if before else "")
            for before, agent in zip(["", *agents], agents, strict=False)
        ]
        return (Phase("stage", tuple(parts), Order.IN_ORDER),)

    def directive(self, state: SessionState, number: int, part: Part) -> str:
        del number
        agents = list(state.session.agents)
        return (
            f"You are stage {agents.index(part.agent) + 1} of {len(agents)} of a workflow. Your output is the input of "
            "the next stage."
        )

    def question(self, state: SessionState, number: int, part: Part) -> str:
        del number, part
        stages = [turn for turn in state.spoken if turn.phase == "stage"]
        if not stages:
            return state.session.topic_start
        last = stages[-1]
        return (
            f"The task is: {state.session.topic_start}\n\n{cast.short(last.agent)} hands over:\n{last.content.strip()}"
        )

    def heard(self, state: SessionState, part: Part) -> tuple[Spoken, ...]:
        """What people said; the last output stands in the question."""
        del part
        return tuple(turn for turn in state.spoken if turn.by_person)

    def result(self, state: SessionState) -> str:
        stages = [turn.content for turn in state.spoken if turn.phase == "stage"]
        return stages[-1] if stages else ""
