"""What a mode and a strategy decide. Both are pure: of the state alone, without I/O, clock or randomness."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from agentnet.orchestrator.v1 import event_pb2, session_pb2
from services.orchestrator.forms import Form
from services.orchestrator.state import SessionState, Spoken

FLOOR = ":floor"


class Order(Enum):
    """Who decides in which order the parts of a phase are spoken."""

    STRATEGY = "strategy"
    IN_ORDER = "in_order"
    TOGETHER = "together"


@dataclass(frozen=True, slots=True)
class Part:
    """One agent's part in a phase of a round. `handed_by` is who hands over to it, and `why`."""

    agent: str
    phase: str
    handed_by: str = ""
    why: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return self.agent, self.phase


@dataclass(frozen=True, slots=True)
class Phase:
    """Parts that belong together; the next phase begins when all are spoken."""

    name: str
    parts: tuple[Part, ...]
    order: Order = Order.STRATEGY


@dataclass(frozen=True, slots=True)
class Ending:
    """A mode's own reason to end the session after a round."""

    reason: session_pb2.StopReason.ValueType
    measure: str


class Mode(ABC):
    """How agents work together. What is not overridden is as in a talk of equals without a decision."""

    rounds: int = 0
    """Rounds it has, whatever was asked, after which all is done; 0: as many as were asked for."""
    takes_strategy: bool = True
    least_agents: int = 1
    most_agents: int = 16
    judged: bool = False
    """Whether one of the agents may be the judge."""

    def check(self, session: session_pb2.Session) -> None:
        """Raises OptionsContradict for what only this mode can tell; most can tell nothing."""
        del session

    @abstractmethod
    def phases(self, state: SessionState, number: int) -> Sequence[Phase]:
        """The phases of a round, as far as they are known, in order."""

    def closing(self, state: SessionState) -> Sequence[Phase]:
        """Phases after the last round, in that round."""
        del state
        return ()

    def facts(self, state: SessionState, number: int, *, closing: bool) -> Sequence[event_pb2.SessionEvent]:
        """What follows from the turns of a round's phases and is not in the log yet: decisions, points, plans."""
        del state, number, closing
        return ()

    def ending(self, state: SessionState, number: int) -> Ending | None:
        """Whether this finished round is the last for a reason of the mode."""
        del state, number
        return None

    @abstractmethod
    def directive(self, state: SessionState, number: int, part: Part) -> str:
        """What an agent is told about its part, after who it is."""

    @abstractmethod
    def question(self, state: SessionState, number: int, part: Part) -> str:
        """What an agent is asked."""

    def form(self, state: SessionState, number: int, part: Part) -> Form | None:
        """The form its answer must have; None: any."""
        del state, number, part
        return None

    def heard(self, state: SessionState, part: Part) -> tuple[Spoken, ...]:
        """What of the conversation an agent may read: everything but ballots and the like."""
        del part
        return tuple(turn for turn in state.spoken if not turn.formal)

    @abstractmethod
    def result(self, state: SessionState) -> str:
        """What the session has come to so far."""


@dataclass(frozen=True, slots=True)
class Table:
    """A phase as a strategy sees it. `said` are the turns of the phase and of who leads it, in order."""

    session: session_pb2.Session
    phase: Phase
    said: tuple[Spoken, ...]

    @property
    def open(self) -> tuple[Part, ...]:
        """The parts nobody has spoken yet."""
        done = {(turn.agent, turn.phase) for turn in self.said}
        return tuple(part for part in self.phase.parts if part.key not in done)


class Strategy(Protocol):
    """Who speaks next."""

    def floor(self, table: Table) -> tuple[Part, ...]:
        """Whose turn it is now, be they speaking already or not; nobody: the phase is over."""

    def check(self, session: session_pb2.Session) -> None:
        """Raises OptionsContradict when the session lacks what the strategy needs."""
