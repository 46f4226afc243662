"""Modes of independent answers: "competition" (ranked by a judge) and "ensemble" (put together)."""

from __future__ import annotations

import re
import statistics
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from agentnet.orchestrator.v1 import decision_pb2, event_pb2, progress_pb2, session_pb2
from services.orchestrator import forms
from services.orchestrator.forms import Form
from services.orchestrator.modes import cast
from services.orchestrator.modes.contract import Mode, Order, Part, Phase
from services.orchestrator.state import SessionState, Spoken

_RIVALS: Final = 2
_NUMBER: Final = re.compile(r"-?\d+(?:[.,]\d+)*")
_NOISE: Final = re.compile(r"[\W_]+")
_POINTS: Final = {"type": "number", "minimum": 0, "maximum": 10}
AGGREGATES: Final = ("vote", "median", "judge")

Event = event_pb2.SessionEvent


class _Rivals(Mode):
    """All answer at once and see nothing of each other; then, perhaps, a judge who does not see who is who."""

    rounds = 1
    takes_strategy = False
    judged = True

    @abstractmethod
    def judge(self, session: session_pb2.Session) -> str:
        """Who judges; nobody: empty."""

    def rivals(self, session: session_pb2.Session) -> tuple[str, ...]:
        return cast.speakers(session, self.judge(session))

    @abstractmethod
    def decide(self, state: SessionState, number: int) -> decision_pb2.Decision:
        """What the answers of a round come to."""

    def check(self, session: session_pb2.Session) -> None:
        if len(self.rivals(session)) < _RIVALS:
            raise cast.contradiction(session, "agents", f"mode {session.mode} takes two agents beside its judge")

    def phases(self, state: SessionState, number: int) -> Sequence[Phase]:
        del number
        answers = tuple(Part(agent, "answer") for agent in self.rivals(state.session))
        phases = [Phase("answer", answers, Order.TOGETHER)]
        if judge := self.judge(state.session):
            phases.append(Phase("judgement", (Part(judge, "judgement"),), Order.IN_ORDER))
        return phases

    def facts(self, state: SessionState, number: int, *, closing: bool) -> Sequence[Event]:
        if closing or state.decisions:
            return ()
        return (Event(decision_reached=progress_pb2.DecisionReached(decision=self.decide(state, number))),)

    def directive(self, state: SessionState, number: int, part: Part) -> str:
        del state, number
        if part.phase == "judgement":
            return "You judge answers by what they say alone; you do not know whose they are."
        return "You answer alone; others answer the same question."

    def question(self, state: SessionState, number: int, part: Part) -> str:
        topic = state.session.topic_start
        if part.phase != "judgement":
            return topic
        shown = "\n\n".join(f"{letter}. {text}" for letter, (_, text) in _answers(state, number).items())
        return f"The question was: {topic}\n\nThe answers:\n\n{shown}\n\nJudge them."

    def heard(self, state: SessionState, part: Part) -> tuple[Spoken, ...]:
        del part
        return tuple(turn for turn in state.spoken if turn.by_person)

    def result(self, state: SessionState) -> str:
        return state.decisions[-1].content if state.decisions else ""


class Competition(_Rivals):
    """Answers in parallel, each given points by a judge."""

    least_agents = 3

    def judge(self, session: session_pb2.Session) -> str:
        return cast.judge(session)

    def form(self, state: SessionState, number: int, part: Part) -> Form | None:
        if part.phase != "judgement":
            return None
        points: dict[str, Any] = dict.fromkeys(_answers(state, number), _POINTS)
        return forms.of("ranking", **points, reason=forms.REASON)

    def decide(self, state: SessionState, number: int) -> decision_pb2.Decision:
        (turn, *_) = state.turns(number, "judgement")
        given, answers = forms.value(turn.content), _answers(state, number)
        ranked = sorted(answers, key=lambda letter: -float(given[letter]))
        winner, content = answers[ranked[0]]
        standings = [decision_pb2.Standing(agent=answers[letter][0], score=float(given[letter])) for letter in ranked]
        return decision_pb2.Decision(
            kind="ranking", round=number, winner=winner, content=content, agreed=True, standings=standings,
            reason=given["reason"],
        )  # fmt: skip


class Ensemble(_Rivals):
    """Answers in parallel, made one by vote, median or a judge's choice."""

    least_agents = 2

    def judge(self, session: session_pb2.Session) -> str:
        return cast.judge(session) if session.options.aggregate == "judge" else ""

    def check(self, session: session_pb2.Session) -> None:
        aggregate = session.options.aggregate
        if aggregate and aggregate not in AGGREGATES:
            raise cast.contradiction(session, "options.aggregate", f"aggregate is one of {', '.join(AGGREGATES)}")
        if session.options.judge and aggregate != "judge":
            raise cast.contradiction(session, "options.judge", "a judge decides only with aggregate judge")
        if aggregate == "judge" and not self.judge(session):
            raise cast.contradiction(session, "options.judge", "aggregate judge takes a judge among three agents")
        super().check(session)

    def form(self, state: SessionState, number: int, part: Part) -> Form | None:
        if part.phase == "judgement":
            letters = list(_answers(state, number))
            return forms.of("choice", choice=forms.one_of(letters), reason=forms.REASON)
        if state.session.options.aggregate == "median":
            return forms.of("estimate", value={"type": "number"}, reason=forms.REASON)
        return None

    def decide(self, state: SessionState, number: int) -> decision_pb2.Decision:
        answers = _answers(state, number)
        match state.session.options.aggregate:
            case "judge":
                (turn, *_) = state.turns(number, "judgement")
                given = forms.value(turn.content)
                return _taken(number, answers, given["choice"], {given["choice"]: 1.0}, given["reason"])
            case "median":
                return _median(number, answers)
            case _:
                return _voted(number, answers)


def normalised(text: str) -> str:
    """An answer as votes compare it: its only number, else its words without case and signs."""
    numbers = _NUMBER.findall(text)
    if len(numbers) == 1:
        return str(float(numbers[0].replace(",", "")))
    return _NOISE.sub(" ", text.casefold()).strip()


def _answers(state: SessionState, number: int) -> dict[str, tuple[str, str]]:
    """Who said what, by the letter the judge sees."""
    said = {turn.agent: turn.content.strip() for turn in state.turns(number, "answer")}
    ordered = tuple(agent for agent in state.session.agents if agent in said)
    return {letter: (agent, said[agent]) for letter, agent in cast.lettered(ordered).items()}


def _voted(number: int, answers: dict[str, tuple[str, str]]) -> decision_pb2.Decision:
    """The answer most gave; of as many the first one's."""
    forms_of = {letter: normalised(text) for letter, (_, text) in answers.items()}
    votes = Counter(forms_of.values())
    winner = max(answers, key=lambda letter: votes[forms_of[letter]])
    scores = {letter: float(votes[forms_of[letter]]) for letter in answers}
    decision = _taken(number, answers, winner, scores, "")
    decision.agreed = votes[forms_of[winner]] > len(answers) / 2
    others = [answers[letter] for letter in answers if forms_of[letter] != forms_of[winner]]
    decision.minority.extend(decision_pb2.MinorityView(agent=agent, position=text) for agent, text in others)
    return decision


def _median(number: int, answers: dict[str, tuple[str, str]]) -> decision_pb2.Decision:
    values = {letter: float(forms.value(text)["value"]) for letter, (_, text) in answers.items()}
    middle = statistics.median(values.values())
    standings = [decision_pb2.Standing(agent=answers[letter][0], score=value) for letter, value in values.items()]
    return decision_pb2.Decision(
        kind="aggregate", round=number, content=f"{middle:g}", agreed=True, standings=standings, reason="median"
    )


def _taken(
    number: int, answers: dict[str, tuple[str, str]], taken: str, scores: dict[str, float], reason: str
) -> decision_pb2.Decision:
    ranked = sorted(answers, key=lambda letter: -scores.get(letter, 0.0))
    winner, content = answers[taken]
    return decision_pb2.Decision(
        kind="aggregate", round=number, winner=winner, content=content, agreed=True, reason=reason,
        standings=[
            decision_pb2.Standing(agent=answers[letter][0], score=scores.get(letter, 0.0)) for letter in ranked
        ],
    )  # fmt: skip
