"""What sessions do reaches the bus: real Postgres, real Valkey."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentnet.common.v1 import failure_pb2
from agentnet.orchestrator.v1 import event_pb2, session_pb2, turn_pb2
from services.orchestrator.lifecycle import AnnouncedSessionStore, event_of
from services.orchestrator.store import Entry
from shared.bus import STREAM, Emitter, RedisOutlet
from shared.clock import SystemClock
from shared.redis import open_redis
from tests.contract.orchestrator.conftest import LOG_KEY
from tests.contract.orchestrator.test_sessions import claimed, session, start
from tests.support.valkey import valkey_url

__all__ = ("valkey_url",)


def entry(sequence: int = 1, **payload: Any) -> Entry:
    event = event_pb2.SessionEvent(sequence=sequence, actor="user:ada", **payload)
    return Entry(sequence, event.WhichOneof("payload") or "", event.SerializeToString())


FAILED = failure_pb2.Failure(message="the provider is away")
ENDED = session_pb2.Session(status=session_pb2.SESSION_STATUS_COMPLETED, rounds_executed=2, cost_micros_usd=7)
SPOKEN = turn_pb2.Turn(id="trn_1", agent="Athena@1.0.0", round=1)
TOLD = [
    ({"session_started": event_pb2.SessionStarted()}, "session.started", ""),
    ({"session_finished": event_pb2.SessionFinished(session=ENDED)}, "session.finished", ""),
    ({"signal_received": event_pb2.SignalReceived(signal="pause")}, "session.paused", "user:ada"),
    ({"signal_received": event_pb2.SignalReceived(signal="resume")}, "session.resumed", "user:ada"),
    ({"turn_finished": event_pb2.TurnFinished(turn=SPOKEN)}, "turn.completed", "trn_1"),
    ({"turn_finished": event_pb2.TurnFinished(turn=turn_pb2.Turn(id="trn_2", failure=FAILED))}, "agent.error", "trn_2"),
    ({"turn_interrupted": event_pb2.TurnInterrupted(turn_id="trn_3", failure=FAILED)}, "agent.error", "trn_3"),
    ({"monitor_verdict": event_pb2.MonitorVerdict(turn_id="trn_4", rule="no_pii")}, "violation.raised", "trn_4"),
    ({"handed_off": event_pb2.HandedOff(source="Athena@1.0.0", target="Apollo@1.0.0")}, "agent.handoff", "user:ada"),
]  # fmt: skip


@pytest.mark.parametrize(("payload", "name", "subject"), TOLD)
def test_what_is_worth_telling_has_its_name(payload: dict[str, Any], name: str, subject: str) -> None:
    told = event_of(entry(**payload))
    assert told is not None
    assert (told[0], told[1].get("subject", "")) == (name, subject)


def test_what_only_readers_of_the_log_want_is_not_told() -> None:
    assert event_of(entry(tokens_produced=event_pb2.TokensProduced(text="a"))) is None
    assert event_of(entry(signal_received=event_pb2.SignalReceived(signal="advance"))) is None


@pytest.mark.parametrize("stores", ["postgres"], indirect=True)
async def test_what_is_committed_is_told_once_under_its_place_in_the_log(stores: Any, valkey_url: str) -> None:
    async with open_redis(valkey_url) as redis:
        await redis.delete(STREAM)
        emitter = Emitter(RedisOutlet(redis), SystemClock(), source="orchestrator")
        async with emitter.running():
            store = AnnouncedSessionStore(stores.sessions._database, emitter, log_key=LOG_KEY)
            await start(stores)
            lease = await claimed(stores)
            await store.append(lease, [entry(2, turn_finished=event_pb2.TurnFinished(turn=SPOKEN))], session=session())
        found = [(fields[b"tenant"].decode(), json.loads(fields[b"event"])) for _, fields in await redis.xrange(STREAM)]
    ((tenant, event),) = found
    assert (tenant, event["id"]) == (lease.tenant, f"{lease.session_id}/2")
    assert (event["name"], event["source"], event["agent"]) == ("turn.completed", "orchestrator", "Athena@1.0.0")
