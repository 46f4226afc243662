"""A named call is done once, wherever the service dies on its way, on every store."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from services.tools.answer import Outcome, Printed, Status
from services.tools.errors import ToolOutcomeUnknown
from services.tools.executor import Isolation, Work
from services.tools.flow import Flow, Request
from services.tools.permissions import ToolAuthorizer
from services.tools.rates import LocalRates
from services.tools.store import Tool, ToolStore
from services.tools.store_memory import MemoryToolStore
from services.tools.store_postgres import PostgresToolStore
from shared.clock import FakeClock
from shared.identity import Principal
from shared.ids import RandomIds
from shared.postgres import open_database

ROOT = Path(__file__).resolve().parents[3]
PAY = Tool(
    name="pay", version="1.0.0", description="", input_schema={"type": "object"}, output_schema=None,
    rate_limit_per_min=0, exec_mode="external_api", auth=None, allowed_agents=("*",), function=None, idempotent=False,
    created_at=datetime(2026, 1, 1, tzinfo=UTC), target={"idempotency_header": ""},
)  # fmt: skip
KEYED = replace(PAY, target={"idempotency_header": "Idempotency-Key"})


class Killed(BaseException):
    """The process is gone: nothing after this point runs."""


@dataclass
class Dying:
    """Lets calls through to what it wraps and dies before or after the n-th of one name."""

    inner: Any
    at: tuple[str, int, str]
    seen: dict[str, int] = field(default_factory=dict)

    def die(self) -> None:
        raise Killed

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        wanted, number, when = self.at
        if name != wanted:
            return found

        async def dying(*given: Any, **named: Any) -> Any:
            self.seen[name] = self.seen.get(name, 0) + 1
            if (self.seen[name], when) == (number, "before"):
                self.die()
            answer = await found(*given, **named)
            if (self.seen[name], when) == (number, "after"):
                self.die()
            return answer

        return dying


@dataclass
class World:
    """What a payment changes. It knows a key that it has seen."""

    isolation = Isolation.VM
    reaches_out = True
    paid: list[str] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    outcome: Status = Status.OK

    def check_room(self) -> None: ...

    async def execute(self, work: Work, printed: Printed) -> Outcome:
        keyed = bool((work.tool.target or {})["idempotency_header"])
        if not keyed or work.request_id not in self.keys:
            self.paid.append(work.request_id)
        self.keys.add(work.request_id)
        return Outcome(self.outcome, result={"paid": len(self.paid)})


@pytest.fixture(params=["memory", "postgres"])
def dsn(request: pytest.FixtureRequest) -> str | None:
    return request.getfixturevalue("postgres").dsn("tools") if request.param == "postgres" else None


@pytest.fixture
async def store(dsn: str | None) -> AsyncIterator[ToolStore]:
    if dsn is None:
        yield MemoryToolStore()
        return
    async with open_database(dsn, pool=2) as database:
        yield PostgresToolStore(database)


@pytest.fixture
def caller() -> Principal:
    return Principal(f"tenant-{uuid4()}", "ada", frozenset({"admin"}))


def flow(store: Any, world: Any, clock: FakeClock) -> Flow:
    async def pause(_seconds: float) -> None: ...

    return Flow(
        store, {"external_api": world}, authorizer=ToolAuthorizer(), rates=LocalRates(clock), policy=None, clock=clock,
        ids=RandomIds(), pause=pause,
    )  # fmt: skip


async def call(service: Flow, caller: Principal, tool: Tool = PAY) -> Outcome:
    request = Request(tool, {"amount": 5}, agent="Athena", request_id="req_1")
    await service.admit(caller, request)
    return await service.run(caller, request, service.new_invocation(), lambda *_: None)


DEATHS = [
    (step, number, when)
    for step, number in (("count", 1), ("reserve", 1), ("advance", 1), ("execute", 1), ("advance", 2), ("record", 1))
    for when in ("before", "after")
]


@pytest.mark.parametrize("tool", [PAY, KEYED], ids=["plain", "keyed"])
@pytest.mark.parametrize("at", DEATHS, ids=[f"{when}-{step}-{number}" for step, number, when in DEATHS])
async def test_an_effect_happens_at_most_once_wherever_the_service_dies(
    store: ToolStore, caller: Principal, at: tuple[str, int, str], tool: Tool
) -> None:
    world, clock = World(), FakeClock()
    with pytest.raises(Killed):
        await call(flow(Dying(store, at), Dying(world, at), clock), caller, tool)
    clock.advance(timedelta(minutes=20))
    outcomes = []
    for _ in range(2):
        with suppress(ToolOutcomeUnknown):
            outcomes.append(await call(flow(store, world, clock), caller, tool))
    assert len(world.paid) <= 1
    assert all(outcome.result == {"paid": 1} for outcome in outcomes)
    unknown = tool is PAY and at in (
        ("advance", 1, "after"), ("execute", 1, "before"), ("execute", 1, "after"), ("advance", 2, "before"),
    )  # fmt: skip
    assert bool(outcomes) != unknown, "what may have happened is reported, everything else is done"
    recorded = [one.status for one in await store.invocations(caller.tenant_id, "pay@1.0.0")]
    assert ("UNKNOWN" in recorded) == unknown


async def test_an_outcome_that_nobody_knows_is_not_repeated_without_a_crash_either(
    store: ToolStore, caller: Principal
) -> None:
    world, clock = World(outcome=Status.UNKNOWN), FakeClock()
    assert (await call(flow(store, world, clock), caller)).status is Status.UNKNOWN
    with pytest.raises(ToolOutcomeUnknown):
        await call(flow(store, world, clock), caller)
    assert len(world.paid) == 1


async def test_who_was_not_reached_is_called_when_asked_again_under_the_same_name(
    store: ToolStore, caller: Principal
) -> None:
    world, clock = World(outcome=Status.UNREACHABLE), FakeClock()
    assert (await call(flow(store, world, clock), caller)).status is Status.UNREACHABLE
    world.outcome = Status.OK
    world.paid.clear()  # whoever was not reached has done nothing
    outcome = await call(flow(store, world, clock), caller)
    assert (outcome.status, outcome.replayed) == (Status.OK, False)
    assert (await call(flow(store, world, clock), caller)).replayed
    assert len(world.paid) == 1


async def test_a_call_that_was_cancelled_on_its_way_out_is_unknown(store: ToolStore, caller: Principal) -> None:
    class Slow(World):
        async def execute(self, work: Work, printed: Printed) -> Outcome:
            self.paid.append(work.request_id)
            await asyncio.sleep(60)
            raise AssertionError

    world, clock = Slow(), FakeClock()
    running = asyncio.ensure_future(call(flow(store, world, clock), caller))
    while not world.paid:
        await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    with pytest.raises(ToolOutcomeUnknown):
        await call(flow(store, world, clock), caller)
    assert len(world.paid) == 1


async def test_two_at_once_do_it_once(store: ToolStore, caller: Principal) -> None:
    world, clock = World(), FakeClock()
    services = [flow(store, world, clock) for _ in range(4)]
    found = await asyncio.gather(*(call(one, caller) for one in services), return_exceptions=True)
    assert len(world.paid) == 1
    assert any(isinstance(one, Outcome) for one in found)


async def test_a_name_is_forgotten_after_a_day(store: ToolStore, caller: Principal) -> None:
    world, clock = World(), FakeClock()
    service = flow(store, world, clock)
    await call(service, caller)
    clock.advance(timedelta(hours=23))
    assert (await call(service, caller)).replayed
    clock.advance(timedelta(hours=2))
    assert not (await call(service, caller)).replayed
    assert len(world.paid) == 2


PROCESS = """
import asyncio, json, os, sys
from pathlib import Path
sys.path[:0] = json.loads(sys.argv[1])
from tests.contract.tools.test_once import *

class Dead(Dying):
    def die(self):
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    caller = Principal(sys.argv[4], "ada", frozenset({"admin"}))
    step, number, when = sys.argv[5:]
    at = (step, int(number), when)
    async with open_database(sys.argv[2], pool=1) as database:
        store, world = Dead(PostgresToolStore(database), at), Dead(Ledger(Path(sys.argv[3])), at)
        await call(flow(store, world, FakeClock()), caller)

asyncio.run(main())
"""


class Ledger(World):
    """A payment is a line of a file, which outlives whoever pays."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    async def execute(self, work: Work, printed: Printed) -> Outcome:
        with self._path.open("a") as file:
            file.write(work.request_id + "\n")
        return Outcome(Status.OK, result={"paid": len(self._path.read_text().splitlines())})


@pytest.mark.heavy
@pytest.mark.parametrize("at", DEATHS, ids=[f"{when}-{step}-{number}" for step, number, when in DEATHS])
async def test_a_service_killed_at_a_step_pays_at_most_once_and_reports_what_it_cannot_know(
    request: pytest.FixtureRequest, caller: Principal, tmp_path: Path, at: tuple[str, int, str]
) -> None:
    ledger, address = tmp_path / "ledger", request.getfixturevalue("postgres").dsn("tools")
    arguments = [json.dumps(sys.path), address, str(ledger), caller.tenant_id, at[0], str(at[1]), at[2]]
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", PROCESS, *arguments, cwd=ROOT)
    async with asyncio.timeout(150):
        assert await process.wait() == -signal.SIGKILL
    paid_before = ledger.exists()
    clock, outcomes = FakeClock(), []
    clock.advance(timedelta(minutes=20))
    async with open_database(address, pool=1) as database:
        for _ in range(2):
            with suppress(ToolOutcomeUnknown):
                outcomes.append(await call(flow(PostgresToolStore(database), Ledger(ledger), clock), caller))
    paid = ledger.read_text().splitlines() if ledger.exists() else []
    assert len(paid) <= 1
    assert all(outcome.result == {"paid": 1} for outcome in outcomes)
    assert outcomes or paid_before or at in (("advance", 1, "after"), ("execute", 1, "before"))
