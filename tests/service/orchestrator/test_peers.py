"""inference and memory as the orchestrator calls them: over a real channel, for whoever started the session."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from grpc import StatusCode
from structlog.testing import capture_logs

from agentnet.orchestrator.v1 import agent_pb2, turn_pb2
from services.orchestrator.peers import Utterance
from services.orchestrator.peers_grpc import SERVICES, GrpcInference, GrpcMemory
from services.orchestrator.prompts import Line
from shared.clock import SystemClock
from shared.errors import MeshError
from shared.identity import Signer
from shared.rpc.channel import mesh_channel
from tests.support.orchestrator import ADA
from tests.support.replicas import SlowModel, site

SAID = Utterance(
    generation_id="trn_1-1",
    session_id="ses_1",
    agent=agent_pb2.Agent(name="Athena", version="1.0.0", sampling=agent_pb2.SamplingConfig(temperature=0.2)),
    model="",
    lines=(Line("system", "You are Athena."), Line("user", "Why?")),
    max_output_tokens=96,
)


def turn(name: str, content: str) -> turn_pb2.Turn:
    return turn_pb2.Turn(id=name, session_id="ses_1", agent="Athena@1.0.0", content=content)


@dataclass(frozen=True, slots=True)
class Peers:
    model: SlowModel
    inference: GrpcInference
    memory: GrpcMemory


@pytest.fixture
async def peers(tmp_path: Path) -> AsyncIterator[Peers]:
    async with site(tmp_path, dsn="", driver_dsn="", redis_url="", words=3, pause=0) as (where, model):
        signer = Signer.from_file("orchestrator", where.signing_key, SystemClock())
        async with mesh_channel(where.mesh_address, services=SERVICES) as channel:
            yield Peers(model, GrpcInference(channel, signer), GrpcMemory(channel, signer))


async def test_a_generation_is_streamed_for_the_sessions_starter(peers: Peers) -> None:
    async with aclosing(peers.inference.generate(ADA, SAID)) as events:
        heard = [event async for event in events]
    assert [event.sequence for event in heard] == [1, 2, 3, 4]
    assert heard[-1].HasField("finished")
    assert [(caller.tenant_id, caller.subject) for caller in peers.model.callers] == [("acme", "ada")]


async def test_a_generation_names_the_team_and_the_sub_agent_it_spends_for(peers: Peers) -> None:
    said = replace(SAID, team="research", sub_agent="Athena@1.0.0/Apollo@1.0.0")
    async with aclosing(peers.inference.generate(ADA, said)) as events:
        await anext(events)
    (asked,) = peers.model.asked
    assert (asked.team, asked.agent, asked.sub_agent) == ("research", "Athena@1.0.0", "Athena@1.0.0/Apollo@1.0.0")


async def test_a_generation_is_read_on_after_what_was_heard(peers: Peers) -> None:
    async with aclosing(peers.inference.generate(ADA, SAID)) as events:
        await anext(events)
    async with aclosing(peers.inference.attach(ADA, SAID.generation_id, after=1)) as events:
        assert [event.sequence async for event in events] == [2, 3, 4]


async def test_the_services_own_error_comes_through(peers: Peers) -> None:
    with pytest.raises(MeshError) as raised:
        await anext(peers.inference.attach(ADA, "unknown", after=0))
    assert (raised.value.code, raised.value.reason_name) == (StatusCode.NOT_FOUND, "GENERATION_NOT_FOUND")


async def test_calling_off_what_is_gone_is_fine(peers: Peers) -> None:
    await peers.inference.cancel(ADA, "unknown")


async def test_memory_answers_or_the_turn_goes_without(peers: Peers) -> None:
    there = await peers.memory.recall(ADA, session_id="ses_1", agent="Athena", query="Why?")
    assert not there.degraded
    assert [one.max_turns for one in peers.model.memory.asked] == [-1]


async def test_a_memory_that_searches_for_nothing_is_asked_again_only_after_a_while(
    peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    peers.model.memory.silent = True
    for _ in range(3):
        found = await peers.memory.recall(ADA, session_id="ses_1", agent="Athena", query="Why?")
        assert (found.known, found.degraded) == ((), False)
    assert len(peers.model.memory.asked) == 1
    monkeypatch.setattr(peers.memory, "_silent_until", 0.0)
    await peers.memory.recall(ADA, session_id="ses_1", agent="Athena", query="Why?")
    assert len(peers.model.memory.asked) == 2


async def test_turns_are_told_together_and_those_that_are_refused_are_named(peers: Peers) -> None:
    turns = [turn("trn_1", "Because."), turn("trn_2", ""), turn("trn_3", "So.")]
    with capture_logs() as logs:
        await peers.memory.append("acme", turns)
    assert peers.model.memory.told == [[f"ses_1 trn_{place} Athena True" for place in (1, 2, 3)]]
    assert [(one["event"], one["reason"], one["turn_id"]) for one in logs] == [
        ("memory.turn_not_kept", "FIELD_REQUIRED", "trn_2")
    ]


async def test_turns_that_are_too_long_for_one_message_go_in_several(peers: Peers) -> None:
    await peers.memory.append("acme", [turn(f"trn_{place}", "word " * 60_000) for place in range(3)])
    assert [len(told) for told in peers.model.memory.told] == [1, 1, 1]


async def test_a_memory_that_does_not_answer_degrades_the_turn(tmp_path: Path, peers: Peers) -> None:
    signer = peers.memory._signer
    async with mesh_channel("127.0.0.1:1", services=SERVICES) as nowhere:
        away = GrpcMemory(nowhere, signer)
        assert (await away.recall(ADA, session_id="ses_1", agent="Athena", query="Why?")).degraded
        with capture_logs() as logs:
            await away.append("acme", [turn("trn_1", "Because.")])
    assert [(one["event"], one["turns"]) for one in logs if one["event"].startswith("memory")] == [
        ("memory.turns_not_kept", 1)
    ]
