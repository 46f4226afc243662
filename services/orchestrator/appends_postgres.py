"""Appending to logs, many at once: what comes while a statement is under way goes together with the next one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC
from itertools import accumulate
from typing import Final

from google.protobuf import json_format

from agentnet.orchestrator.v1 import session_pb2, turn_pb2
from services.orchestrator.errors import LeaseLost
from services.orchestrator.store import Entry, Lease
from shared.batches import Batches
from shared.postgres import REFUSED, Database

# Statements under way at once, so that one commit's wait for the disk does not hold the next one up.
_AT_ONCE: Final = 2
_TOGETHER: Final = 128
_NO_TURN: Final = (None,) * 9
_ENDED: Final = (
    session_pb2.SESSION_STATUS_COMPLETED,
    session_pb2.SESSION_STATUS_FAILED,
    session_pb2.SESSION_STATUS_CANCELLED,
)


@dataclass(frozen=True, slots=True)
class Append:
    """One transaction's worth of one log."""

    lease: Lease
    entries: Sequence[Entry]
    macs: Sequence[bytes]
    session: session_pb2.Session
    turns: Sequence[turn_pb2.Turn]
    release: bool
    signals_taken: int


class Appends:
    """All appends of this replica."""

    def __init__(self, database: Database, statement: str) -> None:
        self._database = database
        self._statement = statement
        # What Postgres refuses is tried one by one: no log suffers for another.
        self._batches = Batches(self._together, at_once=_AT_ONCE, most=_TOGETHER, faults=REFUSED, binding=True)

    async def write(self, append: Append) -> int:
        """Commits it and tells how many signals the run has by now. Raises LeaseLost, Unavailable, and what Postgres
        says of this append.
        """
        signals = await self._batches.ask(append)
        if signals is None:
            raise LeaseLost("another replica drives the session", session_id=append.lease.session_id)
        return signals

    async def _together(self, appends: Sequence[Append]) -> list[int | None]:
        """The signals of each run; None where the lease is lost."""
        columns = _columns([one for append in appends for one in _single(append)])
        async with self._database.alone() as connection:
            rows = await connection.fetch(self._statement, *columns)
        made: dict[int, int] = {row["place"]: row["signals"] for row in rows}
        places = accumulate((max(1, len(append.turns)) for append in appends[:-1]), initial=1)
        return [made.get(place) for place in places]


def _single(append: Append) -> Iterator[Append]:
    """An append as append_logs takes it, of one turn each; the others follow it without events."""
    yield append
    for turn in append.turns[1:]:
        yield replace(append, entries=(), macs=(), turns=[turn])


def _columns(appends: Sequence[Append]) -> list[list[object] | None]:
    """The arguments of append_logs."""
    writes = zip(*(_write(append) for append in appends), strict=True)
    events = zip(
        *(
            (entry.sequence, entry.kind, entry.payload, mac)
            for append in appends
            for entry, mac in zip(append.entries, append.macs, strict=True)
        ),
        strict=True,
    )
    turns: list[list[object] | None] = [None] * len(_NO_TURN)
    if any(append.turns for append in appends):
        rows = (turn_columns(append.turns[0]) if append.turns else _NO_TURN for append in appends)
        turns = [list(column) for column in zip(*rows, strict=True)]
    lasts = list[object](accumulate(len(append.entries) for append in appends))
    inputs = list[object](len(append.session.inputs) for append in appends)
    return [*map(list, writes), lasts, *map(list, events), *turns, inputs]


def _write(append: Append) -> tuple[object, ...]:
    lease, session = append.lease, append.session
    ended = session.end_time.ToDatetime(UTC) if session.HasField("end_time") else None
    # As the column `task_graph.status` has it: "pending", "running", "completed", "failed" or "cancelled".
    graph_status = session_pb2.SessionStatus.Name(session.status).removeprefix("SESSION_STATUS_").lower()
    return (
        lease.tenant, lease.session_id, lease.owner, lease.fence, session.status, session.stop_reason,
        session.topic_final, session.converged, session.rounds_executed, ended, session.SerializeToString(),
        append.release, session.status in _ENDED, append.signals_taken, graph_status,
    )  # fmt: skip


def turn_columns(turn: turn_pb2.Turn) -> tuple[object, ...]:
    """What of a turn stands in columns, in the order of append_logs and add_turn."""
    raw = json_format.MessageToDict(turn, preserving_proto_field_name=True)
    confidence = turn.confidence if turn.HasField("confidence") else None
    return (
        turn.id, turn.round, turn.agent.partition("@")[0], turn.prompt, turn.content, confidence, raw,
        turn.SerializeToString(), turn.end_time.ToDatetime(UTC),
    )  # fmt: skip
