"""One suite for both stores of reports, and for what alerts do."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest
from arro3.io import read_parquet

from services.cost.budget import EACH, Level, SoftAction, Window
from services.cost.errors import BudgetApprovalRequired, BudgetExhausted
from services.cost.export import Format
from services.cost.prices import Usage
from services.cost.report_store import Alert, AlertKind
from services.cost.store import CostStore, Filter
from shared.clock import FakeClock
from shared.paging import Page
from tests.support.cost import WATCHFULNESS, Replica, call, cost_replica


async def settle(replica: Replica, tenant: str, output: int, clock: FakeClock, *, ago: timedelta, agent: str) -> None:
    paid = call(agent=agent, user="ada")
    await replica.ledger.settle(tenant, paid, Usage(0, output), ended_at=clock.now() - ago)


async def test_a_spike_is_in_the_series_explained_and_raises_one_alert(
    replica: Replica, tenant: str, clock: FakeClock
) -> None:
    for hours in range(21 * 24):
        output = 100_000 + 1000 * (hours * 7919 % 13)
        await settle(replica, tenant, output, clock, ago=timedelta(hours=hours, minutes=30), agent="A@1")
    await settle(replica, tenant, 900_000, clock, ago=timedelta(hours=2, minutes=20), agent="B@1")
    points, found = await replica.reports.series(tenant, Filter(start=clock.now() - timedelta(days=1)))
    assert len(points) == 24
    assert [(one.kind, one.start) for one in found] == [("spike", clock.now() - timedelta(hours=3))]
    assert "Most of it is B@1 on p/m: $1.80 against $0.000000 a week before." in found[0].explanation
    raised = [one for one in await replica.lookout.look(tenant) if one.kind is AlertKind.ANOMALY]
    again = await replica.lookout.look(tenant)
    assert [one.explanation for one in raised] == [found[0].explanation]
    assert again == []


async def test_a_token_spike_asks_its_agents_calls_to_downgrade_for_a_while(
    replica: Replica, tenant: str, clock: FakeClock
) -> None:
    clock.advance(timedelta(hours=1))
    for minutes in range(5, 60, 5):
        await settle(replica, tenant, 10_000, clock, ago=timedelta(minutes=minutes + 1), agent="A@1")
    await settle(replica, tenant, 10_000, clock, ago=timedelta(minutes=1), agent="B@1")
    await settle(replica, tenant, 250_000, clock, ago=timedelta(minutes=1), agent="A@1")
    raised = await replica.lookout.look(tenant)
    spikes = {one.subject: one for one in raised if one.kind is AlertKind.TOKEN_SPIKE}
    assert spikes["agent:A@1"].action is SoftAction.DOWNGRADE
    assert "250,000 tokens in five minutes; usual are 10,000 tokens" in spikes["agent:A@1"].explanation
    assert "agent:B@1" not in spikes
    clock.advance(timedelta(seconds=6))
    reserved = await replica.ledger.reserve(tenant, call(agent="A@1"), Usage(0, 1))
    assert {one.subject for one in reserved.alerts} == {"agent:A@1", "tenant:"}
    clock.advance(timedelta(minutes=11))
    assert (await replica.ledger.reserve(tenant, call(agent="A@1"), Usage(0, 1))).alerts == ()


async def test_fast_spending_is_an_alert_once_in_its_time(replica: Replica, tenant: str, clock: FakeClock) -> None:
    await settle(replica, tenant, 600_000, clock, ago=timedelta(minutes=1), agent="A@1")
    kinds = [(one.kind, one.subject) for one in await replica.lookout.look(tenant)]
    assert (AlertKind.VELOCITY, "agent:A@1") in kinds
    assert await replica.lookout.look(tenant) == []


async def test_with_too_many_entries_to_read_the_sums_of_hours_tell_who_is_fast(
    store: CostStore, tenant: str, clock: FakeClock
) -> None:
    replica = cost_replica(store, clock, watchfulness=replace(WATCHFULNESS, most_entries=1))
    clock.advance(timedelta(minutes=20))
    await settle(replica, tenant, 240_000, clock, ago=timedelta(minutes=40), agent="A@1")
    await settle(replica, tenant, 240_000, clock, ago=timedelta(minutes=40), agent="B@1")
    await settle(replica, tenant, 2_400_000, clock, ago=timedelta(minutes=15), agent="A@1")
    raised = {(one.kind, one.subject): one for one in await replica.lookout.look(tenant)}
    found = raised[AlertKind.VELOCITY, "agent:A@1"]
    assert (found.observed, found.expected) == (1_200_000, 40_000)
    assert (AlertKind.VELOCITY, "agent:B@1") not in raised


async def test_limits_raise_one_alert_a_window(replica: Replica, tenant: str, clock: FakeClock) -> None:
    await replica.limit(tenant, 100, soft_limit=50, window=Window.HOUR)
    held = call()
    await replica.reserve(tenant, held, 30)
    assert [one.kind for one in await replica.lookout.look(tenant)] == [AlertKind.SOFT_LIMIT]
    assert await replica.lookout.look(tenant) == []
    await replica.ledger.extend(tenant, held.generation_id, output_tokens=50)
    (hard,) = await replica.lookout.look(tenant)
    assert (hard.kind, hard.observed, hard.expected) == (AlertKind.HARD_LIMIT, 100, 100)


async def test_a_budget_that_refuses_is_told_though_it_is_not_spent(
    replica: Replica, tenant: str, clock: FakeClock
) -> None:
    """With leases larger than what is left a limit is never reached, and calls are refused all the same."""
    await replica.limit(tenant, 100)
    for _ in range(2):
        with pytest.raises(BudgetExhausted):
            await replica.reserve(tenant, call(), 51)
    (told,) = await replica.lookout.look(tenant)
    assert (told.kind, told.subject, told.observed, told.expected) == (AlertKind.HARD_LIMIT, "tenant:", 0, 100)
    assert told.explanation.startswith("Calls are refused: the budget of tenant: (total), $0.0001")
    assert await replica.lookout.look(tenant) == []


async def test_a_session_that_asks_for_approval_is_told(replica: Replica, tenant: str, clock: FakeClock) -> None:
    await replica.limit(
        tenant, 100, soft_limit=50, soft_action=SoftAction.ASK, level=Level.SESSION, name=EACH, window=Window.DAY
    )
    with pytest.raises(BudgetApprovalRequired):
        await replica.reserve(tenant, call(session_id="s1"), 30)
    (told,) = await replica.lookout.look(tenant)
    assert (told.kind, told.subject, told.expected) == (AlertKind.SOFT_LIMIT, "session:s1", 50)


async def test_a_limit_that_was_raised_is_told_again_when_it_is_spent(
    replica: Replica, tenant: str, clock: FakeClock
) -> None:
    for limit, told in ((50, 1), (50, 0), (100, 1)):
        await replica.limit(tenant, limit)
        await settle(replica, tenant, 25, clock, ago=timedelta(), agent="A@1")
        assert len(await replica.lookout.look(tenant)) == told


async def test_the_largest_calls_do_not_end_reports_and_alerts(replica: Replica, tenant: str, clock: FakeClock) -> None:
    most = 2_000_000_000
    for _ in range(2):
        await replica.ledger.settle(tenant, call(agent="A@1"), Usage(most, most), ended_at=clock.now())
    (found,) = await replica.reports.patterns(
        tenant, "", clock.now() - timedelta(hours=1), clock.now() + timedelta(hours=1)
    )
    assert sum(found.by_hour) == found.input_tokens + found.output_tokens == 4 * most
    spikes = [one.observed for one in await replica.lookout.look(tenant) if one.kind is AlertKind.TOKEN_SPIKE]
    assert spikes == [4 * most] * 2


async def test_one_tenants_trouble_is_not_anothers(
    replica: Replica, tenant: str, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, look = [], replica.lookout.look

    async def unless_broken(asked: str) -> list[Alert]:
        if asked == "broken":
            raise asyncpg.NumericValueOutOfRangeError("integer out of range")
        looked.append(asked)
        return await look(asked)

    monkeypatch.setattr(replica.lookout, "look", unless_broken)
    for one in ("broken", tenant):
        replica.watch.seen(one)
    await replica.watch.round()
    assert looked == [tenant]


async def test_a_lease_that_is_never_settled_is_told(replica: Replica, tenant: str, clock: FakeClock) -> None:
    await replica.reserve(tenant, call(), 30)
    clock.advance(timedelta(minutes=3))
    (told,) = await replica.lookout.look(tenant)
    assert (told.kind, told.observed) == (AlertKind.UNSETTLED, 60)


async def test_the_watch_looks_at_who_spent_and_forgets_who_is_quiet(
    replica: Replica, tenant: str, clock: FakeClock
) -> None:
    await settle(replica, tenant, 600_000, clock, ago=timedelta(minutes=1), agent="A@1")
    await replica.watch.round()
    assert await replica.alerts.alerts(tenant, "", Page()) == []
    replica.watch.seen(tenant)
    await replica.watch.round()
    raised = await replica.alerts.alerts(tenant, "", Page())
    assert {one.kind for one in raised} >= {AlertKind.VELOCITY}


async def test_alerts_are_paged_newest_first_and_by_kind(replica: Replica, tenant: str, clock: FakeClock) -> None:
    for number in range(3):
        clock.advance(timedelta(minutes=1))
        kind = AlertKind.VELOCITY if number == 1 else AlertKind.ANOMALY
        alert = Alert(f"a{number}", f"o{number}", kind, "tenant:", SoftAction.ALERT, 2, 1, "why", clock.now())
        assert await replica.alerts.raise_alert(tenant, alert)
        assert not await replica.alerts.raise_alert(tenant, alert)
    first = await replica.alerts.alerts(tenant, "", Page(2))
    second = await replica.alerts.alerts(tenant, "", Page(2, (first[1].created_at.isoformat(), first[1].id)))
    assert [one.id for one in (*first[:2], *second)] == ["a2", "a1", "a0"]
    assert [one.id for one in await replica.alerts.alerts(tenant, "velocity", Page())] == ["a1"]
    assert await replica.alerts.alerts("another", "", Page()) == []


async def test_patterns_tell_sizes_caches_and_hours(replica: Replica, tenant: str, clock: FakeClock) -> None:
    for number in range(1, 21):
        usage = Usage(100 * number, number, cached_input_tokens=50 * number, reasoning_tokens=number // 2)
        at = clock.now() - timedelta(hours=number % 2, minutes=30)
        await replica.ledger.settle(tenant, call(agent="A@1"), usage, ended_at=at)
    await replica.ledger.settle(tenant, call(agent="B@1"), Usage(1, 1), ended_at=clock.now() - timedelta(minutes=1))
    start = clock.now() - timedelta(days=1)
    first, second = await replica.reports.patterns(tenant, "agent", start, clock.now())
    assert (first.group, first.generations, first.input_tokens) == ("A@1", 20, 21_000)
    assert (first.input_p50, first.input_p95, first.output_p95) == (1000, 1900, 19)
    assert (first.cached_tokens, first.reasoning_tokens) == (10_500, 100)
    assert (first.by_hour[22], first.by_hour[23]) == (100 * 100 + 100, 110 * 100 + 110)
    assert (second.group, sum(second.by_hour)) == ("B@1", 2)


async def test_a_forecast_knows_the_budget_of_its_window(replica: Replica, tenant: str, clock: FakeClock) -> None:
    clock.advance(timedelta(hours=10))
    for hours in range(10):
        await settle(replica, tenant, 50, clock, ago=timedelta(hours=hours, minutes=30), agent="A@1")
    await replica.limit(tenant, 1250, window=Window.DAY)
    found, began, end = await replica.reports.forecast(tenant, Window.DAY)
    assert (found.spent, found.expected, end - began) == (1000, 2400, timedelta(days=1))
    assert found.exhausted_at == began + timedelta(hours=13)


async def test_an_export_has_every_entry_once_and_no_formulas(replica: Replica, tenant: str, clock: FakeClock) -> None:
    for number in range(1100):
        paid = call(agent="=1+1" if number == 0 else "A@1")
        await replica.ledger.settle(tenant, paid, Usage(number, 1), ended_at=clock.now() - timedelta(seconds=number))
    whole = b"".join([data async for data in replica.reports.export(tenant, Filter(), Format.CSV)]).decode()
    rows = list(csv.DictReader(io.StringIO(whole)))
    assert sorted(int(row["input_tokens"]) for row in rows) == list(range(1100))
    assert rows[-1]["agent"] == "'=1+1"
    lines = b"".join([data async for data in replica.reports.export(tenant, Filter(), Format.LINES)]).splitlines()
    assert sum(json.loads(line)["micros_usd"] for line in lines) == sum(int(row["micros_usd"]) for row in rows)
    parquet = b"".join([data async for data in replica.reports.export(tenant, Filter(), Format.PARQUET)])
    assert sorted(read_parquet(io.BytesIO(parquet)).read_all()["input_tokens"].to_pylist()) == list(range(1100))
    empty = b"".join([data async for data in replica.reports.export("another", Filter(), Format.CSV)])
    assert empty.startswith(b"id,time,generation_id")
