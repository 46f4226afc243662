"""What the bus may rely on, whichever stores it has; and its way through a real Valkey."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from services.gateway.bus.bus import Bus, Heard, LocalLive
from services.gateway.bus.event import Event, Wanted
from services.gateway.bus.kafka import KafkaIntake
from services.gateway.bus.nats_jetstream import NatsIntake
from services.gateway.bus.redis_streams import Intake, RedisLive
from services.gateway.bus.sinks import Sinks
from services.gateway.bus.store import Delivery, Due, Format, Status, Webhook
from services.gateway.bus.store_memory import MemoryEventStore, MemoryWebhookStore
from services.gateway.bus.store_postgres import PostgresEventStore, PostgresWebhookStore
from shared.bus import LOGS, Emitter, LogBridge, RedisOutlet, bridged_logs, entry, open_outlet
from shared.clock import SystemClock
from shared.ids import RandomIds
from shared.log import log
from shared.paging import Page
from shared.postgres import open_database
from shared.redis import open_redis
from shared.settings import MeshSettings
from shared.tasks import supervised
from tests.support.forged import PLACES, refused
from tests.support.kafka import Broker, install
from tests.support.nats import running_nats

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
EVENT = Event("evt_1", "session.started", NOON, "test", "subject", "ses_1", "Athena@1.0.0", {"größe": [1, {"a": None}]})
WEBHOOK = Webhook("whk_1", "https://example.com/", "ours", ("session.*",), Format.SLACK, b"\x00\xff", True, NOON)
DELIVERY = Delivery("dlv_1", "whk_1", 1, "session.started", Status.PENDING, NOON, next_attempt_at=NOON)


@pytest.fixture(params=["memory", "postgres"])
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Any, Any]]:
    if request.param == "memory":
        yield MemoryEventStore(), MemoryWebhookStore()
        return
    async with open_database(request.getfixturevalue("postgres").dsn("gateway"), pool=8) as database:
        yield PostgresEventStore(database), PostgresWebhookStore(database)


@pytest.fixture
def tenant() -> str:
    return f"tenant-{uuid4()}"


async def test_events_are_numbered_without_gaps_and_come_back_as_they_were(stores: Any, tenant: str) -> None:
    events, _ = stores
    first = await events.append(tenant, [EVENT, replace(EVENT, id="evt_2", name="turn.completed", session_id="")])
    assert [event.sequence for event in first] == [1, 2]
    assert first[0] == replace(EVENT, sequence=1)
    again = await events.append(tenant, [replace(EVENT, data={}), replace(EVENT, id="evt_3")])
    assert [event.sequence for event in again] == [1, 3]
    assert again[0] == first[0]
    assert await events.last_sequence(tenant) == 3
    assert await events.last_sequence(f"{tenant}-other") == 0
    assert list(await events.read(tenant, Wanted(), after=1, limit=1)) == [first[1]]


async def test_many_writers_leave_no_gap_and_no_double(stores: Any, tenant: str) -> None:
    events, _ = stores
    writers = [[replace(EVENT, id=f"evt_{writer % 8}_{n}") for n in range(3)] for writer in range(16)]
    await asyncio.gather(*(events.append(tenant, batch) for batch in writers))
    found = await events.read(tenant, Wanted(), after=0, limit=100)
    assert [event.sequence for event in found] == list(range(1, 25))
    assert len({event.id for event in found}) == 24


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Wanted(), [1, 2, 3]),
        (Wanted(names=("*",)), [1, 2, 3]),
        (Wanted(names=("session.*",)), [1, 3]),
        (Wanted(names=("turn.completed", "session.started")), [1, 2]),
        (Wanted(names=("session",)), []),
        (Wanted(session_id="ses_2"), [2]),
        (Wanted(start=NOON + timedelta(seconds=1)), [2, 3]),
        (Wanted(end=NOON + timedelta(seconds=2)), [1, 2]),
    ],
)
async def test_events_are_found_by_name_session_and_time(
    stores: Any, tenant: str, wanted: Wanted, found: list[int]
) -> None:
    names = (("session.started", "ses_1"), ("turn.completed", "ses_2"), ("session.finished", "ses_1"))
    made = [
        replace(EVENT, id=f"evt_{n}", name=name, session_id=session, occurred_at=NOON + timedelta(seconds=n))
        for n, (name, session) in enumerate(names)
    ]
    await stores[0].append(tenant, made)
    assert [event.sequence for event in await stores[0].read(tenant, wanted, after=0, limit=9)] == found


async def test_a_webhook_keeps_its_secret_and_time_when_it_is_replaced(stores: Any, tenant: str) -> None:
    _, webhooks = stores
    assert await webhooks.put(tenant, WEBHOOK) == WEBHOOK
    changed = replace(
        WEBHOOK,
        url="https://b.example/",
        enabled=False,
        format=Format.CRM,
        sealed_secret=b"",
        created_at=NOON + timedelta(1),
    )
    kept = await webhooks.put(tenant, changed)
    assert kept == replace(changed, sealed_secret=WEBHOOK.sealed_secret, created_at=NOON)
    assert await webhooks.find(tenant, "whk_1") == kept
    assert list(await webhooks.every(tenant)) == [kept]
    assert await webhooks.find(f"{tenant}-other", "whk_1") is None


async def test_due_deliveries_are_claimed_once_and_again_when_nobody_finished_them(stores: Any, tenant: str) -> None:
    _, webhooks = stores
    await webhooks.put(tenant, WEBHOOK)
    await webhooks.add(tenant, [DELIVERY, replace(DELIVERY, id="dlv_2", next_attempt_at=NOON + timedelta(hours=1))])
    await webhooks.add(tenant, [replace(DELIVERY, attempts=5)])  # it is there already

    async def claim(now: datetime, busy: list[str] | None = None) -> list[Due]:
        found = await webhooks.claim(now, until=now + timedelta(minutes=1), limit=1000, busy=busy or [])
        return [due for due in found if due.tenant == tenant]

    assert await claim(NOON - timedelta(seconds=1)) == []
    assert await claim(NOON, busy=["whk_1"]) == []
    assert await claim(NOON) == [Due(tenant, "dlv_1", "whk_1")]
    assert await claim(NOON + timedelta(seconds=59)) == []
    assert await claim(NOON + timedelta(seconds=60)) == [Due(tenant, "dlv_1", "whk_1")]
    assert (await webhooks.delivery(tenant, "dlv_1")).attempts == 0


async def test_a_try_is_recorded_and_only_what_is_pending_is_due_again(stores: Any, tenant: str) -> None:
    _, webhooks = stores
    await webhooks.put(tenant, WEBHOOK)
    await webhooks.add(
        tenant, [replace(DELIVERY, id=f"dlv_{n}", created_at=NOON + timedelta(seconds=n)) for n in range(3)]
    )
    done = replace(
        DELIVERY, id="dlv_0", status=Status.DELIVERED, attempts=1, last_code=204, next_attempt_at=None, created_at=NOON
    )
    await webhooks.record(tenant, done)
    later = NOON + timedelta(hours=2)
    await webhooks.record(
        tenant, replace(DELIVERY, id="dlv_1", attempts=1, last_error="HTTP 500", next_attempt_at=later)
    )
    found = await webhooks.claim(NOON, until=later, limit=1000, busy=[])
    assert [due.delivery_id for due in found if due.tenant == tenant] == ["dlv_2"]
    assert await webhooks.delivery(tenant, "dlv_0") == done
    listed = await webhooks.deliveries(tenant, "whk_1", status=None, page=Page(size=1))
    assert [one.id for one in listed] == ["dlv_2", "dlv_1"]
    seen = (listed[0].created_at.isoformat(), "dlv_2")
    assert [one.id for one in await webhooks.deliveries(tenant, "whk_1", status=None, page=Page(2, seen))] == [
        "dlv_1",
        "dlv_0",
    ]
    pending = await webhooks.deliveries(tenant, "whk_1", status=Status.DELIVERED, page=Page())
    assert [one.id for one in pending] == ["dlv_0"]
    await refused(lambda page: webhooks.deliveries(tenant, "whk_1", status=None, page=page), PLACES)


async def test_a_deleted_webhook_takes_its_deliveries_along(stores: Any, tenant: str) -> None:
    _, webhooks = stores
    await webhooks.put(tenant, WEBHOOK)
    await webhooks.add(tenant, [DELIVERY])
    assert [await webhooks.delete(tenant, "whk_1") for _ in range(2)] == [True, False]
    assert await webhooks.delivery(tenant, "dlv_1") is None
    found = await webhooks.claim(NOON, until=NOON, limit=1000, busy=[])
    assert not [due for due in found if due.tenant == tenant]


def bus_of(live: Any) -> Bus:
    return Bus(MemoryEventStore(), MemoryWebhookStore(), live, Sinks(), clock=SystemClock(), ids=RandomIds())


async def test_a_listener_gets_every_event_once_and_in_order_while_others_publish(tenant: str) -> None:
    bus = bus_of(LocalLive())
    heard: list[int] = []

    async def listen() -> None:
        async for found in bus.subscribe(tenant, Wanted(), after=0):
            if found.event:
                heard.append(found.event.sequence)
            if len(heard) == 200:
                return

    listening = asyncio.create_task(listen())
    for n in range(50):
        await asyncio.gather(*(bus.publish(tenant, [replace(EVENT, id=f"{n}-{m}")]) for m in range(4)))
    await asyncio.wait_for(listening, 10)
    assert heard == list(range(1, 201))


async def test_replicas_hear_of_one_another_through_valkey(valkey_url: str, tenant: str) -> None:
    async with AsyncExitStack() as stack:
        redis = [await stack.enter_async_context(open_redis(valkey_url)) for _ in range(3)]
        one, other = RedisLive(redis[0]), RedisLive(redis[1])
        await stack.enter_async_context(supervised("news", other.listen))
        await asyncio.sleep(0.2)
        waiting = asyncio.create_task(other.wait(tenant, limit=timedelta(seconds=5)))
        await asyncio.sleep(0.05)
        started = asyncio.get_running_loop().time()
        await one.told(tenant)
        await waiting
        assert asyncio.get_running_loop().time() - started < 1


@pytest.fixture(scope="module")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_nats(tmp_path_factory.mktemp("nats")) as url:
        yield url


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    install()
    running = Broker(tmp_path_factory.mktemp("kafka"))
    running.start()
    yield running
    running.kill()


@pytest.fixture
def kafka_url(broker: Broker) -> str:
    return broker.url


@pytest.mark.parametrize("way", ["redis", "nats", pytest.param("kafka", marks=pytest.mark.heavy)])
async def test_what_services_emit_is_taken_into_the_bus_once(
    way: str, valkey_url: str, request: pytest.FixtureRequest, tenant: str
) -> None:
    async with AsyncExitStack() as stack:
        given = {"listen": "127.0.0.1:0", "postgres_dsn": "x", "identity_keys": "x", "redis_url": valkey_url}
        url = request.getfixturevalue(f"{way}_url") if way != "redis" else ""
        settings = MeshSettings.model_validate({**given, "bus_url": url})
        outlet = await stack.enter_async_context(open_outlet(settings))
        redis = await stack.enter_async_context(open_redis(valkey_url))
        bus = bus_of(LocalLive())
        intakes: dict[str, Any] = {
            "redis": Intake(redis, bus, consumer="one", platform="platform"),
            "nats": NatsIntake(url, bus, platform="platform"),
            "kafka": KafkaIntake(url, bus, platform="platform"),
        }
        intake = intakes[way]
        await stack.enter_async_context(supervised("intake", intake.run))
        emitter = Emitter(outlet, SystemClock(), source="orchestrator")
        async with emitter.running():
            for _ in range(2):
                emitter.emit(
                    tenant, "turn.completed", event_id="trn_1", subject="trn_1", session_id="ses_1", data={"n": 1}
                )
            emitter.emit(tenant, "not an event")
            emitter.emit(tenant, "session.finished", session_id="ses_1")
        found = await _until(bus, tenant, 2)
    assert [(event.name, event.source) for event in found] == [
        ("turn.completed", "orchestrator"), ("session.finished", "orchestrator"),
    ]  # fmt: skip
    assert found[0].data == {"n": 1}


async def test_what_nats_could_not_take_waits_and_goes_when_it_is_back(tmp_path: Path) -> None:
    from shared.bus_nats import NatsOutlet, connected, stream_of

    with running_nats(tmp_path) as url:
        async with connected(url) as client:
            outlet = NatsOutlet(await stream_of(client))
            assert await outlet.put("bus:events", [{"tenant": "a", "event": "{}"}] * 3) == 3
            await client.close()
            assert await outlet.put("bus:events", [{"tenant": "a", "event": "{}"}]) == 0


@pytest.mark.heavy
async def test_what_kafka_could_not_take_goes_when_it_is_back_once_and_in_order(broker: Broker, tenant: str) -> None:
    """Killed as by kill -9 amid sending; nothing is lost, and nothing is there twice though events have no ids."""
    from shared.bus_kafka import KafkaOutlet, producing

    entries = [entry(tenant, "turn.completed", source="x", time=NOON, subject=str(n)) for n in range(300)]
    bus = bus_of(LocalLive())
    async with producing(broker.url) as producer:
        outlet = KafkaOutlet(producer)
        assert await outlet.put("bus:events", entries[:100]) == 100
        broker.kill()
        assert await outlet.put("bus:events", entries[100:]) == 0
        broker.start()
        left = entries[100:]
        for _ in range(60):
            left = left[await outlet.put("bus:events", left) :]
            if not left:
                break
        async with supervised("intake", KafkaIntake(broker.url, bus, platform="platform").run):
            for _ in range(1000):
                found = await bus.read(tenant, Wanted(), after=0, limit=500)
                if len(found) >= 300:
                    break
                await asyncio.sleep(0.02)
    assert [event.subject for event in found] == [str(n) for n in range(300)]


async def test_warnings_and_errors_of_the_log_reach_the_platforms_tenant(valkey_url: str) -> None:
    platform = f"platform-{uuid4()}"
    async with AsyncExitStack() as stack:
        redis = [await stack.enter_async_context(open_redis(valkey_url)) for _ in range(2)]
        bus = bus_of(LocalLive())
        await stack.enter_async_context(
            supervised("intake", Intake(redis[0], bus, consumer="two", platform=platform).run)
        )
        emitter = Emitter(RedisOutlet(redis[1]), SystemClock(), source="cost", stream=LOGS)
        bridge = LogBridge(emitter)
        async with emitter.running():
            bridge(None, "info", {"level": "info", "event": "rpc.finished"})
            bridge(None, "warning", {"level": "warning", "event": "ledger.slow", "elapsed_ms": 900})
            bridge(
                None, "error", {"level": "error", "event": "rpc.fault", "session_id": "ses_1", "exc_info": ValueError()}
            )
        found = await _until(bus, platform, 2)
    assert [(event.name, event.subject, event.source) for event in found] == [
        ("log.warning", "ledger.slow", "cost"), ("log.error", "rpc.fault", "cost"),
    ]  # fmt: skip
    assert found[1].session_id == "ses_1"
    assert "exc_info" not in found[1].data


async def test_an_emitter_never_waits_and_loses_the_newest_when_redis_is_away() -> None:
    async with open_redis("redis://127.0.0.1:1/0") as redis:
        emitter = Emitter(RedisOutlet(redis), SystemClock(), source="x")
        started = asyncio.get_running_loop().time()
        for _ in range(12_000):
            emitter.emit("acme", "a.b")
        assert asyncio.get_running_loop().time() - started < 2
        assert len(emitter._waiting) == 10_000


async def _until(bus: Bus, tenant: str, count: int) -> list[Event]:
    for _ in range(1000):  # a consumer group of Kafka takes its time to form
        found = list(await bus.read(tenant, Wanted(), after=0, limit=10))
        if len(found) >= count:
            return found
        await asyncio.sleep(0.02)
    raise AssertionError(f"only {found}")


async def test_a_quiet_bus_gives_a_sign_of_life(tenant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.gateway.bus.bus._HEARTBEAT", timedelta(milliseconds=50))
    bus = bus_of(LocalLive())
    listening = bus.subscribe(tenant, Wanted(), after=None)
    assert [await anext(listening) for _ in range(2)] == [Heard(0), Heard(0)]
    await listening.aclose()


async def test_the_setting_log_bus_turns_the_bridge_on(valkey_url: str, tmp_path: Path) -> None:
    platform = f"platform-{uuid4()}"
    settings = MeshSettings.model_validate(
        {
            "listen": "127.0.0.1:0",
            "postgres_dsn": "x",
            "identity_keys": tmp_path,
            "redis_url": valkey_url,
            "log_bus": True,
        }
    )
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(open_redis(valkey_url))
        bus = bus_of(LocalLive())
        intake = Intake(redis, bus, consumer="three", platform=platform)
        await stack.enter_async_context(supervised("intake", intake.run))
        async with bridged_logs("cost", settings):
            log.warning("ledger.slow", password="hunter2")
            log.info("not.told")
        log.warning("after.the.end")
        (found, *more) = await _until(bus, platform, 1)
    assert (found.name, found.subject, found.data["password"], more) == ("log.warning", "ledger.slow", "[redacted]", [])
