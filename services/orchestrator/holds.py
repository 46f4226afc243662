"""What rules of policy with require_approval hold in a run: a person is asked, policy makes a yes an override.

The log has the question and the answer with the override's id; its token is asked of policy whenever it is needed, and
is kept nowhere. So whoever takes a session over goes on from the log alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from agentnet.common.v1 import failure_pb2
from agentnet.orchestrator.v1 import event_pb2, input_pb2
from services.orchestrator.errors import ApprovalRefused
from services.orchestrator.speech import Call
from shared.errors import MeshError, Reason
from shared.identity import Principal

WAIT: Final = timedelta(hours=24)
_SHOWN: Final = 1000
_OWN: Final = Reason.ERROR_REASON_CALL_APPROVAL_REQUIRED

Event = event_pb2.SessionEvent


class Asker(Protocol):
    """A try of a turn or of a node."""

    @property
    def turn_id(self) -> str: ...
    @property
    def agent(self) -> str: ...
    @property
    def attempt(self) -> int: ...
    @property
    def generation_id(self) -> str: ...


class Refused(Protocol):
    """A turn or a node that broke off, and what a person said to that."""

    @property
    def agent(self) -> str: ...
    @property
    def failure(self) -> failure_pb2.Failure: ...
    @property
    def answer(self) -> event_pb2.InputGiven | None: ...


class Leave(Protocol):
    """policy, where leave is asked for and given. Each raises Unavailable when policy is away."""

    async def shown(self, caller: Principal, arguments: str, *, agent: str, session_id: str) -> str:
        """Arguments as people may see them; empty when policy shows nothing of them."""

    async def decide(self, person: Principal, asked: input_pb2.HumanInput, *, approved: bool, reason: str) -> str:
        """The override that a yes makes, by id; a no makes none. Raises PermissionDenied for who may not decide."""

    async def token(self, caller: Principal, override_id: str) -> str:
        """The token of an override; empty when it holds no longer, or there is none."""


@dataclass(frozen=True, slots=True)
class Holds:
    """Asks people. `wait` is how long they have."""

    leave: Leave
    wait: timedelta = WAIT

    async def call(
        self, caller: Principal, asker: Asker, call: Call, facts: Mapping[str, str], *, session_id: str, now: datetime
    ) -> Event:
        """The question about a call that rules hold. While policy is away nothing of the arguments is shown."""
        agent = asker.agent.partition("@")[0]
        try:
            arguments = await self.leave.shown(caller, call.arguments, agent=agent, session_id=session_id)
        except MeshError:
            arguments = ""
        told = arguments[:_SHOWN] or "arguments that policy does not show"
        question = f"{_rules(facts)} holds a call. May {asker.agent or 'the graph'} call {call.tool} with {told}?"
        asked = _input(asker, session_id, question, facts)
        name = call.request_id.replace("eff_", "inp_")
        asked.id = f"{name}_{call.asks + 1}" if call.asks else name
        asked.tool, asked.arguments, asked.request_id = call.tool, arguments, call.request_id
        return self._event(asked, now)

    def turn(self, asker: Asker, failure: failure_pb2.Failure, *, session_id: str, now: datetime) -> Event:
        """The question about what an agent was going to say. What is held is shown to nobody."""
        facts = failure.metadata
        question = f"{_rules(facts)} holds {_what(asker.agent, facts)}. May the turn go on without that rule?"
        asked = _input(asker, session_id, question, facts)
        asked.id = f"inp_{asker.turn_id.removeprefix('trn_')}_{asker.attempt}"
        asked.request_id = asker.generation_id
        return self._event(asked, now)

    def _event(self, asked: input_pb2.HumanInput, now: datetime) -> Event:
        asked.request_time.FromDatetime(now)
        asked.expire_time.FromDatetime(now + self.wait)
        requested = event_pb2.InputRequested(input_id=asked.id, question=asked.question, input=asked)
        return Event(input_requested=requested, actor=f"agent:{asked.agent}")


def held(refused: MeshError | failure_pb2.Failure) -> bool:
    """Whether people can give leave for what was refused so."""
    facts = refused.facts if isinstance(refused, MeshError) else refused.metadata
    return refused.reason == _OWN and bool(facts.get("rules"))


def refusal(given: event_pb2.InputGiven, rules: tuple[str, ...]) -> ApprovalRefused:
    """What an agent is told whose call nobody allowed."""
    said = f": {given.answer}" if given.answer else ""
    message = "nobody gave leave in time" if given.expired else f"a person refused the call{said}"
    return ApprovalRefused(message, rules=", ".join(rules), expired=str(given.expired).lower())


def refused_turn(broken: Refused) -> failure_pb2.Failure:
    """Why a session, or a node, ends that nobody let go on."""
    given, facts = broken.answer or event_pb2.InputGiven(), broken.failure.metadata
    said = f": {given.answer}" if given.answer else ""
    why = "nobody gave leave in time" if given.expired else f"a person refused{said}"
    return failure_pb2.Failure(
        reason=Reason.ERROR_REASON_APPROVAL_REFUSED,
        message=f"{_rules(facts)} holds {_what(broken.agent, facts)}, and {why}"[:1000],
        metadata={**facts, "expired": str(given.expired).lower()},
    )


def _input(asker: Asker, session_id: str, question: str, facts: Mapping[str, str]) -> input_pb2.HumanInput:
    return input_pb2.HumanInput(
        session_id=session_id,
        kind=input_pb2.INPUT_KIND_APPROVAL,
        question=question,
        agent=asker.agent,
        turn_id=asker.turn_id,
        rules=_names(facts.get("rules", "")),
        bundles=_names(facts.get("bundles", "")),
    )


def _rules(facts: Mapping[str, str]) -> str:
    rules, bundles = facts.get("rules", ""), facts.get("bundles", "")
    return f"{rules} of {bundles}" if bundles else rules


def _what(agent: str, facts: Mapping[str, str]) -> str:
    by = f" by {agent}" if agent else ""
    return f"a call of {facts['tool']}{by}" if facts.get("tool") else f"what {agent} says"


def _names(listed: str) -> list[str]:
    return [name for name in listed.split(", ") if name]
