"""A session as it is audited, carried away and taken in."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from google.protobuf import json_format

from agentnet.inference.v1 import generation_pb2
from agentnet.orchestrator.v1 import agent_pb2, history_pb2, session_pb2
from services.orchestrator.errors import AgentNotFound, DocumentInvalid, ReplayUnsupported, SessionNotFound
from services.orchestrator.forks.fork import Fork
from services.orchestrator.store import Entry
from shared.errors import Reason, Unavailable
from tests.support.graphs import node
from tests.support.orchestrator import ADA, TENANT, TTL, World

Document = history_pb2.SessionDocument


async def told(world: World) -> str:
    verdict = generation_pb2.PolicyVerdict(rule="pii", bundle="default@1.0.0", action="redact", severity="major")
    world.inference.interludes = [generation_pb2.GenerationEvent(verdict=verdict)]
    world.inference.failures = [Unavailable("away", reason=Reason.ERROR_REASON_PROVIDER_UNAVAILABLE)]
    session_id = await world.start()
    await world.drive()
    return session_id


async def test_an_audit_tells_turns_violations_costs_incidents_and_that_the_log_is_whole() -> None:
    world = World()
    session_id = await told(world)

    found = await world.histories.audit(TENANT, session_id)

    assert found.session == await world.find(session_id)
    assert [turn.agent for turn in found.turns] == ["Athena@1.0.0", "Apollo@1.0.0"] * 2
    assert found.turns[1].context.short_term[0] == "Athena: Athena has one idea about it."
    assert {(one.agent, one.verdict.rule) for one in found.violations} == {
        ("Athena@1.0.0", "pii"),
        ("Apollo@1.0.0", "pii"),
    }
    assert [(line.agent, line.turns, line.micros_usd) for line in found.costs] == [
        ("Apollo@1.0.0", 2, 14),
        ("Athena@1.0.0", 2, 14),
    ]
    assert [event.WhichOneof("payload") for event in found.incidents] == ["turn_interrupted"]
    assert found.chain == history_pb2.ChainReport(intact=True, events=len(await world.log(session_id)))


@pytest.mark.parametrize(
    ("fault", "tamper"),
    [
        ("edited", lambda log: log.__setitem__(3, Entry(4, log[3].kind, log[3].payload + b"\x2a\x01x"))),
        (
            "edited",
            lambda log: log.__setitem__(slice(4, 6), [Entry(5, "", log[5].payload), Entry(6, "", log[4].payload)]),
        ),
        ("missing", lambda log: log.pop(4)),
        ("truncated", lambda log: log.pop()),
    ],
)
async def test_what_was_done_to_a_log_is_found(fault: str, tamper: Callable[[list[Entry]], object]) -> None:
    world = World()
    session_id = await told(world)
    kept = world.store._kept[TENANT, session_id]
    before = list(kept.log)

    tamper(kept.log)

    wrong = next((place for place, entry in enumerate(before) if kept.log[place : place + 1] != [entry]), 0)
    if fault == "missing":
        kept.macs.pop(4)
    chain = (await world.histories.audit(TENANT, session_id)).chain
    assert (chain.intact, chain.fault, chain.sequence) == (False, fault, wrong + 1)


async def test_a_session_is_carried_away_as_json_and_taken_in_elsewhere() -> None:
    world, other = World(), World()
    session_id = await told(world)
    document = await world.histories.export(TENANT, session_id)

    text = json_format.MessageToJson(document)
    taken = await other.histories.take_in(ADA, json_format.Parse(text, Document()), request_id=None)

    assert taken.id != session_id
    assert (taken.origin.session_id, taken.origin.kind) == (session_id, "import")
    assert await other.find(taken.id) == taken
    before = [event.WhichOneof("payload") for event in await world.log(session_id)]
    assert [event.WhichOneof("payload") for event in await other.log(taken.id)] == before
    found = await other.histories.audit(TENANT, taken.id)
    assert found.chain.intact
    assert [turn.content for turn in found.turns] == [
        event.turn_finished.turn.content for event in document.events if event.HasField("turn_finished")
    ]
    assert await other.leases.claim("one", ttl=TTL, limit=9) == []


async def test_what_was_taken_in_can_be_exported_and_taken_in_again() -> None:
    world = World()
    first = await world.histories.export(TENANT, await told(world))
    second = await world.histories.export(TENANT, (await world.histories.take_in(ADA, first, request_id=None)).id)
    third = await world.histories.take_in(ADA, second, request_id="again")
    assert (await world.histories.take_in(ADA, second, request_id="again")).id == third.id
    assert len(second.events) == len(first.events)


def _version(document: Document) -> None:
    document.schema_version = 9


def _empty(document: Document) -> None:
    del document.events[:]


def _gap(document: Document) -> None:
    del document.events[3]


def _stranger(document: Document) -> None:
    document.events[2].session_id = "ses_other"


def _silent(document: Document) -> None:
    document.events[2].ClearField("turn_started")
    document.events[2].ClearField("tokens_produced")
    document.events[2].ClearField(document.events[2].WhichOneof("payload") or "time")


def _running(document: Document) -> None:
    document.session.status = session_pb2.SESSION_STATUS_RUNNING


def _unfinished(document: Document) -> None:
    del document.events[-1]


def _edited(document: Document) -> None:
    document.events[1].turn_started.prompt = "Another."


def _summary(document: Document) -> None:
    document.session.cost_micros_usd = 1


def _turn(document: Document) -> int:
    """Where the first turn ends."""
    return next(at for at, event in enumerate(document.events) if event.HasField("turn_finished"))


def _beyond_the_calendar(document: Document) -> None:
    document.events[2].time.seconds = 1 << 60


def _no_number(document: Document) -> None:
    document.events[_turn(document)].turn_finished.turn.confidence = float("nan")


def _not_text(document: Document) -> None:
    document.events[_turn(document)].turn_finished.turn.agent = "Athena\x00"


def _not_text_in_metadata(document: Document) -> None:
    document.session.metadata.update({"x": "\x00"})


@pytest.mark.parametrize(
    ("spoil", "field"),
    [
        (_version, "document.schema_version"),
        (_empty, "document.events"),
        (_gap, "document.events[3].sequence"),
        (_stranger, "document.events[2].session_id"),
        (_silent, "document.events[2]"),
        (_running, "document.session.status"),
        (_unfinished, "document.events[{last}]"),
        (_edited, "document.log_hash"),
        (_summary, "document.session.cost_micros_usd"),
        (_beyond_the_calendar, "document.events[2].time"),
        (_no_number, "document.events[{turn}].turn_finished.turn.confidence"),
        (_not_text, "document.events[{turn}].turn_finished.turn.agent"),
        (_not_text_in_metadata, "document.session.metadata.fields.x.string_value"),
    ],
)
async def test_a_broken_document_is_refused_with_the_field_at_fault(
    spoil: Callable[[Document], None], field: str
) -> None:
    world = World()
    document = await world.histories.export(TENANT, await told(world))
    last, turn = len(document.events) - 2, _turn(document)
    spoil(document)

    with pytest.raises(DocumentInvalid) as raised:
        await world.histories.take_in(ADA, document, request_id=None)

    assert raised.value.field == field.format(last=last, turn=turn)


async def test_a_graph_is_neither_replayed_nor_is_a_stranger_found() -> None:
    world = World()
    graph = await world.execute(node("a"))
    with pytest.raises(ReplayUnsupported):
        await world.histories.replay(TENANT, graph.session.id)
    with pytest.raises(SessionNotFound):
        await world.histories.audit("other", graph.session.id)


async def test_a_tenant_without_the_agents_reads_what_it_took_in_and_is_told_what_replay_and_fork_lack() -> None:
    world, other = World(), World()
    maker = agent_pb2.Agent(
        name="Maker", version="1.0.0", system_prompt="You make.", state=agent_pb2.AGENT_STATE_ACTIVE
    )
    await world.agents.create(TENANT, maker)
    session_id = await world.start(agents=["Maker", "Athena"], max_rounds=1)
    await world.drive()
    taken = await other.histories.take_in(ADA, await world.histories.export(TENANT, session_id), request_id=None)

    assert len((await other.histories.audit(TENANT, taken.id)).turns) == 2
    for lacking in (
        other.histories.replay(TENANT, taken.id),
        other.histories.fork(
            ADA, taken.id, Fork(2, session_pb2.SessionOverrides(), side_effects=False), request_id=None
        ),
    ):
        with pytest.raises(AgentNotFound, match=r"Maker@1\.0\.0, which this tenant does not have"):
            await lacking

    await other.agents.create(TENANT, maker)
    assert (await other.histories.replay(TENANT, taken.id)).identical
