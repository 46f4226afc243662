"""One suite for both ledgers: entries, leases, sums."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from deploy.local.postgres import Cluster
from services.cost import rows
from services.cost.budget import EACH, Level
from services.cost.errors import BudgetExhausted, CostOverflow, LeaseNotFound, SettledDifferently
from services.cost.prices import Usage
from services.cost.segments import LATEST
from services.cost.store import Ask, CostEvent, CostStore, Filter, Outcome, StoredBook
from services.cost.store_postgres import SQL, PostgresCostStore
from shared.clock import FakeClock
from shared.paging import Page
from tests.support.cost import Replica, book, call, cost_replica

MANY_COUNTERS = """
    insert into budget_counter (tenant_id, budget_id, scope, period_start)
    select $1, $2, 'session:s' || n, 'epoch' from generate_series(1, 2000) n"""
COUNTERS_READ = "select idx_tup_fetch + seq_tup_read from pg_stat_xact_user_tables where relname = 'budget_counter'"

ROLLED = """
    select (select coalesce(sum(entries), 0) from cost_hour), (select coalesce(sum(entries), 0) from cost_day),
      (select coalesce(sum(entries), 0) from person_hour where user_id = 'ann'),
      (select coalesce(sum(entries), 0) from person_day where user_id = 'ann')"""
TAKE_BEFORE = "select take_one($1, $2, $3, $4, $5, $6, $7, $8, $9)"
SETTLE_BEFORE = f"select settle_one({', '.join(f'${place}' for place in range(1, 33))})"


async def test_a_settlement_is_priced_exactly_and_written_once(replica: Replica, tenant: str) -> None:
    paid = call("once", session_id="s", agent="A@1.0.0")
    first = await replica.ledger.settle(tenant, paid, Usage(10, 5, cached_input_tokens=4))
    again = await replica.ledger.settle(tenant, paid, Usage(10, 5, cached_input_tokens=4))
    assert first.event.micros_usd == 6 + 2 + 10
    assert (first.fresh, again.fresh, again.event) == (True, False, first.event)
    (summary,) = await replica.ledger.summarize(tenant, Filter(), group_by=("model", "agent"), page=Page())
    assert (summary.group, summary.micros_usd, summary.generations) == (("m", "A@1.0.0"), 18, 1)


@pytest.mark.parametrize("other", [Usage(10, 6), Usage(11, 5), Usage(10, 5, estimated=True)])
async def test_a_settlement_with_other_numbers_is_a_conflict_that_changes_nothing(
    replica: Replica, tenant: str, other: Usage
) -> None:
    paid = call()
    await replica.ledger.settle(tenant, paid, Usage(10, 5))
    with pytest.raises(SettledDifferently) as raised:
        await replica.ledger.settle(tenant, paid, other)
    assert raised.value.facts["settled_micros_usd"] == "20"
    (summary,) = await replica.ledger.summarize(tenant, Filter(), group_by=(), page=Page())
    assert (summary.micros_usd, summary.generations) == (20, 1)


async def test_settling_the_same_at_once_writes_one_entry(replica: Replica, tenant: str) -> None:
    paid = call()
    settled = await asyncio.gather(*(replica.ledger.settle(tenant, paid, Usage(1, 1)) for _ in range(20)))
    assert sum(one.fresh for one in settled) == 1
    assert len({one.event.id for one in settled}) == 1


async def test_a_failed_over_generation_has_an_entry_for_each_attempt(replica: Replica, tenant: str) -> None:
    first = replace(call(session_id="s"), outcome=Outcome.FAILED_OVER)
    await replica.ledger.settle(tenant, first, Usage(10, 3))
    await replica.ledger.settle(tenant, replace(first, attempt=1, outcome=Outcome.COMPLETED), Usage(10, 9))
    found = await replica.ledger.events(tenant, Filter(session_id="s"), newest_first=False, page=Page())
    assert sorted((one.call.attempt, one.call.outcome, one.micros_usd) for one in found) == [
        (0, Outcome.FAILED_OVER, 16),
        (1, Outcome.COMPLETED, 28),
    ]


async def test_an_entry_comes_back_as_it_was_written(replica: Replica, tenant: str) -> None:
    path = {"team": "red", "user": "ada", "agent": "A@1.0.0", "session_id": "s", "sub_agent": "A@1.0.0/b"}
    paid = replace(call(**path), turn_id="t1", tier="batch", region="eu", outcome=Outcome.CUT)
    usage = Usage(
        9, 8, cached_input_tokens=3, reasoning_tokens=2, estimated=True, cache_write_tokens=1, images=4,
        audio_input_tokens=5, audio_output_tokens=6, embedding_tokens=7,
    )  # fmt: skip
    written = (await replica.ledger.settle(tenant, paid, usage)).event
    (found,) = await replica.ledger.events(tenant, Filter(), newest_first=True, page=Page())
    assert found == written
    assert (found.call, found.usage) == (paid, usage)


async def test_a_reservation_again_returns_the_lease_until_it_is_settled(replica: Replica, tenant: str) -> None:
    wanted = call()
    assert await replica.reserve(tenant, wanted, 10) == 20
    assert await replica.reserve(tenant, wanted, 99) == 20
    await replica.ledger.settle(tenant, wanted, Usage(0, 10))
    assert await replica.reserve(tenant, wanted, 99) == 198


async def test_a_lease_grows_and_never_shrinks(replica: Replica, tenant: str) -> None:
    wanted = call()
    await replica.reserve(tenant, wanted, 10, input_tokens=5)
    grown, _ = await replica.ledger.extend(tenant, wanted.generation_id, output_tokens=30)
    same, _ = await replica.ledger.extend(tenant, wanted.generation_id, output_tokens=1)
    assert (grown.micros_usd, same.micros_usd) == (65, 65)
    with pytest.raises(LeaseNotFound):
        await replica.ledger.extend(tenant, "nobody", output_tokens=1)


async def test_an_amount_beyond_the_column_is_refused_before_it_is_written(store: CostStore, tenant: str) -> None:
    dear = cost_replica(store, FakeClock(), prices=book({"output": 10**9}))
    with pytest.raises(CostOverflow):
        await dear.ledger.settle(tenant, call(), Usage(0, 1_000_000_000))
    largest = await dear.ledger.settle(tenant, call(), Usage(0, 999_999_999))
    assert largest.event.micros_usd == 999_999_999_000


async def test_another_tenant_sees_nothing(replica: Replica, tenant: str) -> None:
    await replica.ledger.settle(tenant, call(), Usage(1, 1))
    assert await replica.ledger.events("another", Filter(), newest_first=True, page=Page()) == []


async def test_events_page_by_time_without_gap_or_repetition(replica: Replica, tenant: str, clock: FakeClock) -> None:
    for number in range(5):
        clock.advance(timedelta(seconds=1))
        await replica.ledger.settle(tenant, call(f"e{number}"), Usage(number, 1))
    seen, cursor = [], ()
    while True:
        found = await replica.ledger.events(tenant, Filter(), newest_first=False, page=Page(2, cursor))
        seen += [event.usage.input_tokens for event in found[:2]]
        if len(found) < 3:
            break
        cursor = (found[1].created_at.isoformat(), found[1].id)
    assert seen == [0, 1, 2, 3, 4]


async def test_sums_are_grouped_filtered_and_paged(replica: Replica, tenant: str, clock: FakeClock) -> None:
    for hour, (agent, output) in enumerate([("A@1", 5), ("B@1", 50), ("A@1", 10), ("C@1", 1)]):
        ended_at = datetime(2025, 12, 31, 20 + hour, 30, tzinfo=UTC)
        await replica.ledger.settle(tenant, call(agent=agent, team="red"), Usage(0, output), ended_at=ended_at)
    sums = replica.ledger.summarize
    by_agent = await sums(tenant, Filter(), group_by=("agent",), page=Page())
    assert [(one.group, one.micros_usd) for one in by_agent] == [(("B@1",), 100), (("A@1",), 30), (("C@1",), 2)]
    second = await sums(tenant, Filter(), group_by=("agent",), page=Page(1, ("1",)))
    assert [one.group for one in second] == [("A@1",), ("C@1",)]
    late = Filter(start=datetime(2025, 12, 31, 21, 10, tzinfo=UTC), end=datetime(2025, 12, 31, 22, 31, tzinfo=UTC))
    by_hour = await sums(tenant, late, group_by=("hour",), page=Page())
    assert [(one.group, one.micros_usd) for one in by_hour] == [(("2025-12-31T21",), 100), (("2025-12-31T22",), 20)]
    (by_team,) = await sums(tenant, Filter(agent="A@1"), group_by=("team", "day"), page=Page())
    assert (by_team.group, by_team.micros_usd, by_team.generations) == (("red", "2025-12-31"), 30, 2)


async def test_sums_and_entries_of_one_team_or_one_user(replica: Replica, tenant: str) -> None:
    for team, user, output in [("red", "ann", 5), ("red", "bob", 50), ("blue", "ann", 500)]:
        await replica.ledger.settle(tenant, call(team=team, user=user), Usage(0, output))
    for chosen, micros in [(Filter(team="red"), 110), (Filter(user="ann"), 1010), (Filter(team="red", user="ann"), 10)]:
        (summed,) = await replica.ledger.summarize(tenant, chosen, group_by=(), page=Page())
        by_day = await replica.ledger.summarize(tenant, chosen, group_by=("day",), page=Page())
        entries = await replica.ledger.events(tenant, chosen, newest_first=False, page=Page())
        assert [summed.micros_usd] == [one.micros_usd for one in by_day] == [micros]
        assert sum(one.micros_usd for one in entries) == micros


def chosen_by(chosen: Filter) -> Callable[[CostEvent], bool]:
    """Whether an entry is of the time, the team and the user."""

    def fits(event: CostEvent) -> bool:
        path, at = event.call.path, event.created_at
        in_time = (chosen.start or at) <= at < (chosen.end or LATEST)
        return in_time and chosen.team in ("", path.team) and chosen.user in ("", path.user)

    return fits


async def test_sums_by_team_and_user_are_the_sums_of_their_entries_late_ones_too(
    replica: Replica, store: CostStore, tenant: str, clock: FakeClock
) -> None:
    chance, entries = random.Random(4), []
    for number in range(90):
        paid = call(team=chance.choice(("red", "blue", "")), user=chance.choice(("ann", "bob")), agent="A@1")
        at = clock.now() - timedelta(minutes=chance.randrange(4 * 24 * 60))
        entries.append(
            (await replica.ledger.settle(tenant, paid, Usage(chance.randrange(9), number), ended_at=at)).event
        )
        if number % 40 == 20:
            await store.reclaim(tenant, now=clock.now())  # rolled up: what comes now comes late
    began, ended = clock.now() - timedelta(days=3, minutes=17), clock.now() - timedelta(hours=5, minutes=48)
    for chosen in (Filter(), Filter(began, ended), Filter(user="ann"), Filter(began, ended, team="red")):
        for names in (("team",), ("user", "day"), ("team", "user", "hour")):
            expected: Counter[tuple[str, ...]] = Counter()
            for event in filter(chosen_by(chosen), entries):
                path, at = event.call.path, event.created_at
                known = {"team": path.team, "user": path.user, "day": f"{at:%Y-%m-%d}", "hour": f"{at:%Y-%m-%dT%H}"}
                expected[tuple(known[name] for name in names)] += event.micros_usd
            found = await replica.ledger.summarize(tenant, chosen, group_by=names, page=Page(500))
            assert {one.group: one.micros_usd for one in found} == expected
    assert sum(one.generations for one in found) < len(entries)


@pytest.mark.parametrize("store", ["postgres"], indirect=True)
async def test_many_settled_at_once_go_into_roll_ups_as_one_does(
    replica: Replica, tenant: str, clock: FakeClock
) -> None:
    assert isinstance(replica.store, PostgresCostStore)
    await asyncio.gather(*(replica.ledger.settle(tenant, call(user="ann"), Usage(0, 1)) for _ in range(9)))
    await replica.ledger.settle(tenant, call(user="ann"), Usage(0, 1))
    async with replica.store.database.tenant(tenant) as connection:
        assert await connection.fetchrow(ROLLED) == (0, 0, 0, 0)
    await replica.store.reclaim(tenant, now=clock.now())
    async with replica.store.database.tenant(tenant) as connection:
        assert await connection.fetchrow(ROLLED) == (10, 10, 10, 10)


@pytest.mark.parametrize("store", ["postgres"], indirect=True)
async def test_a_replica_of_the_version_before_takes_and_settles_by_its_own_statements(
    replica: Replica, tenant: str, clock: FakeClock
) -> None:
    assert isinstance(replica.store, PostgresCostStore)
    now, paid = clock.now(), call(user="ann", team="red")
    await replica.limit(tenant, 10)
    asked = rows.asked(Ask(paid.generation_id, paid.path.scopes, 0, 1_000_000, 5, now + timedelta(minutes=1)))
    entry, keys = rows.settlement(tenant, CostEvent("cev_1", paid, Usage(0, 4), 4, "v", False, now))
    statement = replica.store.database.statement
    taken = [(await statement(TAKE_BEFORE, tenant, True, now, *asked))[0][0] for _ in range(2)]
    assert (taken, await replica.spent(tenant)) == ([5, None], (0, 5))
    settled = [(await statement(SETTLE_BEFORE, True, *entry, keys))[0][0] for _ in range(2)]
    assert (settled, await replica.spent(tenant)) == ([True, False], (4, 0))
    (summed,) = await replica.ledger.summarize(tenant, Filter(user="ann"), group_by=("team",), page=Page())
    assert (summed.group, summed.micros_usd) == (("red",), 4)


async def test_a_late_entry_is_in_the_sums_of_its_own_hour_and_day(
    replica: Replica, tenant: str, clock: FakeClock
) -> None:
    await replica.ledger.settle(tenant, call(), Usage(0, 1))
    await replica.ledger.settle(tenant, call(), Usage(0, 2), ended_at=clock.now() - timedelta(days=3, hours=1))
    for _ in range(3):
        by_hour = await replica.ledger.summarize(tenant, Filter(), group_by=("hour",), page=Page())
        by_day = await replica.ledger.summarize(tenant, Filter(), group_by=("day",), page=Page())
        assert [(one.group, one.micros_usd) for one in by_hour] == [(("2025-12-28T23",), 4), (("2026-01-01T00",), 2)]
        assert [(one.group, one.micros_usd) for one in by_day] == [(("2025-12-28",), 4), (("2026-01-01",), 2)]
        await replica.store.reclaim(tenant, now=clock.now())  # which adds to roll-ups what is in none yet


async def test_a_tenants_book_is_kept_by_its_hash_and_the_last_adopted_holds(
    replica: Replica, tenant: str, clock: FakeClock
) -> None:
    one, two = book({"input": 1}), book({"input": 2})
    for chosen in (one, two, one):
        clock.advance(timedelta(seconds=1))
        await replica.store.adopt_prices(tenant, StoredBook(chosen.version, chosen.document, clock.now()))
    held = await replica.store.price_book(tenant, "")
    kept = await replica.store.price_book(tenant, two.version)
    assert (held and held.version, kept and kept.document) == (one.version, two.document)
    assert await replica.store.price_book("another", two.version) is None
    await replica.shelf.publish()
    assert (await replica.shelf.book("another", "")).document == (
        await replica.shelf.book(tenant, (await replica.shelf.of("another")).books[0].version)
    ).document


CHANGES = (
    "update cost.cost_event set cost_micros_usd = 0",
    "delete from cost.cost_event",
    "truncate cost.cost_event",
    "merge into cost.cost_event using (select 1) one on true when matched then delete",
    """insert into cost.cost_event select * from cost.cost_event
    on conflict (tenant_id, generation_id, attempt) do update set cost_micros_usd = 0""",
)


@pytest.mark.parametrize("store", ["postgres"], indirect=True)
@pytest.mark.parametrize("role", ["cost", "owner", "postgres", "gateway", "inference", "orchestrator", "policy"])
async def test_no_role_changes_an_entry(replica: Replica, tenant: str, postgres: Cluster, role: str) -> None:
    """The superuser's triggers cannot be switched off for the session either, as for a replica or a restore."""
    kept = (await replica.ledger.settle(tenant, call(), Usage(1, 2))).event
    connection = await asyncpg.connect(postgres.dsn(role))
    try:
        if role == "postgres":
            await connection.execute("set session_replication_role = replica")
        await connection.execute("select set_config('app.tenant', $1, false)", tenant)
        for change in CHANGES:
            with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.RestrictViolationError)):
                await connection.execute(change)
    finally:
        await connection.close()
    assert await replica.ledger.events(tenant, Filter(), newest_first=True, page=Page()) == [kept]


@pytest.mark.parametrize("store", ["postgres"], indirect=True)
@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("lease", "micros_usd"),
        *(("cost_event", name) for name in ("tokens_input", "tokens_output", "cost_micros_usd", "attempt")),
    ],
)
async def test_no_amount_is_below_zero(
    replica: Replica, tenant: str, postgres: Cluster, table: str, column: str
) -> None:
    """The database says so itself: a row like one it has, with another id and that amount, is not taken."""
    await replica.ledger.settle(tenant, call(), Usage(1, 2))
    await replica.reserve(tenant, call(), 1)
    connection = await asyncpg.connect(postgres.dsn("cost"))
    try:
        await connection.execute("select set_config('app.tenant', $1, false)", tenant)
        changed = json.dumps({"generation_id": "gen_other", column: -1})
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute(
                f"insert into {table} select (jsonb_populate_record(known, $1)).* from {table} known", changed
            )
    finally:
        await connection.close()


@pytest.mark.parametrize("store", ["postgres"], indirect=True)
async def test_without_a_tenant_nothing_of_the_ledger_is_seen(replica: Replica, tenant: str, postgres: Cluster) -> None:
    await replica.ledger.settle(tenant, call(), Usage(1, 2))
    connection = await asyncpg.connect(postgres.dsn("cost"))
    try:
        assert await connection.fetchval("select count(*) from cost_event") == 0
    finally:
        await connection.close()


@pytest.mark.parametrize("store", ["postgres"], indirect=True)
async def test_a_lease_alone_and_its_settlement_look_at_their_own_counters_only(
    replica: Replica, tenant: str, clock: FakeClock, postgres: Cluster
) -> None:
    assert isinstance(replica.store, PostgresCostStore)
    now = clock.now()
    budget_id, paid = await replica.limit(tenant, 1000, level=Level.SESSION, name=EACH), call(session_id="s7")
    async with replica.store.database.tenant(tenant) as connection:
        await connection.execute(MANY_COUNTERS, tenant, budget_id)
    await replica.reserve(tenant, paid, 1)
    owner = await asyncpg.connect(postgres.dsn("owner"))
    await owner.execute("analyze cost.budget_counter")  # as autovacuum does where it runs for longer than a test
    await owner.close()
    asked = rows.asked(Ask("new", paid.path.scopes, 0, 1, 1, now))
    entry, keys = rows.settlement(tenant, CostEvent("cev_1", paid, Usage(0, 1), 2, "v", False, now))
    async with replica.store.database.tenant(tenant) as connection:
        before = await connection.fetchval(COUNTERS_READ) or 0
        assert await connection.fetchval(SQL["take_lease"], tenant, False, now, *asked) == 1
        await connection.fetch(SQL["settle_event"], False, *rows.entry_alone(entry), keys)
        read = await connection.fetchval(COUNTERS_READ) - before
    assert 0 < read < 20


async def test_a_refused_reservation_names_what_refused_it(replica: Replica, tenant: str) -> None:
    budget_id = await replica.limit(tenant, 10)
    with pytest.raises(BudgetExhausted) as raised:
        await replica.reserve(tenant, call(), 6)
    assert raised.value.facts == {
        "budget_id": budget_id, "limit_micros_usd": "10", "scope": "tenant:", "window": "total"
    }  # fmt: skip
