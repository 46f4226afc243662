"""The agent that published conformance suites of A2A ask for: it does what the prefix of a message's id says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Final

from a2a.types import a2a_pb2
from google.protobuf import json_format

from services.gateway.a2a.work import Assignment, Update, Updates, state

WORKING, COMPLETED = a2a_pb2.TASK_STATE_WORKING, a2a_pb2.TASK_STATE_COMPLETED


def artifact(*parts: a2a_pb2.Part, append: bool = False, last: bool = True) -> a2a_pb2.TaskArtifactUpdateEvent:
    made = a2a_pb2.Artifact(artifact_id="out", name="out", parts=parts)
    return a2a_pb2.TaskArtifactUpdateEvent(artifact=made, append=append, last_chunk=last)


def words(text: str) -> a2a_pb2.Part:
    return a2a_pb2.Part(text=text)


def data() -> a2a_pb2.Part:
    part = a2a_pb2.Part()
    json_format.ParseDict({"key": "value", "count": 42}, part.data)
    return part


FILE: Final = a2a_pb2.Part(raw=b"text of a file", filename="output.txt", media_type="text/plain")
LINK: Final = a2a_pb2.Part(url="https://example.com/output.txt", filename="output.txt", media_type="text/plain")
DIRECT: Final = a2a_pb2.Message(message_id="direct", role=a2a_pb2.ROLE_AGENT, parts=[words("Direct message response")])

Script = Callable[[], list[Update | float]]
SCRIPTS: Final[dict[str, Script]] = {
    "tck-artifact-text": lambda: [artifact(words("Generated text content")), state(COMPLETED)],
    "tck-artifact-file-url": lambda: [artifact(LINK), state(COMPLETED)],
    "tck-artifact-file": lambda: [artifact(FILE), state(COMPLETED)],
    "tck-artifact-data": lambda: [artifact(data()), state(COMPLETED)],
    "tck-message-response": lambda: [DIRECT],
    "tck-input-required": lambda: [state(a2a_pb2.TASK_STATE_INPUT_REQUIRED, "Which one?")],
    "tck-reject-task": lambda: [state(a2a_pb2.TASK_STATE_REJECTED, "rejected")],
    "tck-stream-artifact-file": lambda: [state(WORKING), artifact(FILE), state(COMPLETED)],
    "tck-stream-artifact-chunked": lambda: [
        state(WORKING), artifact(words("chunk-1 "), last=False), artifact(words("chunk-2"), append=True),
        state(COMPLETED),
    ],
    "tck-stream-002": lambda: [state(COMPLETED)],
    "tck-stream": lambda: [state(WORKING), artifact(words("Stream hello from TCK")), state(COMPLETED)],
    "test-resubscribe-message-id": lambda: [state(WORKING), 4.0, state(COMPLETED)],
}  # fmt: skip


class ConformanceAgent:
    """Work without sessions: nothing of it can be followed later."""

    async def begin(self, assignment: Assignment) -> tuple[str, Updates]:
        script = next(
            (found for prefix, found in SCRIPTS.items() if assignment.message.message_id.startswith(prefix)), None
        )
        return "", _played(script() if script else [state(COMPLETED, "Hello from TCK")])

    def again(self, work_id: str) -> Updates | None:
        return None

    async def cancel(self, work_id: str) -> None:
        """Ends with whoever follows."""


async def _played(steps: list[Update | float]) -> AsyncGenerator[Update, None]:
    for step in steps:
        if isinstance(step, float):
            await asyncio.sleep(step)
        else:
            yield step
