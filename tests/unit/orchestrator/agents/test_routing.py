"""Who is chosen, and why; what a delegation may do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentnet.orchestrator.v1 import agent_pb2, delegation_pb2
from services.orchestrator.agents.capability import Bounds, attenuated, principal
from services.orchestrator.agents.routing import Wanted, choose
from services.orchestrator.errors import DelegationEnded, DelegationTooWide, NoAgentAble
from shared.errors import PermissionDenied
from shared.identity import Grant, Principal

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ADA = Principal("acme", "ada", frozenset({"tenant_user"}))
Capability = delegation_pb2.Capability


def agent(name: str, *capabilities: str, most: int = 0, about: str = "") -> agent_pb2.Agent:
    return agent_pb2.Agent(
        name=name, version="1.0.0", capabilities=capabilities, max_concurrent_tasks=most, description=about
    )


WRITER, CODER = agent("Writer", "writing"), agent("Coder", "coding", "code_review")


def chosen(wanted: Wanted, *agents: agent_pb2.Agent, **parts: object) -> delegation_pb2.Choice:
    given: dict[str, object] = {"reputations": {}, "running": {}, **parts}
    return choose(agents or (WRITER, CODER), wanted, **given)  # type: ignore[arg-type]


def test_the_words_of_the_task_find_the_capability() -> None:
    choice = chosen(Wanted("Please review this code for me"))
    assert choice.agent == "Coder@1.0.0"
    assert list(choice.candidates[0].matched) == ["code_review"]
    assert choice.reason.startswith("Coder can do code_review, reputation 0.50, 100% of its room free")
    assert [one.agent for one in choice.candidates] == ["Coder@1.0.0", "Writer@1.0.0"]


def test_who_lacks_a_capability_is_not_chosen_and_the_choice_says_so() -> None:
    choice = chosen(Wanted("Hello", frozenset({"writing"})))
    assert (choice.agent, dict(choice.rejected)) == ("Writer@1.0.0", {"Coder": "it lacks writing"})
    with pytest.raises(NoAgentAble) as raised:
        chosen(Wanted("Hello", frozenset({"painting"})))
    assert raised.value.facts["capabilities"] == "painting"
    assert "Coder: it lacks painting; Writer: it lacks painting" in raised.value.facts["why"]


def test_of_equals_the_better_known_and_then_the_freer_one_is_chosen() -> None:
    one, other = agent("One", "writing", most=4), agent("Other", "writing", most=4)
    wanted = Wanted("Some writing")
    assert chosen(wanted, one, other).agent == "One@1.0.0"
    assert chosen(wanted, one, other, reputations={"One": 0.4, "Other": 0.6}).agent == "Other@1.0.0"
    assert chosen(wanted, one, other, running={"One": 2}).agent == "Other@1.0.0"
    assert chosen(Wanted("Some writing", known=frozenset({"Other"})), one, other).agent == "Other@1.0.0"
    with pytest.raises(NoAgentAble) as raised:
        chosen(wanted, one, running={"One": 4})
    assert "as many as it takes" in raised.value.facts["why"]


def test_only_those_that_may_be_are_chosen() -> None:
    assert chosen(Wanted("code", agents=frozenset({"Writer"}))).agent == "Writer@1.0.0"
    assert chosen(Wanted("code"), allowed={"Writer"}).agent == "Writer@1.0.0"


def bounds(**parts: object) -> Bounds:
    return Bounds(**{"ends": NOON + timedelta(hours=2), "depth": 3, **parts})  # type: ignore[arg-type]


def test_a_delegation_has_what_it_comes_from_when_nothing_is_asked() -> None:
    made = attenuated(bounds(tools=frozenset({"b", "a"}), budget_micros_usd=50), Capability(), NOON)
    assert (list(made.tools), made.budget_micros_usd, made.depth) == (["a", "b"], 50, 2)
    assert made.expire_time.ToDatetime(UTC) == NOON + timedelta(hours=1)


ASKED_TOO_MUCH = {
    "capability.tools": Capability(tools=["c"]),
    "capability.budget_micros_usd": Capability(budget_micros_usd=51),
    "capability.depth": Capability(depth=3),
}


@pytest.mark.parametrize(("field", "asked"), ASKED_TOO_MUCH.items(), ids=ASKED_TOO_MUCH)
def test_asking_for_more_is_refused_with_the_field(field: str, asked: Capability) -> None:
    with pytest.raises(DelegationTooWide) as raised:
        attenuated(bounds(tools=frozenset({"a"}), budget_micros_usd=50), asked, NOON)
    assert raised.value.field == field


def test_a_later_end_is_refused_and_what_is_over_gives_nothing() -> None:
    asked = Capability()
    asked.expire_time.FromDatetime(NOON + timedelta(hours=3))
    with pytest.raises(DelegationTooWide):
        attenuated(bounds(), asked, NOON)
    for nothing_left in (bounds(ends=NOON), bounds(budget_micros_usd=0)):
        with pytest.raises(DelegationEnded):
            attenuated(nothing_left, Capability(), NOON)
    with pytest.raises(DelegationTooWide):
        attenuated(bounds(depth=0), Capability(), NOON)


tools = st.none() | st.frozensets(st.sampled_from("abcd"))


@given(
    tools, tools, st.none() | st.integers(1, 9), st.integers(0, 9), st.integers(1, 5),
    st.none() | st.integers(0, 5), st.integers(-1, 200), st.booleans(),
)  # fmt: skip
def test_a_delegation_is_never_wider_than_its_parent(
    held: frozenset[str] | None, wanted: frozenset[str] | None, budget: int | None, asks: int, depth: int,
    deeper: int | None, minutes: int, without: bool,
) -> None:  # fmt: skip
    parent = bounds(tools=held, budget_micros_usd=budget, depth=depth)
    asked = Capability(tools=sorted(wanted or ()), budget_micros_usd=asks, depth=deeper, no_tools=without)
    if minutes >= 0:
        asked.expire_time.FromDatetime(NOON + timedelta(minutes=minutes))
    try:
        made = attenuated(parent, asked, NOON)
    except PermissionDenied:
        return
    own = worker(ADA, made, "user:ada")
    assert own.grant is not None
    assert made.depth < depth
    assert made.expire_time.ToDatetime(UTC) <= parent.ends
    assert budget is None or 0 < made.budget_micros_usd <= budget
    assert held is None or (own.grant.tools is not None and own.grant.tools <= held)
    assert not without or own.grant.tools == frozenset()


def test_what_a_caller_may_give_is_what_its_credential_may() -> None:
    caller = Principal(
        "acme", "bot", frozenset(), grant=Grant(tools=frozenset({"a"}), depth=1), expires_at=NOON + timedelta(minutes=5)
    )
    made = attenuated(Bounds.of_caller(caller, NOON), Capability(), NOON)
    assert (list(made.tools), made.depth) == (["a"], 0)
    assert made.expire_time.ToDatetime(UTC) == NOON + timedelta(minutes=5)
    own = worker(caller, made, "user:bot")
    assert own.grant is not None
    assert own.grant.delegators == ("user:bot",)


def worker(caller: Principal, made: Capability, source: str) -> Principal:
    return principal(caller, delegation_pb2.Delegation(id="del_1", capability=made, source=source), above=Grant())


def test_words_that_only_begin_alike_name_nothing() -> None:
    architect, searcher = agent("Architect", "architecture"), agent("Searcher", "search")
    choice = chosen(Wanted("Please search the archive"), architect, searcher)
    assert choice.agent == "Searcher@1.0.0"
    assert [list(one.matched) for one in choice.candidates] == [["search"], []]
    assert chosen(Wanted("Searching, analysing"), agent("Thinker", "analysis")).candidates[0].matched == ["analysis"]
