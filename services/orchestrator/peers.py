"""What a turn asks of inference and memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from agentnet.inference.v1 import generation_pb2, message_pb2
from agentnet.orchestrator.v1 import agent_pb2, event_pb2, session_pb2, turn_pb2
from agentnet.tools.v1 import tool_pb2
from services.orchestrator.forms import Form
from services.orchestrator.prompts import Known, Line
from services.orchestrator.speech import Call
from shared.identity import Principal


@dataclass(frozen=True, slots=True)
class Exchange:
    """An iteration of a turn that is over: what the model said, the tools it asked for, what they answered."""

    text: str
    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class Utterance:
    """One call of a model for one turn. `tools` are those it may ask for; after the last iteration it may not.

    It spends from the budgets of `team` and `sub_agent` too, where they are named. Its events may come together for
    `gather` seconds, and then in one piece; the first and the last come at once. `override_token` excuses it from
    rules of policy.
    """

    generation_id: str
    session_id: str
    agent: agent_pb2.Agent
    model: str
    lines: tuple[Line, ...]
    max_output_tokens: int
    exchanges: tuple[Exchange, ...] = ()
    tools: tuple[message_pb2.ToolDefinition, ...] = ()
    may_call: bool = True
    form: Form | None = None
    team: str = ""
    sub_agent: str = ""
    gather: float = 0.0
    override_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """What a tool answered. `replayed` means an earlier call had the effect; `stopped`, that it was not let end.

    `artefacts` are what it left in the object store.
    """

    result: str
    invocation_id: str = ""
    replayed: bool = False
    stopped: bool = False
    artefacts: tuple[turn_pb2.LeftArtefact, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolShown:
    """What a tool shows while it runs: `kind` is "stdout", "stderr", or what it emitted `text`, then JSON, as."""

    kind: str
    text: str
    invocation_id: str = ""


class ToolIndex(Protocol):
    """What tools there are."""

    async def find(self, caller: Principal, reference: str) -> tool_pb2.Tool:
        """A version of a tool, of `name` alone the newest one in use. Raises the service's NotFound, TOOL_NOT_FOUND."""


@dataclass(frozen=True, slots=True)
class TurnMemory:
    """What memory gives a turn. Degraded means memory could not be asked."""

    known: tuple[Known, ...] = ()
    degraded: bool = False


class InferencePeer(Protocol):
    """inference, on behalf of who started the session."""

    def generate(self, caller: Principal, utterance: Utterance) -> AsyncGenerator[generation_pb2.GenerationEvent, None]:
        """Starts, or attaches to, the generation. Raises the service's MeshError."""

    def attach(
        self, caller: Principal, generation_id: str, *, after: int
    ) -> AsyncGenerator[generation_pb2.GenerationEvent, None]:
        """Goes on reading a generation. Raises the service's MeshError."""

    async def cancel(self, caller: Principal, generation_id: str) -> None:
        """Calls a generation off; one that is gone is fine."""

    async def embed(self, caller: Principal, texts: Sequence[str]) -> list[Sequence[float]]:
        """One vector for each text. Raises the service's MeshError."""

    async def context_tokens(self, caller: Principal, model: str) -> int:
        """How much a model reads and writes at most, in tokens; 0 when nobody knows."""


class MemoryPeer(Protocol):
    """memory, on behalf of who started the session. Losing it never stops a turn."""

    async def recall(self, caller: Principal, *, session_id: str, agent: str, query: str) -> TurnMemory:
        """What the agent knows that fits the question."""


class ToolsPeer(Protocol):
    """tools, on behalf of who started the session."""

    async def describe(self, caller: Principal, names: Sequence[str]) -> tuple[message_pb2.ToolDefinition, ...]:
        """The tools of these names that exist, as a model is told of them. Raises the service's MeshError."""

    async def invoke(
        self, caller: Principal, call: Call, *, agent: str, session_id: str, turn_id: str, override_token: str
    ) -> ToolAnswer:
        """Has the effect of a call, once for its request_id. The token excuses the call from rules of policy; empty:
        from none. Raises the service's MeshError.
        """

    def stream(
        self, caller: Principal, call: Call, *, agent: str, session_id: str, turn_id: str, override_token: str
    ) -> AsyncGenerator[ToolShown | ToolAnswer, None]:
        """As invoke: what the tool shows while it runs, then its answer. Closing it earlier stops the tool."""


class Recorded(Protocol):
    """What calls came to before, for sessions whose tools do not act on the world."""

    async def find(
        self, tenant: str, session: session_pb2.Session, turn_id: str, call: Call, *, place: int
    ) -> event_pb2.ToolFinished | None:
        """The answer of the same call in the session this one comes from; None: it was never made.

        `place` says how many such calls came before in the turn.
        """
