"""Tasks: what a message began, how it stands, who follows it, and that it is kept."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC
from typing import Final

from a2a.types import a2a_pb2
from a2a.utils.errors import InvalidParamsError, TaskNotCancelableError, TaskNotFoundError, UnsupportedOperationError

from services.gateway.a2a.push import Push
from services.gateway.a2a.store import INTERRUPTED, TERMINAL, A2aStore, Record, Sought
from services.gateway.a2a.work import Assignment, Update, Updates, Work, state, text
from services.gateway.facades.ask import Message, Role
from shared.clock import Clock
from shared.errors import MeshError, NotFound
from shared.identity import current
from shared.ids import Ids
from shared.log import log
from shared.paging import Page
from shared.tasks import stopped

_REMEMBERED: Final = 20
_UNREAD: Final = 10_000
Told = a2a_pb2.Task | Update
Key = tuple[str, str]


class Tasks:
    """Every task of every tenant, as this replica sees it. A task is run by the replica that took its message; another
    that is asked about it follows the same session's log.
    """

    def __init__(self, store: A2aStore, work: Work, push: Push, *, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._work = work
        self._push = push
        self._clock = clock
        self._ids = ids
        self._running: dict[Key, asyncio.Task[None]] = {}
        self._latest: dict[Key, Record] = {}
        self._listeners: defaultdict[Key, set[asyncio.Queue[Told]]] = defaultdict(set)

    async def close(self) -> None:
        for running in [*self._running.values()]:
            await stopped(running)

    async def find(self, task_id: str) -> Record:
        """Raises TaskNotFoundError."""
        key = (current().tenant_id, task_id)
        if here := self._latest.get(key):
            return here
        record = await self._store.find(*key)
        if record is None:
            raise TaskNotFoundError(f"there is no task {task_id}")
        if not record.ended and record.state not in INTERRUPTED and key not in self._latest:
            self._adopt(key, record)
        return record

    async def search(self, sought: Sought, page: Page) -> tuple[Sequence[Record], int]:
        return await self._store.search(current().tenant_id, sought, page)

    async def send(self, agent: str, message: a2a_pb2.Message, address: bytes = b"") -> AsyncGenerator[Told, None]:
        """The task as it began, then its updates until it ends or asks for more; or the one message that answers.
        Leaving early stops nobody. Raises A2AError.
        """
        record = await self._continued(agent, message) if message.task_id else self._new(agent, message)
        key = (current().tenant_id, record.id)
        work_id, updates = await self._begin(record, message)
        first = await anext(updates, None)
        if isinstance(first, a2a_pb2.Message):
            await updates.aclose()
            first.context_id = record.context_id
            yield first
            return
        record = self._latest[key] = replace(record, work_id=work_id)
        await self._keep(key, record)
        if address:
            await self._store.put_address(*key, a2a_pb2.TaskPushNotificationConfig.FromString(address).id, address)
        queue = self._listen(key)
        try:
            begun = record.read()
            self._running[key] = asyncio.create_task(self._run(key, record, first, updates), name="a2a.task")
            yield begun
            async for told in _until_settled(queue):
                yield told
        finally:
            self._leave(key, queue)

    async def follow(self, task_id: str) -> AsyncGenerator[Told, None]:
        """The task as it stands, then its updates until it ends. Raises A2AError."""
        key = (current().tenant_id, task_id)
        queue = self._listen(key)
        try:
            record = await self.find(task_id)
            if record.ended:
                raise UnsupportedOperationError(f"the task {task_id} has ended")
            yield record.read()
            while True:
                told = await queue.get()
                yield told
                if _state(told) in TERMINAL:
                    return
        finally:
            self._leave(key, queue)

    async def cancel(self, task_id: str) -> Record:
        """Raises TaskNotFoundError and TaskNotCancelableError."""
        key = (current().tenant_id, task_id)
        record = await self.find(task_id)
        if record.ended:
            raise TaskNotCancelableError(f"the task {task_id} has ended")
        if running := self._running.get(key):
            record = self._latest.get(key, record)
            await stopped(running)
        if record.work_id:
            await self._work.cancel(record.work_id)
        return await self._take(key, record, state(a2a_pb2.TASK_STATE_CANCELED))

    def _new(self, agent: str, message: a2a_pb2.Message) -> Record:
        context_id = message.context_id or self._ids.new("ctx")
        task = a2a_pb2.Task(id=self._ids.new("task"), context_id=context_id)
        task.status.state = a2a_pb2.TASK_STATE_SUBMITTED
        now = self._clock.now()
        task.status.timestamp.FromDatetime(now.astimezone(UTC))
        record = Record(task.id, context_id, agent, "", task.status.state, now, b"")
        return _with(record, task, message)

    async def _continued(self, agent: str, message: a2a_pb2.Message) -> Record:
        record = await self.find(message.task_id)
        if message.context_id and message.context_id != record.context_id:
            raise InvalidParamsError("contextId is not the task's")
        if record.state not in INTERRUPTED:
            raise UnsupportedOperationError(f"the task {record.id} takes no message now")
        return _with(record, record.read(), message)

    async def _begin(self, record: Record, message: a2a_pb2.Message) -> tuple[str, Updates]:
        before = await self._said_before(record)
        try:
            return await self._work.begin(Assignment(record.agent, record.id, message, before))
        except NotFound as error:
            raise InvalidParamsError(f"{error.reason_name}: {error.message}") from error
        except MeshError as error:
            return "", _refused(error)

    async def _said_before(self, record: Record) -> Sequence[Message]:
        sought = Sought(context_id=record.context_id)
        found, _ = await self.search(sought, Page(_REMEMBERED))
        return [
            said for earlier in reversed(found) if earlier.id != record.id for said in _conversation(earlier.read())
        ]

    def _adopt(self, key: Key, record: Record) -> None:
        """Follows a task whose replica is another, or is gone."""
        updates = self._work.again(record.work_id)
        if updates is None:
            return
        self._latest[key] = record
        self._running[key] = asyncio.create_task(self._run(key, record, None, updates, told=False), name="a2a.task")

    async def _run(
        self, key: Key, record: Record, first: Update | None, updates: Updates, *, told: bool = True
    ) -> None:
        """Applies the updates; `told`: addresses hear of them. What fails fails the task."""
        try:
            async with aclosing(updates):
                if first is not None:
                    record = await self._take(key, record, first, told=told)
                async for update in updates:
                    record = await self._take(key, record, update, told=told)
            if record.state not in TERMINAL | INTERRUPTED:
                await self._take(key, record, state(a2a_pb2.TASK_STATE_COMPLETED), told=told)
        except MeshError as error:
            await self._take(key, record, state(a2a_pb2.TASK_STATE_FAILED, error.message), told=told)
        finally:
            self._running.pop(key, None)
            self._latest.pop(key, None)

    async def _take(self, key: Key, record: Record, update: Update, *, told: bool = True) -> Record:
        now = self._clock.now()
        task = record.read()
        _apply(task, update)
        if isinstance(update, a2a_pb2.TaskStatusUpdateEvent):
            task.status.timestamp.FromDatetime(now.astimezone(UTC))
            update.status.CopyFrom(task.status)
        record = replace(record, state=task.status.state, updated_at=now, task=task.SerializeToString())
        if key in self._latest:
            self._latest[key] = record
        if isinstance(update, a2a_pb2.TaskStatusUpdateEvent):
            await self._keep(key, record)
        for queue in self._listeners.get(key, ()):
            if queue.qsize() < _UNREAD:
                queue.put_nowait(update)
        if told:
            await self._push.tell(key[0], record.id, update, await self._addresses(key, update))
        return record

    async def _addresses(self, key: Key, update: Update) -> Sequence[bytes]:
        """Whom to tell. Pieces of an answer are for those who stream; addresses hear of states and whole artifacts."""
        piece = isinstance(update, a2a_pb2.TaskArtifactUpdateEvent) and (update.append or not update.last_chunk)
        return [] if piece else await self._store.addresses(*key)

    async def _keep(self, key: Key, record: Record) -> None:
        await self._store.save(key[0], record)
        log.info("a2a.task", task_id=record.id, work_id=record.work_id, state=record.state)

    def _listen(self, key: Key) -> asyncio.Queue[Told]:
        queue: asyncio.Queue[Told] = asyncio.Queue()
        self._listeners[key].add(queue)
        return queue

    def _leave(self, key: Key, queue: asyncio.Queue[Told]) -> None:
        self._listeners[key].discard(queue)
        if not self._listeners[key]:
            del self._listeners[key]


def _apply(task: a2a_pb2.Task, update: Update) -> None:
    if isinstance(update, a2a_pb2.Message):
        return
    update.task_id, update.context_id = task.id, task.context_id
    if isinstance(update, a2a_pb2.TaskStatusUpdateEvent):
        _move(task, update.status)
        return
    known = next((one for one in task.artifacts if one.artifact_id == update.artifact.artifact_id), None)
    if known is None:
        task.artifacts.append(update.artifact)
    elif update.append:
        _extend(known, update.artifact)
    else:
        known.CopyFrom(update.artifact)


def _move(task: a2a_pb2.Task, status: a2a_pb2.TaskStatus) -> None:
    """To another state; what was said with the last one becomes history."""
    if task.status.HasField("message"):
        task.history.append(task.status.message)
    if status.HasField("message"):
        status.message.task_id, status.message.context_id = task.id, task.context_id
        status.message.message_id = status.message.message_id or f"{task.id}_{len(task.history)}"
    task.status.CopyFrom(status)


def _extend(artifact: a2a_pb2.Artifact, more: a2a_pb2.Artifact) -> None:
    """Text goes on in the last part of text; anything else is a part of its own."""
    for part in more.parts:
        last = artifact.parts[-1] if artifact.parts else None
        if last is not None and last.WhichOneof("content") == part.WhichOneof("content") == "text":
            last.text += part.text
        else:
            artifact.parts.append(part)


def _with(record: Record, task: a2a_pb2.Task, message: a2a_pb2.Message) -> Record:
    """The task with one more message of its caller's."""
    said = task.history.add()
    said.CopyFrom(message)
    said.task_id, said.context_id = task.id, task.context_id
    return replace(record, task=task.SerializeToString())


def _conversation(task: a2a_pb2.Task) -> list[Message]:
    asked = [Message(Role.USER, (text(one.parts),)) for one in task.history if one.role == a2a_pb2.ROLE_USER]
    answered = [Message(Role.ASSISTANT, (text(one.parts),)) for one in task.artifacts]
    return [*asked, *answered]


async def _refused(error: MeshError) -> Updates:
    """What the mesh does not let happen is a rejected task that says why."""
    yield state(a2a_pb2.TASK_STATE_REJECTED, f"{error.reason_name}: {error.message}")


async def _until_settled(queue: asyncio.Queue[Told]) -> AsyncGenerator[Told, None]:
    while True:
        told = await queue.get()
        yield told
        if _state(told) in TERMINAL | INTERRUPTED:
            return


def _state(told: Told) -> int:
    return told.status.state if isinstance(told, a2a_pb2.TaskStatusUpdateEvent) else a2a_pb2.TASK_STATE_UNSPECIFIED
