"""Who does what a message asks: sessions of the mesh's agents, told in A2A's words."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Protocol

from a2a.types import a2a_pb2
from google.protobuf import json_format

from agentnet.orchestrator.v1 import event_pb2, session_pb2
from services.gateway.facades.agents import PREFIX, Agents
from services.gateway.facades.ask import Ask, Message, Role
from services.gateway.facades.models import spent

ANSWER: Final = "answer"

Update = a2a_pb2.Message | a2a_pb2.TaskStatusUpdateEvent | a2a_pb2.TaskArtifactUpdateEvent
Updates = AsyncGenerator[Update, None]

_ENDINGS: Final = {
    session_pb2.SESSION_STATUS_COMPLETED: a2a_pb2.TASK_STATE_COMPLETED,
    session_pb2.SESSION_STATUS_FAILED: a2a_pb2.TASK_STATE_FAILED,
    session_pb2.SESSION_STATUS_CANCELLED: a2a_pb2.TASK_STATE_CANCELED,
}


@dataclass(frozen=True, slots=True)
class Assignment:
    """A message for an agent, and what was said before it in the same context, oldest first."""

    agent: str
    task_id: str
    message: a2a_pb2.Message
    before: Sequence[Message] = ()


class Work(Protocol):
    """Does assignments. Updates come without the ids of task and context; a direct message is the only update."""

    async def begin(self, assignment: Assignment) -> tuple[str, Updates]:
        """The work's id, and its updates until it ends or asks for more. Raises MeshError."""

    def again(self, work_id: str) -> Updates | None:
        """All updates from the first on, for who did not follow; None when the work is not known any more."""

    async def cancel(self, work_id: str) -> None:
        """Ends the work. Raises MeshError."""


class SessionWork:
    """One session of one agent an assignment. The session's log outlives whoever follows it."""

    def __init__(self, agents: Agents) -> None:
        self._agents = agents

    async def begin(self, assignment: Assignment) -> tuple[str, Updates]:
        told = (*assignment.before, Message(Role.USER, (text(assignment.message.parts),)))
        ask = Ask(PREFIX + assignment.agent, told, generation_id=assignment.task_id)
        session = await self._agents.start(ask)
        return session.id, self._updates(session.id)

    def again(self, work_id: str) -> Updates | None:
        return self._updates(work_id) if work_id else None

    async def cancel(self, work_id: str) -> None:
        await self._agents.cancel(work_id)

    async def _updates(self, session_id: str) -> Updates:
        async with aclosing(self._agents.watch(session_id)) as events:
            async for update in _told(events):
                yield update


async def _told(events: AsyncIterator[event_pb2.SessionEvent]) -> Updates:
    yield state(a2a_pb2.TASK_STATE_WORKING)
    said = False
    async for event in events:
        match event.WhichOneof("payload"):
            case "tokens_produced":
                yield _piece(event.tokens_produced.text, append=said)
                said = True
            case "turn_interrupted":
                said = False  # the next piece replaces what was said
            case "failed_over" if event.failed_over.restarted:
                said = False
            case "turn_finished" if said:
                last = _piece("", append=True, last=True)
                last.metadata.update({"outputTokens": spent(event.turn_finished.turn.usage).output})
                yield last
            case "session_finished":
                yield _end(event.session_finished.session)


def _end(session: session_pb2.Session) -> a2a_pb2.TaskStatusUpdateEvent:
    if session.stop_reason == session_pb2.STOP_REASON_POLICY_BLOCKED:
        return state(a2a_pb2.TASK_STATE_REJECTED, "policy does not allow this")
    if session.HasField("failure"):
        return state(a2a_pb2.TASK_STATE_FAILED, session.failure.message)
    return state(_ENDINGS.get(session.status, a2a_pb2.TASK_STATE_COMPLETED))


def state(value: a2a_pb2.TaskState, why: str = "") -> a2a_pb2.TaskStatusUpdateEvent:
    """A change of state, with a message that says why."""
    status = a2a_pb2.TaskStatus(state=value)
    if why:
        parts = [a2a_pb2.Part(text=why)]
        status.message.CopyFrom(a2a_pb2.Message(role=a2a_pb2.ROLE_AGENT, parts=parts))
    return a2a_pb2.TaskStatusUpdateEvent(status=status)


def _piece(said: str, *, append: bool, last: bool = False) -> a2a_pb2.TaskArtifactUpdateEvent:
    artifact = a2a_pb2.Artifact(artifact_id=ANSWER, name=ANSWER, parts=[a2a_pb2.Part(text=said)])
    return a2a_pb2.TaskArtifactUpdateEvent(artifact=artifact, append=append, last_chunk=last)


def text(parts: Sequence[a2a_pb2.Part]) -> str:
    """What parts say: text as it is, data as JSON."""
    return "\n".join(json_format.MessageToJson(part.data) if part.HasField("data") else part.text for part in parts)
