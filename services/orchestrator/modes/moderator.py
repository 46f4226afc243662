"""Strategy "moderator": an agent that takes no part names who speaks next, or ends the phase."""

from __future__ import annotations

from agentnet.orchestrator.v1 import session_pb2
from services.orchestrator import forms
from services.orchestrator.forms import Form
from services.orchestrator.modes import cast
from services.orchestrator.modes.contract import FLOOR, Part, Phase, Table

NOBODY = "nobody"


class Moderator:
    """A phase has as many turns at most as it has parts; somebody may speak twice and somebody else not at all."""

    def floor(self, table: Table) -> tuple[Part, ...]:
        leader = Part(cast.of(table.session, "moderator"), table.phase.name + FLOOR)
        spoken = [turn for turn in table.said if turn.phase != leader.phase]
        if not table.said:
            return (leader,)
        last = table.said[-1]
        if last.phase != leader.phase:
            return (leader,) if len(spoken) < len(table.phase.parts) else ()
        given = forms.value(last.content)
        return tuple(
            Part(part.agent, part.phase, leader.agent, given["reason"])
            for part in table.phase.parts
            if cast.short(part.agent) == given["next"]
        )

    def check(self, session: session_pb2.Session) -> None:
        if not session.options.moderator:
            raise cast.contradiction(session, "options.moderator", "strategy moderator needs a moderator")


def form(phase: Phase) -> Form:
    """How a moderator answers."""
    names = [cast.short(part.agent) for part in phase.parts]
    return forms.of("floor", next=forms.one_of([*names, NOBODY]), reason=forms.REASON)


def directive() -> str:
    return "You lead a conversation of experts and take no part in it. You only say who speaks next."


def question(topic: str, phase: Phase) -> str:
    names = ", ".join(cast.short(part.agent) for part in phase.parts)
    return f"The topic is: {topic}. Who speaks next: {names}, or {NOBODY} when enough is said?"
