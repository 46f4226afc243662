"""What A2A asks of storage: tasks as they last stood, and whom to tell about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from a2a.types import a2a_pb2

from shared.paging import Page

TERMINAL = frozenset(
    {
        a2a_pb2.TASK_STATE_COMPLETED,
        a2a_pb2.TASK_STATE_FAILED,
        a2a_pb2.TASK_STATE_CANCELED,
        a2a_pb2.TASK_STATE_REJECTED,
    }
)
INTERRUPTED = frozenset({a2a_pb2.TASK_STATE_INPUT_REQUIRED, a2a_pb2.TASK_STATE_AUTH_REQUIRED})


@dataclass(frozen=True, slots=True)
class Record:
    """A task, and the work behind it: a session's id, from which the task can be made again."""

    id: str
    context_id: str
    agent: str
    work_id: str
    state: int
    updated_at: datetime
    task: bytes

    @property
    def ended(self) -> bool:
        return self.state in TERMINAL

    def read(self) -> a2a_pb2.Task:
        return a2a_pb2.Task.FromString(self.task)


@dataclass(frozen=True, slots=True)
class Sought:
    """Which tasks; what is empty does not narrow."""

    agent: str = ""
    context_id: str = ""
    state: int = 0
    changed_since: datetime | None = None


class A2aStore(Protocol):
    """Tasks and addresses, by tenant."""

    async def save(self, tenant: str, record: Record) -> None:
        """Keeps the task as it stands now."""

    async def find(self, tenant: str, task_id: str) -> Record | None: ...

    async def search(self, tenant: str, sought: Sought, page: Page) -> tuple[Sequence[Record], int]:
        """One more than the page holds if there are more, latest change first; and how many there are in all."""

    async def put_address(self, tenant: str, task_id: str, address_id: str, config: bytes) -> None:
        """Adds or replaces one of a task's addresses."""

    async def addresses(self, tenant: str, task_id: str) -> Sequence[bytes]:
        """A task's addresses, by id."""

    async def delete_address(self, tenant: str, task_id: str, address_id: str) -> None: ...
