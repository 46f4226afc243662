"""One suite for both ledgers: the tree of budgets."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from services.cost.budget import EACH, Level, Path, SoftAction, Window
from services.cost.errors import BudgetApprovalRequired, BudgetExhausted, BudgetNotFound
from services.cost.prices import Usage
from services.cost.store import Call
from shared.clock import FakeClock
from shared.identity import Purse
from shared.paging import Page
from tests.support.cost import Replica, call

PATH = {"team": "red", "user": "ada", "agent": "A@1", "session_id": "s1", "sub_agent": "A@1/b"}
NAMES = {
    Level.TENANT: "",
    Level.TEAM: "red",
    Level.USER: "ada",
    Level.AGENT: "A@1",
    Level.SESSION: "s1",
    Level.SUB_AGENT: "A@1/b",
}
GIVEN, WITHIN = Purse("prs_given", 100), Purse("prs_within", 60)  # fmt: skip


async def settle(replica: Replica, tenant: str, paid: Call, output_tokens: int) -> None:
    await replica.ledger.settle(tenant, paid, Usage(0, output_tokens))


async def test_a_reservation_beyond_the_budget_is_refused_and_a_settlement_gives_the_rest_back(
    replica: Replica, tenant: str
) -> None:
    await replica.limit(tenant, 100)
    first = call("first")
    await replica.reserve(tenant, first, 40)
    with pytest.raises(BudgetExhausted):
        await replica.reserve(tenant, call("second"), 20)
    await settle(replica, tenant, first, 10)
    assert await replica.spent(tenant) == (20, 0)
    assert await replica.reserve(tenant, call("third"), 40) == 80


@pytest.mark.parametrize("level", NAMES)
async def test_each_level_of_the_path_can_refuse_and_counts(replica: Replica, tenant: str, level: Level) -> None:
    await replica.limit(tenant, 1_000_000)
    await replica.limit(tenant, 100, level=level, name=NAMES[level])
    paid = call(**PATH)
    await replica.reserve(tenant, paid, 30)
    with pytest.raises(BudgetExhausted) as raised:
        await replica.reserve(tenant, call(**PATH), 30)
    assert raised.value.facts["scope"] == f"{level}:{NAMES[level]}"
    await settle(replica, tenant, paid, 25)
    assert await replica.spent(tenant, level, NAMES[level]) == (50, 0)


async def test_another_branch_of_the_tree_is_not_in_the_way(replica: Replica, tenant: str) -> None:
    await replica.limit(tenant, 10, level=Level.TEAM, name="red")
    assert await replica.reserve(tenant, call(team="blue"), 30) == 60
    with pytest.raises(BudgetExhausted):
        await replica.reserve(tenant, call(team="red"), 30)


async def test_a_refusal_below_takes_nothing_from_above(replica: Replica, tenant: str) -> None:
    await replica.limit(tenant, 1000)
    await replica.limit(tenant, 10, level=Level.SESSION, name="s1")
    with pytest.raises(BudgetExhausted):
        await replica.reserve(tenant, call(session_id="s1"), 30)
    assert await replica.spent(tenant) == (0, 0)


@pytest.mark.parametrize(
    ("window", "later"),
    [(Window.HOUR, timedelta(hours=1)), (Window.DAY, timedelta(days=1)), (Window.MONTH, timedelta(days=31))],
)
async def test_a_window_counts_anew(
    replica: Replica, tenant: str, clock: FakeClock, window: Window, later: timedelta
) -> None:
    await replica.limit(tenant, 100, window=window)
    await settle(replica, tenant, call(), 50)
    with pytest.raises(BudgetExhausted) as raised:
        await replica.reserve(tenant, call(), 1)
    assert raised.value.retry_after == later  # the fake clock begins with a year
    clock.advance(later)
    assert await replica.reserve(tenant, call(), 50) == 100


async def test_a_lease_that_is_held_over_a_window_counts_where_it_was_taken_until_it_grows(
    replica: Replica, tenant: str, clock: FakeClock
) -> None:
    await replica.limit(tenant, 100, window=Window.HOUR)
    clock.advance(timedelta(minutes=59))
    held = call()
    await replica.reserve(tenant, held, 40)
    clock.advance(timedelta(minutes=1))
    assert await replica.spent(tenant, window=Window.HOUR) == (0, 0)
    await replica.ledger.extend(tenant, held.generation_id, output_tokens=45)
    assert await replica.spent(tenant, window=Window.HOUR) == (0, 90)
    await settle(replica, tenant, held, 45)
    assert await replica.spent(tenant, window=Window.HOUR) == (90, 0)


async def test_a_settlement_counts_in_its_own_hour_and_gives_back_where_its_lease_was_counted(
    replica: Replica, tenant: str, clock: FakeClock
) -> None:
    await replica.limit(tenant, 100, window=Window.HOUR)
    await replica.limit(tenant, 100, window=Window.DAY)
    held = call()
    await replica.reserve(tenant, held, 40)
    clock.advance(timedelta(hours=1))
    await settle(replica, tenant, held, 30)
    assert await replica.spent(tenant, window=Window.HOUR) == (60, 0)
    assert await replica.spent(tenant, window=Window.DAY) == (60, 0)


async def test_a_settlement_on_another_path_than_its_leases_counts_on_its_own(replica: Replica, tenant: str) -> None:
    for team in ("red", "blue"):
        await replica.limit(tenant, 100, level=Level.TEAM, name=team)
    held = call(team="red")
    await replica.reserve(tenant, held, 40)
    await settle(replica, tenant, replace(held, path=Path(team="blue")), 30)
    assert await replica.spent(tenant, Level.TEAM, "red") == (0, 0)
    assert await replica.spent(tenant, Level.TEAM, "blue") == (60, 0)


async def test_a_budget_set_while_a_lease_is_held_counts_what_it_settles(replica: Replica, tenant: str) -> None:
    await replica.limit(tenant, 100)
    held = call(session_id="one")
    await replica.reserve(tenant, held, 40)
    await replica.limit(tenant, 60, level=Level.SESSION, name=EACH)
    await settle(replica, tenant, held, 25)
    assert await replica.spent(tenant) == (50, 0)
    found = await replica.budgets.list(tenant, Page())
    assert ("one", 50, 0) in [(one.name, one.settled, one.leased) for one in found]


async def test_a_budget_for_each_counts_each_apart(replica: Replica, tenant: str) -> None:
    await replica.limit(tenant, 50, level=Level.SESSION, name=EACH)
    await settle(replica, tenant, call(session_id="one"), 25)
    await replica.reserve(tenant, call(session_id="two"), 10)
    with pytest.raises(BudgetExhausted):
        await replica.reserve(tenant, call(session_id="one"), 1)
    found = await replica.budgets.list(tenant, Page())
    assert [(one.name, one.settled, one.leased) for one in found] == [("one", 50, 0), ("two", 0, 20)]


async def test_an_agents_budget_without_a_version_counts_all_of_its_versions(replica: Replica, tenant: str) -> None:
    await settle(replica, tenant, call(agent="A@1"), 5)
    await replica.limit(tenant, 60, level=Level.AGENT, name="A")
    await settle(replica, tenant, call(agent="A@2"), 10)
    assert await replica.reserve(tenant, call(agent="AB@1"), 100) == 200
    with pytest.raises(BudgetExhausted) as raised:
        await replica.reserve(tenant, call(agent="A@3"), 16)
    assert raised.value.facts["scope"] == "agent:A"
    await replica.reserve(tenant, call(agent="A@1"), 5)
    assert await replica.spent(tenant, Level.AGENT, "A") == (30, 10)


async def test_a_budget_for_each_agent_counts_each_version_once(replica: Replica, tenant: str) -> None:
    await replica.limit(tenant, 50, level=Level.AGENT, name=EACH)
    await settle(replica, tenant, call(agent="A@1"), 25)
    await replica.reserve(tenant, call(agent="A@2"), 25)
    found = await replica.budgets.list(tenant, Page())
    assert [(one.name, one.settled, one.leased) for one in found] == [("A@1", 50, 0), ("A@2", 0, 50)]


@pytest.mark.parametrize("level", NAMES)
async def test_what_was_spent_before_a_budget_was_set_counts(replica: Replica, tenant: str, level: Level) -> None:
    await settle(replica, tenant, call(**PATH), 20)
    held = call(**PATH)
    await replica.reserve(tenant, held, 5)
    await replica.limit(tenant, 60, level=level, name=NAMES[level], window=Window.HOUR)
    assert await replica.spent(tenant, level, NAMES[level], Window.HOUR) == (40, 10)
    with pytest.raises(BudgetExhausted):
        await replica.reserve(tenant, call(**PATH), 6)
    await settle(replica, tenant, held, 5)
    assert await replica.spent(tenant, level, NAMES[level], Window.HOUR) == (50, 0)


async def test_a_lease_that_ended_counts_no_more_and_is_taken_anew_by_its_owner(
    replica: Replica, tenant: str, clock: FakeClock
) -> None:
    await replica.limit(tenant, 100)
    slow = call()
    await replica.reserve(tenant, slow, 20)
    clock.advance(timedelta(minutes=3))
    assert await replica.spent(tenant) == (0, 0)
    await replica.reserve(tenant, call(), 25)
    lease, _ = await replica.ledger.extend(tenant, slow.generation_id, output_tokens=25)
    assert lease.micros_usd == 50
    assert await replica.spent(tenant) == (0, 100)


async def test_a_lease_asked_for_again_is_counted_once(replica: Replica, tenant: str) -> None:
    await replica.limit(tenant, 1000)
    await replica.limit(tenant, 1000, level=Level.SESSION, name=EACH)
    paid, other = call(session_id="s1"), call(session_id="s1")
    first = await replica.reserve(tenant, paid, 10)

    assert await replica.reserve(tenant, paid, 30) == first
    assert await replica.spent(tenant) == (0, first)

    nowhere_counted = replace(paid, path=Path(session_id="s2"))
    elsewhere = await replica.reserve(tenant, nowhere_counted, 30)
    assert elsewhere == first
    assert await replica.spent(tenant) == (0, first)

    second = await replica.reserve(tenant, other, 5)
    await replica.ledger.settle(tenant, paid, Usage(0, 10))
    assert await replica.spent(tenant) == (20, second)


async def test_an_ended_lease_makes_room_when_room_is_needed(replica: Replica, tenant: str, clock: FakeClock) -> None:
    await replica.limit(tenant, 100)
    await replica.reserve(tenant, call(), 50)
    clock.advance(timedelta(minutes=3))
    assert await replica.reserve(tenant, call(), 50) == 100


async def test_reclaiming_says_what_was_given_back_once(replica: Replica, tenant: str, clock: FakeClock) -> None:
    await replica.limit(tenant, 100)
    await replica.reserve(tenant, call(), 20)
    clock.advance(timedelta(minutes=3))
    assert await replica.store.reclaim(tenant, now=clock.now()) == 40
    assert await replica.store.reclaim(tenant, now=clock.now()) == 0


async def test_renewing_a_lease_is_never_refused(replica: Replica, tenant: str, clock: FakeClock) -> None:
    await replica.limit(tenant, 100)
    held = call()
    await replica.reserve(tenant, held, 40)
    await replica.limit(tenant, 10)
    clock.advance(timedelta(minutes=1))
    lease, _ = await replica.ledger.extend(tenant, held.generation_id, output_tokens=40)
    assert lease.expires_at == clock.now() + timedelta(minutes=2)
    with pytest.raises(BudgetExhausted):
        await replica.ledger.extend(tenant, held.generation_id, output_tokens=41)


async def test_a_soft_limit_is_told_and_does_not_refuse(replica: Replica, tenant: str) -> None:
    budget_id = await replica.limit(tenant, 100, soft_limit=50, soft_action=SoftAction.DOWNGRADE)
    below = await replica.ledger.reserve(tenant, call(), Usage(0, 25))
    above = await replica.ledger.reserve(tenant, call(), Usage(0, 1))
    assert below.passed == ()
    assert [(one.budget_id, one.action, one.amount) for one in above.passed] == [(budget_id, SoftAction.DOWNGRADE, 50)]


async def test_a_soft_limit_that_asks_holds_new_generations_until_it_is_approved(
    replica: Replica, tenant: str, clock: FakeClock
) -> None:
    budget_id = await replica.limit(tenant, 100, soft_limit=50, soft_action=SoftAction.ASK, window=Window.HOUR)
    running = call()
    await replica.reserve(tenant, running, 20)
    with pytest.raises(BudgetApprovalRequired):
        await replica.reserve(tenant, call(), 6)
    grown, _ = await replica.ledger.extend(tenant, running.generation_id, output_tokens=26)
    assert grown.micros_usd == 52
    assert await replica.budgets.approve(tenant, budget_id, "") == clock.now() + timedelta(hours=1)
    assert await replica.reserve(tenant, call(), 6) == 12
    clock.advance(timedelta(hours=1))
    with pytest.raises(BudgetApprovalRequired):
        await replica.reserve(tenant, call(), 26)


async def test_a_deleted_budget_limits_no_more(replica: Replica, tenant: str) -> None:
    budget_id = await replica.limit(tenant, 10)
    await replica.budgets.delete(tenant, budget_id)
    assert await replica.reserve(tenant, call(), 50) == 100
    with pytest.raises(BudgetNotFound):
        await replica.budgets.get(tenant)
    with pytest.raises(BudgetNotFound):
        await replica.budgets.delete(tenant, budget_id)
    with pytest.raises(BudgetNotFound):
        await replica.budgets.approve(tenant, budget_id, "")


async def test_budgets_are_listed_from_the_whole_to_the_part_and_paged(replica: Replica, tenant: str) -> None:
    for level in reversed(NAMES):
        await replica.limit(tenant, 1, level=level, name=NAMES[level])
    found = await replica.budgets.list(tenant, Page(4))
    rest = await replica.budgets.list(tenant, Page(4, ("4",)))
    assert [one.limits.level for one in (*found[:4], *rest)] == list(NAMES)


async def test_many_at_once_never_exceed_the_budget(replica: Replica, tenant: str) -> None:
    await replica.limit(tenant, 1000)

    async def one(number: int) -> bool:
        try:
            await replica.reserve(tenant, call(f"n{number}"), 35)
        except BudgetExhausted:
            return False
        return True

    granted = sum(await asyncio.gather(*(one(number) for number in range(100))))
    assert granted == 1000 // 70
    assert await replica.spent(tenant) == (0, granted * 70)


async def test_a_credentials_purse_holds_what_it_and_all_made_from_it_spend(replica: Replica, tenant: str) -> None:
    """The purse within is passed first; what it spent is gone from the one it was given from as well."""
    inner, outer = (GIVEN, WITHIN), (GIVEN,)
    first = purse_call(*inner)
    assert await replica.reserve(tenant, first, 30) == 60
    with pytest.raises(BudgetExhausted) as raised:
        await replica.reserve(tenant, purse_call(*inner), 1)
    assert raised.value.facts["scope"] == "credential:prs_within"
    await settle(replica, tenant, first, 20)
    with pytest.raises(BudgetExhausted) as raised:
        await replica.reserve(tenant, purse_call(*outer), 31)
    assert raised.value.facts["scope"] == "credential:prs_given"
    assert await replica.reserve(tenant, purse_call(*outer), 30) == 60
    assert await replica.reserve(tenant, call(), 1_000) == 2_000  # who has no purse is not limited by it


async def test_a_stream_stops_where_its_purse_ends(replica: Replica, tenant: str) -> None:
    paid = purse_call(WITHIN)
    await replica.reserve(tenant, paid, 10)
    await replica.ledger.extend(tenant, paid.generation_id, output_tokens=30)
    with pytest.raises(BudgetExhausted):
        await replica.ledger.extend(tenant, paid.generation_id, output_tokens=31)


async def test_a_purse_is_seen_never_deleted_and_forgotten_long_after(
    replica: Replica, tenant: str, clock: FakeClock
) -> None:
    paid = purse_call(GIVEN)
    await replica.reserve(tenant, paid, 10)
    await settle(replica, tenant, paid, 10)
    (seen,) = await replica.budgets.list(tenant, Page(size=10))
    assert (seen.limits.level, seen.name, seen.limits.limit, seen.settled) == (Level.CREDENTIAL, "prs_given", 100, 20)
    with pytest.raises(BudgetNotFound):
        await replica.budgets.delete(tenant, seen.id)
    clock.advance(timedelta(days=34))
    await replica.store.reclaim(tenant, now=clock.now())
    assert await replica.budgets.list(tenant, Page(size=10))
    clock.advance(timedelta(days=2))
    await replica.store.reclaim(tenant, now=clock.now())
    assert not await replica.budgets.list(tenant, Page(size=10))


async def test_many_at_once_never_pass_a_purse(replica: Replica, tenant: str) -> None:
    asked = (replica.reserve(tenant, purse_call(GIVEN), 5) for _ in range(40))
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(answer, int) for answer in answers) == 10
    assert sum(isinstance(answer, BudgetExhausted) for answer in answers) == 30


def purse_call(*purses: Purse) -> Call:
    return replace(call(), path=Path(purses=purses))
