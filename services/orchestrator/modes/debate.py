"""Mode "debate": openings, rebuttals about contested points alone, and a judge's verdict.

After each round the judge lists what is still contested; nothing: the debate is over. Two agents have no judge: then
the points are the sentences of each side that the other side does not echo, and there is no verdict.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from agentnet.orchestrator.v1 import decision_pb2, event_pb2, progress_pb2, session_pb2
from services.orchestrator import forms
from services.orchestrator.convergence.jaccard import similarity
from services.orchestrator.forms import Form
from services.orchestrator.modes import cast
from services.orchestrator.modes.contract import Ending, Mode, Order, Part, Phase
from services.orchestrator.state import SessionState, Spoken

_SIDES: Final = 2
_POINTS: Final = 5
_POINT: Final = 200
_ECHO: Final = 0.7
_NOBODY: Final = "nobody"
_SENTENCE: Final = re.compile(r"(?<=[.!?])\s+")
_ARGUMENTS: Final = ("opening", "rebuttal")

Event = event_pb2.SessionEvent


class Debate(Mode):
    least_agents = 2
    judged = True

    def check(self, session: session_pb2.Session) -> None:
        if len(_sides(session)) < _SIDES:
            raise cast.contradiction(session, "agents", "a debate takes two agents beside its judge and its moderator")

    def phases(self, state: SessionState, number: int) -> Sequence[Phase]:
        name = "opening" if number == 1 else "rebuttal"
        phases = [Phase(name, tuple(Part(agent, name) for agent in _sides(state.session)))]
        if judge := cast.judge(state.session):
            phases.append(Phase("points", (Part(judge, "points"),), Order.IN_ORDER))
        return phases

    def closing(self, state: SessionState) -> Sequence[Phase]:
        judge = cast.judge(state.session)
        return (Phase("verdict", (Part(judge, "verdict"),), Order.IN_ORDER),) if judge else ()

    def facts(self, state: SessionState, number: int, *, closing: bool) -> Sequence[Event]:
        judge = cast.judge(state.session)
        if closing:
            decided = any(decision.kind == "verdict" for decision in state.decisions)
            if decided or not judge:
                return ()
            return (Event(decision_reached=progress_pb2.DecisionReached(decision=_verdict(state, number))),)
        if state.contested and state.contested[-1].round >= number:
            return ()
        points = _listed(state, number) if judge else contested(state.turns(number, *_ARGUMENTS))
        return (Event(points_contested=progress_pb2.PointsContested(round=number, points=points, agent=judge)),)

    def ending(self, state: SessionState, number: int) -> Ending | None:
        over = bool(state.contested) and state.contested[-1].round == number and not state.contested[-1].points
        return Ending(session_pb2.STOP_REASON_CONVERGED, "contested_points") if over else None

    def directive(self, state: SessionState, number: int, part: Part) -> str:
        if part.agent == cast.judge(state.session) and part.phase not in _ARGUMENTS:
            return "You are the judge of a debate. You take no side; you weigh what was said."
        return (
            f"You are in a debate with other experts, round {number} of {state.session.max_rounds}. Hold your own "
            "position and argue for it; concede what is proved."
        )

    def question(self, state: SessionState, number: int, part: Part) -> str:
        topic = state.session.topic_start
        match part.phase:
            case "opening":
                return f"The question is: {topic}. Open the debate: state your position and your best argument."
            case "points":
                return f"The question is: {topic}. List the points the sides still contest; an empty list if none."
            case "verdict":
                return f"The question is: {topic}. Give your verdict: who argued better, and what holds."
            case _:
                points = "\n".join(f"- {point}" for point in state.contested[-1].points)
                return f"The question is: {topic}. These points alone are still contested:\n{points}\nRebut or concede."

    def form(self, state: SessionState, number: int, part: Part) -> Form | None:
        del number
        if part.phase == "points":
            point = {"type": "string", "minLength": 1, "maxLength": _POINT}
            return forms.of("contested_points", points={"type": "array", "items": point, "maxItems": _POINTS})
        if part.phase == "verdict":
            names = [cast.short(agent) for agent in _sides(state.session)]
            text = {"type": "string", "minLength": 1, "maxLength": 600}
            return forms.of("verdict", winner=forms.one_of([*names, _NOBODY]), verdict=text, reason=forms.REASON)
        return None

    def result(self, state: SessionState) -> str:
        verdicts = [decision.content for decision in state.decisions if decision.kind == "verdict"]
        if verdicts:
            return verdicts[-1]
        last = max((turn.round for turn in state.spoken), default=0)
        return "\n\n".join(
            f"{cast.short(turn.agent)}: {turn.content.strip()}" for turn in state.turns(last, *_ARGUMENTS)
        )


def contested(said: Sequence[Spoken]) -> list[str]:
    """Sentences of each side that no sentence of another side echoes, in turn, a few at most."""
    sentences = {turn.agent: _sentences(turn.content) for turn in said}
    open_points = [
        [
            sentence
            for sentence in own
            if all(
                similarity(sentence, other) < _ECHO
                for side, others in sentences.items()
                if side != agent
                for other in others
            )
        ]
        for agent, own in sentences.items()
    ]
    in_turn = [points[place] for place in range(_POINTS) for points in open_points if place < len(points)]
    return [point[:_POINT] for point in in_turn[:_POINTS]]


def _sentences(text: str) -> list[str]:
    return [sentence.strip() for sentence in _SENTENCE.split(text.strip()) if sentence.strip()]


def _sides(session: session_pb2.Session) -> tuple[str, ...]:
    return cast.speakers(session, cast.judge(session))


def _listed(state: SessionState, number: int) -> list[str]:
    (turn, *_) = state.turns(number, "points")
    return [str(point) for point in forms.value(turn.content).get("points", [])]


def _verdict(state: SessionState, number: int) -> decision_pb2.Decision:
    (turn, *_) = state.turns(number, "verdict")
    given = forms.value(turn.content)
    sides = _sides(state.session)
    winner = next((agent for agent in sides if cast.short(agent) == given["winner"]), "")
    last = {spoken.agent: spoken.content for spoken in state.spoken if spoken.phase in _ARGUMENTS}
    return decision_pb2.Decision(
        kind="verdict",
        round=number,
        winner=winner,
        content=given["verdict"],
        reason=given["reason"],
        agreed=True,
        standings=[decision_pb2.Standing(agent=agent, score=float(agent == winner)) for agent in sides],
        minority=[
            decision_pb2.MinorityView(agent=agent, position=last.get(agent, ""))
            for agent in sides
            if winner and agent != winner
        ],
    )
