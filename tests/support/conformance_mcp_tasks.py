"""What the published suite of MCP asks of the extension for tasks: calls that go on by themselves, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from mcp import types
from mcp.server.context import ServerRequestContext

from services.gateway.facades.mcp_tasks import State, Task, declared, undeclared
from shared.errors import NotFound, Reason
from tests.support import conformance_mcp_rounds as rounds

Context = ServerRequestContext[Any, Any]
TASKS: Final = (
    "greet", "slow_compute", "failing_job", "protocol_error_job", "confirm_delete", "multi_input", rounds.TASK,
)  # fmt: skip
_ASKED: Final[Mapping[str, tuple[str, ...]]] = {"confirm_delete": ("confirm",), "multi_input": ("one", "two")}
_TTL_MS: Final = 60_000


class TaskUnknown(NotFound):
    reason = Reason.ERROR_REASON_SESSION_NOT_FOUND


@dataclass(slots=True)
class _Running:
    task: Task
    work: asyncio.Task[None] | None = None
    answered: asyncio.Event = field(default_factory=asyncio.Event)

    def now(self, **changed: Any) -> None:
        self.task = replace(self.task, updated=datetime.now(UTC), **changed)


class MemoryTasks:
    """`greet` is no task; `failing_job` is never anything else."""

    def __init__(self) -> None:
        self._running: dict[str, _Running] = {}

    async def call(self, context: Context, asked: types.CallToolRequestParams) -> Any:
        given = asked.arguments or {}
        if asked.name == "greet":
            return _said(f"Hello, {given.get('name')}!")
        if asked.name == rounds.TASK and (wanted := rounds.still(context, asked)):
            return wanted
        if not declared(context):
            if asked.name == "failing_job":
                raise undeclared()
            await asyncio.sleep(given.get("seconds", 0))
            return _said("computed")
        at = datetime.now(UTC)
        running = _Running(Task(f"task_{len(self._running) + 1}", State.WORKING, at, at, ttl_ms=_TTL_MS))
        self._running[running.task.id] = running
        running.work = asyncio.create_task(_do(running, asked))
        return running.task.begun()

    async def find(self, task_id: str) -> Task:
        return self._of(task_id).task

    async def answer(self, task_id: str, responses: Mapping[str, Any]) -> None:
        running = self._of(task_id)
        left = {key: ask for key, ask in running.task.asks.items() if key not in responses}
        if running.task.state is State.INPUT_REQUIRED:
            running.now(asks=left, state=State.INPUT_REQUIRED if left else State.WORKING)
            if not left:
                running.answered.set()

    async def cancel(self, task_id: str) -> None:
        running = self._of(task_id)
        if running.work and not running.work.done():
            running.work.cancel()
            running.now(state=State.CANCELLED)

    def _of(self, task_id: str) -> _Running:
        if task_id not in self._running:
            raise TaskUnknown(f"no task {task_id}")
        return self._running[task_id]


async def _do(running: _Running, asked: types.CallToolRequestParams) -> None:
    if keys := _ASKED.get(asked.name):
        running.now(state=State.INPUT_REQUIRED, asks={key: rounds.form(f"{key}?", confirm="boolean") for key in keys})
        await running.answered.wait()
    await asyncio.sleep((asked.arguments or {}).get("seconds", 0.2))
    match asked.name:
        case "failing_job":
            running.now(state=State.COMPLETED, result=_said("it failed", is_error=True))
        case "protocol_error_job":
            running.now(state=State.FAILED, error={"code": types.INTERNAL_ERROR, "message": "it broke"})
        case rounds.TASK:
            running.now(state=State.COMPLETED, result=_said(rounds.told(asked)))
        case _:
            running.now(state=State.COMPLETED, result=_said("done"))


def _said(text: str, *, is_error: bool = False) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=is_error)
