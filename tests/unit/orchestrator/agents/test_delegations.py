"""Delegations: run within their capability, end with their session, and are revoked with all below them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import timedelta

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from agentnet.orchestrator.v1 import agent_pb2, delegation_pb2, event_pb2, session_pb2
from services.orchestrator.agents.conversation import Message
from services.orchestrator.agents.delegations import Task
from services.orchestrator.errors import DelegationEnded, DelegationTooWide, NoAgentAble
from services.orchestrator.peers import Utterance
from shared.errors import DeadlineExceeded, MeshError, PermissionDenied, Reason, Unavailable
from shared.identity import Grant, Principal, Purse
from tests.support.agents import Surroundings
from tests.support.orchestrator import ADA, TENANT, Watching, World, driving
from tests.support.scripted_peers import Generated, ScriptedInference

EVE = Principal(TENANT, "eve", frozenset({"tenant_user"}))
ROOT = Principal(TENANT, "root", frozenset({"admin"}))
Capability = delegation_pb2.Capability
State = delegation_pb2.DelegationState


@pytest.fixture
def around() -> Surroundings:
    return Surroundings(World())


def task(words: str = "Analysis, please", *, parent: str = "", agents: tuple[str, ...] = (), **may: object) -> Task:
    capability = Capability(**may)  # type: ignore[arg-type]
    return Task((Message("user", words),), capability, "con_1", agents=agents, parent_id=parent)


async def given(around: Surroundings, wanted: Task) -> delegation_pb2.Delegation:
    """Given to somebody, and not waited for."""
    opened, _ = await around.side.delegations.dispatch(ADA, wanted, request_id=None, patience=None)
    return opened


async def worked(around: Surroundings, opened: delegation_pb2.Delegation) -> delegation_pb2.Delegation:
    await around.world.drive()
    await around.follow()
    return await around.side.delegations.find(TENANT, opened.id)


async def allow(around: Surroundings, source: str, *targets: str) -> None:
    changes = agent_pb2.Agent(subagents=targets)
    await around.world.agents.update(TENANT, source, changes, request_id=None)


class Noting(ScriptedInference):
    """Notes who asks."""

    def __init__(self) -> None:
        super().__init__()
        self.callers: list[Principal] = []

    async def generate(self, caller: Principal, utterance: Utterance) -> AsyncGenerator[Generated, None]:
        self.callers.append(caller)
        async for event in super().generate(caller, utterance):
            yield event


async def test_work_finds_its_agent_and_comes_back(around: Surroundings, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = InMemoryMetricReader()
    meter = MeterProvider(metric_readers=[reader]).get_meter("test")
    monkeypatch.setattr("services.orchestrator.agents.following._handoffs", meter.create_counter("agent_handoffs"))
    asking = asyncio.create_task(
        around.side.delegations.dispatch(ADA, task(), request_id="r1", patience=timedelta(seconds=5))
    )
    await asyncio.sleep(0.01)
    await around.world.drive()
    opened, turn = await asking
    assert turn is not None
    assert (opened.target, opened.source, opened.state) == (
        "Athena@1.0.0",
        "user:ada",
        State.Value("DELEGATION_STATE_COMPLETED"),
    )
    assert (opened.output, opened.cost_micros_usd) == (turn.content, 7)
    session = await around.world.find(opened.session_id)
    assert (session.delegated.source, session.delegated.target) == ("user:ada", "Athena@1.0.0")
    await around.follow()
    assert "agent.handoff" in around.herald.names
    measured = reader.get_metrics_data()
    assert measured
    (handed,) = measured.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points
    assert (handed.attributes, handed.value) == ({"source": "user", "target": "Athena"}, 1)  # type: ignore[union-attr]
    again, _ = await around.side.delegations.dispatch(ADA, task(), request_id="r1", patience=timedelta(seconds=5))
    assert again.id == opened.id
    assert len(around.world.inference.started) == 1


async def test_a_repeated_request_attaches_also_when_nobody_has_room(around: Surroundings) -> None:
    changes = agent_pb2.Agent(max_concurrent_tasks=1)
    await around.world.agents.update(TENANT, "Athena", changes, request_id=None)
    wanted, delegations = task(agents=("Athena",)), around.side.delegations
    first, _ = await delegations.dispatch(ADA, wanted, request_id="r1", patience=None)
    again, _ = await delegations.dispatch(ADA, wanted, request_id="r1", patience=None)
    assert first.id == again.id
    with pytest.raises(NoAgentAble):
        await given(around, wanted)


async def test_who_answered_before_is_preferred(around: Surroundings) -> None:
    await worked(around, await given(around, task("Hello", agents=("Hermes",))))
    choice = await around.side.delegations.route(ADA, task("Hello"))
    assert choice.agent == "Hermes@1.0.0"
    assert "in this conversation before" in choice.reason


async def test_a_delegation_ends_with_its_session_whoever_waits(around: Surroundings) -> None:
    around.world.inference.failures = [PermissionDenied("no")]
    failed = await worked(around, await given(around, task()))
    assert (failed.state, failed.failure.message) == (State.Value("DELEGATION_STATE_FAILED"), "no")
    done = await worked(around, await given(around, task()))
    assert (done.state, done.output) == (State.Value("DELEGATION_STATE_COMPLETED"), "Athena has one idea about it.")
    assert await around.delegations.running(TENANT, now=around.world.clock.now()) == {}


async def test_waiting_too_long_leaves_the_work_going_on(around: Surroundings) -> None:
    with pytest.raises(DeadlineExceeded) as raised:
        await around.side.delegations.dispatch(ADA, task(), request_id=None, patience=timedelta())
    assert raised.value.facts["delegation_id"].startswith("del_")
    found = await around.side.delegations.find(TENANT, raised.value.facts["delegation_id"])
    assert found.state == State.Value("DELEGATION_STATE_RUNNING")


async def test_a_session_acts_within_its_capability_wherever_it_is_driven(around: Surroundings) -> None:
    opened = await given(around, task(tools=["search"], budget_micros_usd=50, depth=1))
    around.world.inference = noting = Noting()
    await worked(around, opened)
    (caller,) = noting.callers
    assert caller.grant is not None
    assert (caller.grant.tools, caller.grant.budget_micros_usd, caller.grant.depth) == (frozenset({"search"}), 50, 1)
    assert caller.grant.delegators == ("user:ada",)
    assert caller.grant.purses == (Purse(opened.id, 50),)
    assert caller.expires_at == around.world.clock.now() + timedelta(hours=1)


async def test_a_sub_agent_spends_from_the_purses_of_its_caller_and_of_what_works_above_it(
    around: Surroundings,
) -> None:
    await allow(around, "Athena", "Hermes")
    own = Purse("prs_ada", 90)
    rich = replace(ADA, grant=Grant().given(own))
    delegations = around.side.delegations
    first = task(agents=("Athena",), budget_micros_usd=50)
    parent, _ = await delegations.dispatch(rich, first, request_id=None, patience=None)
    around.world.inference = noting = Noting()
    child, _ = await delegations.dispatch(
        ADA, task(parent=parent.id, agents=("Hermes",), budget_micros_usd=20), request_id=None, patience=None
    )
    await worked(around, parent)
    await worked(around, child)
    by_money = {caller.grant.budget_micros_usd: caller.grant.purses for caller in noting.callers if caller.grant}
    assert by_money == {
        50: (own, Purse(parent.id, 50)),
        20: (own, Purse(parent.id, 50), Purse(child.id, 20)),
    }


async def test_a_sub_agent_gets_less_and_only_helpers_get_anything(around: Surroundings) -> None:
    await allow(around, "Athena", "Hermes")
    await allow(around, "Hermes", "Apollo")
    parent = await given(around, task(agents=("Athena",), tools=["search"], budget_micros_usd=50, depth=1))
    child = await given(around, task(parent=parent.id, agents=("Hermes",)))
    assert (child.source, child.capability.depth) == ("agent:Athena@1.0.1", 0)
    assert (list(child.capability.tools), child.capability.budget_micros_usd) == (["search"], 50)
    with pytest.raises(NoAgentAble):
        await given(around, task(parent=parent.id, agents=("Apollo",)))
    with pytest.raises(DelegationTooWide):
        await given(around, task(parent=child.id, agents=("Apollo",)))


async def test_sub_agents_share_one_budget(around: Surroundings) -> None:
    await allow(around, "Athena", "Hermes")
    parent = await given(around, task(agents=("Athena",), budget_micros_usd=50))
    await given(around, task(parent=parent.id, budget_micros_usd=30))
    with pytest.raises(DelegationTooWide) as raised:
        await given(around, task(parent=parent.id, budget_micros_usd=30))
    assert raised.value.field == "capability.budget_micros_usd"
    last = await given(around, task(parent=parent.id))
    assert last.capability.budget_micros_usd == 20
    with pytest.raises(DelegationEnded):
        await given(around, task(parent=parent.id))


async def test_a_sub_agent_spends_for_its_team_and_under_the_path_of_who_gave_it_work(around: Surroundings) -> None:
    model = around.governed()
    await allow(around, "Athena", "Hermes")
    await allow(around, "Hermes", "Apollo")
    first = await given(around, replace(task(agents=("Athena",)), team="research"))
    second = await given(around, task(parent=first.id))
    await given(around, task(parent=second.id))
    for _ in range(3):
        await around.world.drive()
    spent = {(one.team, one.sub_agent) for one in model.started}
    path = "Athena@1.0.1/Hermes@1.0.1"
    assert spent == {("research", ""), ("research", path), ("research", f"{path}/Apollo@1.0.0")}


async def test_revoking_a_delegation_revokes_the_tree(around: Surroundings) -> None:
    model = around.governed()
    await allow(around, "Athena", "Hermes")
    await allow(around, "Hermes", "Apollo")
    first = await given(around, task(agents=("Athena",)))
    second = await given(around, task(parent=first.id))
    third = await given(around, task(parent=second.id))
    other = await given(around, task(agents=("Apollo",)))

    revoked = await around.side.delegations.revoke(ADA, first.id)
    assert revoked == [first.id, second.id, third.id]
    assert await around.side.delegations.revoke(ADA, first.id) == []
    with pytest.raises(DelegationEnded):
        await given(around, task(parent=second.id))
    for _ in range(4):
        await around.world.drive()
    assert [utterance.session_id for utterance in model.started] == [other.session_id]
    session = await around.world.find(third.session_id)
    assert session.status == session_pb2.SESSION_STATUS_CANCELLED


async def test_a_revoked_session_says_nothing_more_even_before_it_is_cancelled(around: Surroundings) -> None:
    model = around.governed()
    opened = await given(around, task())
    await around.delegations.revoke(TENANT, opened.id, at=around.world.clock.now())
    await around.world.drive()
    session = await around.world.find(opened.session_id)
    assert session.failure.reason == Reason.ERROR_REASON_DELEGATION_ENDED
    assert model.started == []


async def test_a_delegation_that_expires_stops_its_session(around: Surroundings) -> None:
    model = around.governed()
    opened = await given(around, task())
    around.world.clock.advance(timedelta(hours=1))
    await around.world.drive()
    session = await around.world.find(opened.session_id)
    assert (session.failure.reason, session.failure.metadata["state"]) == (
        Reason.ERROR_REASON_DELEGATION_ENDED,
        "EXPIRED",
    )
    assert model.started == []
    assert await around.delegations.running(TENANT, now=around.world.clock.now()) == {}


async def test_only_those_it_concerns_may_use_or_revoke_a_delegation(around: Surroundings) -> None:
    await allow(around, "Athena", "Hermes")
    opened = await given(around, task(agents=("Athena",)))

    async def refused(call: object) -> str:
        with pytest.raises(MeshError) as raised:
            await call  # type: ignore[misc]
        return raised.value.reason_name

    delegations = around.side.delegations
    assert await refused(delegations.revoke(EVE, opened.id)) == "ROLE_INSUFFICIENT"
    wanted = task(parent=opened.id)
    assert await refused(delegations.dispatch(EVE, wanted, request_id=None, patience=None)) == "ROLE_INSUFFICIENT"
    assert await refused(delegations.revoke(ADA, "del_none")) == "DELEGATION_NOT_FOUND"
    agent = Principal(TENANT, "agent:Athena@1.0.1", frozenset({"tenant_user"}))
    below, _ = await delegations.dispatch(agent, wanted, request_id=None, patience=None)
    assert await delegations.revoke(ROOT, opened.id) == [opened.id, below.id]


async def test_what_a_delegation_spent_is_told_however_it_ended(around: Surroundings) -> None:
    model, delegations = around.governed(), around.side.delegations
    model.failures = [PermissionDenied("no")]
    asking = asyncio.create_task(delegations.dispatch(ADA, task(), request_id=None, patience=timedelta(seconds=5)))
    await asyncio.sleep(0.01)
    await around.world.drive()
    with pytest.raises(MeshError) as raised:
        await asking
    failed = await delegations.find(TENANT, raised.value.facts["delegation_id"])
    assert (failed.state, failed.cost_micros_usd) == (State.Value("DELEGATION_STATE_FAILED"), 7)

    model.failures = [Unavailable("come again")]
    asking = asyncio.create_task(delegations.dispatch(ADA, task(), request_id=None, patience=timedelta(seconds=5)))
    await asyncio.sleep(0.01)
    await around.world.drive()
    done, _ = await asking
    assert (done.state, done.cost_micros_usd) == (State.Value("DELEGATION_STATE_COMPLETED"), 14)


async def test_what_a_revoked_delegation_spent_is_told_when_its_session_has_ended(around: Surroundings) -> None:
    model = around.governed()
    model.held_at = 3
    opened = await given(around, task(budget_micros_usd=20))
    watching = Watching(around.world, opened.session_id)
    async with driving(around.world, "two"):
        await watching.until(3)
        await around.side.delegations.revoke(ADA, opened.id)
        await watching.end()
    await around.follow()
    found = await around.side.delegations.find(TENANT, opened.id)
    assert (found.state, found.cost_micros_usd) == (State.Value("DELEGATION_STATE_REVOKED"), 3)


async def test_a_fork_that_ends_does_not_end_the_delegation_of_its_source(around: Surroundings) -> None:
    opened = await given(around, task())
    session = await around.world.find(opened.session_id)
    fork = session_pb2.Session()
    fork.CopyFrom(session)
    fork.id, fork.status = "ses_fork", session_pb2.SESSION_STATUS_COMPLETED
    ended = event_pb2.SessionEvent(session_finished=event_pb2.SessionFinished(session=fork))

    await around.side.delegations.hear(TENANT, [ended])

    found = await around.side.delegations.find(TENANT, opened.id)
    assert found.state == State.Value("DELEGATION_STATE_RUNNING")


async def test_many_versions_of_one_agent_hide_nobody_from_dispatch(around: Surroundings) -> None:
    for minor in range(1, 502):
        made = agent_pb2.Agent(name="Athena", version=f"1.{minor}.0", state=agent_pb2.AGENT_STATE_ACTIVE)
        await around.world.agents.create(TENANT, made)
    active = await around.side.delegations.agents.active(TENANT)
    assert [f"{agent.name}@{agent.version}" for agent in active] == ["Apollo@1.0.0", "Athena@1.501.0", "Hermes@1.0.0"]


async def test_work_finds_its_agent_among_any_number(around: Surroundings) -> None:
    named = [*(f"A{number:04}" for number in range(1100)), "Zephyr"]
    made = [
        agent_pb2.Agent(name=name, version="1.0.0", state=agent_pb2.AGENT_STATE_ACTIVE, capabilities=[name])
        for name in named
    ]
    await around.world.agents.import_all(TENANT, made, dry_run=False)
    active = await around.side.delegations.agents.active(TENANT)
    assert [agent.name for agent in active] == sorted([*named, "Apollo", "Athena", "Hermes"])
    found = await around.side.delegations.route(ADA, task("Go", agents=("Zephyr",)))
    assert found.agent == "Zephyr@1.0.0"
