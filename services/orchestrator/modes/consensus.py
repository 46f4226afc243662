"""Mode "consensus": proposals, votes, and a minority view that is kept in the record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from agentnet.orchestrator.v1 import decision_pb2, event_pb2, progress_pb2, session_pb2
from services.orchestrator import forms
from services.orchestrator.forms import Form
from services.orchestrator.modes import cast
from services.orchestrator.modes.contract import Ending, Mode, Order, Part, Phase
from services.orchestrator.state import SessionState

_LEAST: Final = 2
_MAJORITY: Final = 0.5

Event = event_pb2.SessionEvent


class Consensus(Mode):
    least_agents = 2

    def check(self, session: session_pb2.Session) -> None:
        if len(cast.speakers(session)) < _LEAST:
            raise cast.contradiction(session, "agents", "a consensus takes two agents beside the moderator")

    def phases(self, state: SessionState, number: int) -> Sequence[Phase]:
        del number
        agents = cast.speakers(state.session)
        return (
            Phase("proposal", tuple(Part(agent, "proposal") for agent in agents)),
            Phase("vote", tuple(Part(agent, "vote") for agent in agents), Order.TOGETHER),
        )

    def facts(self, state: SessionState, number: int, *, closing: bool) -> Sequence[Event]:
        if closing or any(decision.round == number for decision in state.decisions):
            return ()
        return (Event(decision_reached=progress_pb2.DecisionReached(decision=_counted(state, number))),)

    def ending(self, state: SessionState, number: int) -> Ending | None:
        agreed = bool(state.decisions) and state.decisions[-1].round == number and state.decisions[-1].agreed
        return Ending(session_pb2.STOP_REASON_CONVERGED, "votes") if agreed else None

    def directive(self, state: SessionState, number: int, part: Part) -> str:
        if part.phase == "vote":
            return "You look for a consensus with other experts. Vote for the proposal you can stand behind."
        return (
            f"You look for a consensus with other experts, round {number} of {state.session.max_rounds}. Make "
            "proposals others can accept without giving up what matters."
        )

    def question(self, state: SessionState, number: int, part: Part) -> str:
        topic = state.session.topic_start
        if part.phase == "vote":
            shown = "\n\n".join(f"{letter}. {text}" for letter, text in _proposals(state, number).values())
            return f"The question is: {topic}. The proposals:\n\n{shown}\n\nVote for one, and say why."
        if number == 1:
            return f"The question is: {topic}. Make a proposal."
        objections = "\n".join(
            f"- {cast.short(view.agent)}: {view.reason}" for view in state.decisions[-1].minority if view.reason
        )
        heard = f" Those who voted otherwise say:\n{objections}\n" if objections else " "
        return (
            f"The question is: {topic}. The last vote did not decide it.{heard}"
            "Revise your proposal so that more can agree."
        )

    def form(self, state: SessionState, number: int, part: Part) -> Form | None:
        if part.phase != "vote":
            return None
        letters = [letter for letter, _ in _proposals(state, number).values()]
        return forms.of("vote", choice=forms.one_of(letters), reason=forms.REASON)

    def result(self, state: SessionState) -> str:
        return state.decisions[-1].content if state.decisions else ""


def _proposals(state: SessionState, number: int) -> dict[str, tuple[str, str]]:
    """Who proposed what in the round, with the letter it is voted for by."""
    texts = {turn.agent: turn.content.strip() for turn in state.turns(number, "proposal")}
    letters = cast.lettered(tuple(agent for agent in cast.speakers(state.session) if agent in texts))
    return {agent: (letter, texts[agent]) for letter, agent in letters.items()}


def _counted(state: SessionState, number: int) -> decision_pb2.Decision:
    """The tally. Of proposals with as many votes the first leads; it is agreed on only beyond the quorum."""
    proposals = _proposals(state, number)
    by_letter = {letter: agent for agent, (letter, _) in proposals.items()}
    ballots = {turn.agent: forms.value(turn.content) for turn in state.turns(number, "vote")}
    votes = Counter(by_letter[ballot["choice"]] for ballot in ballots.values())
    standings = sorted(proposals, key=lambda agent: -votes[agent])
    winner = standings[0]
    share, quorum = votes[winner] / len(ballots), state.session.options.quorum
    return decision_pb2.Decision(
        kind="vote",
        round=number,
        winner=winner,
        content=proposals[winner][1],
        agreed=share >= quorum if quorum else share > _MAJORITY,
        standings=[decision_pb2.Standing(agent=agent, score=votes[agent]) for agent in standings],
        minority=[
            decision_pb2.MinorityView(
                agent=agent, position=proposals[by_letter[ballot["choice"]]][1], reason=ballot["reason"]
            )
            for agent, ballot in ballots.items()
            if by_letter[ballot["choice"]] != winner
        ],
    )
