"""SQL tools against a real Postgres: what they read, and that they only read."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from services.tools.answer import Outcome, Status
from services.tools.errors import SecretNotFound
from services.tools.executor import Work
from services.tools.secrets import Secrets
from services.tools.sql_query import SqlExecutor
from services.tools.store import Tool


@pytest.fixture
def secrets(request: pytest.FixtureRequest, tmp_path: Path) -> Secrets:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "dsn").write_text(request.getfixturevalue("postgres").dsn("tools"))
    (tmp_path / "shared" / "away").write_text("postgresql://x:y@127.0.0.1:1/z")
    return Secrets(tmp_path)


def work(query: str, *, key: str = "dsn", arguments: dict[str, Any] | None = None, **changes: Any) -> Work:
    target = {"dsn_key_id": key, "query": query, "parameters": list(arguments or {}), "row_limit": 3, "timeout": 5.0}
    tool = Tool(
        name="report", version="1.0.0", description="", input_schema={}, output_schema=None, rate_limit_per_min=0,
        exec_mode="sql", auth=None, allowed_agents=(), function=None, idempotent=True,
        created_at=datetime(2026, 1, 1, tzinfo=UTC), target=target | changes,
    )  # fmt: skip
    return Work(tool, arguments or {}, "acme")


async def asked(secrets: Secrets, wanted: Work) -> Outcome:
    return await SqlExecutor(secrets).execute(wanted, lambda *_: None)


async def test_rows_come_back_as_json(secrets: Secrets) -> None:
    query = (
        "select $1::int as n, $2::text as t, null as x, 1.5::numeric as d, '2026-01-01'::date as day, array[1,2] as a"
    )
    outcome = await asked(secrets, work(query, arguments={"n": 7, "t": "größer"}))
    row = {"n": 7, "t": "größer", "x": None, "d": "1.5", "day": "2026-01-01", "a": [1, 2]}
    assert (outcome.status, outcome.result) == (Status.OK, {"rows": [row], "row_count": 1, "truncated": False})


async def test_more_rows_than_the_limit_are_cut_off_and_the_result_says_so(secrets: Secrets) -> None:
    outcome = await asked(secrets, work("select * from generate_series(1, 1000) as n"))
    assert outcome.result == {"rows": [{"n": 1}, {"n": 2}, {"n": 3}], "row_count": 3, "truncated": True}


WRITES = [
    "delete from tools.tool_effect returning *",
    "insert into tools.tool_usage values ('a', 'b', '2026-01-01', 1) returning *",
    "with gone as (delete from tools.tool_state returning *) select * from gone",
    "select 1; delete from tools.tool_state",
    "create table stolen (a int)",
]


@pytest.mark.parametrize("query", WRITES)
async def test_what_writes_is_refused(secrets: Secrets, query: str) -> None:
    assert (await asked(secrets, work(query))).status is Status.UPSTREAM_REFUSED


async def test_an_argument_is_a_value_and_never_sql(secrets: Secrets) -> None:
    hostile = f"'; drop table tools.tool; -- {uuid4()}"
    outcome = await asked(secrets, work("select $1::text as said", arguments={"said": hostile}))
    assert outcome.result["rows"] == [{"said": hostile}]


async def test_a_query_that_takes_too_long_is_ended(secrets: Secrets) -> None:
    outcome = await asked(secrets, work("select pg_sleep(20)", timeout=0.3))
    assert outcome.status is Status.TIMEOUT
    assert outcome.elapsed.total_seconds() < 3


async def test_a_mistake_in_the_query_is_told(secrets: Secrets) -> None:
    outcome = await asked(secrets, work("select nothing from nowhere"))
    assert (outcome.status, "nowhere" in outcome.message) == (Status.UPSTREAM_REFUSED, True)


async def test_a_database_that_is_away_is_unreachable(secrets: Secrets) -> None:
    assert (await asked(secrets, work("select 1", key="away"))).status is Status.UNREACHABLE


@pytest.mark.parametrize("wrong", ["password", "database", "scheme", "port"])
async def test_a_secret_that_is_wrong_is_told_and_not_shown(
    secrets: Secrets, tmp_path: Path, wrong: str, request: pytest.FixtureRequest
) -> None:
    right = urlsplit(request.getfixturevalue("postgres").dsn("tools"))
    login, _, place = right.netloc.rpartition("@")
    user = login.partition(":")[0]
    dsn = {
        "password": f"postgresql://{user}:hidden@{place}{right.path}",
        "database": f"postgresql://{right.netloc}/hidden",
        "scheme": f"hidden://{right.netloc}{right.path}",
        "port": f"postgresql://{login}@127.0.0.1:hidden/x",
    }[wrong]
    (tmp_path / "shared" / "wrong").write_text(dsn)
    outcome = await asked(secrets, work("select 1", key="wrong"))
    assert outcome.status is Status.UPSTREAM_REFUSED
    assert "hidden" not in outcome.message
    assert user not in outcome.message


async def test_the_address_is_a_secret_that_must_be_there(secrets: Secrets) -> None:
    with pytest.raises(SecretNotFound):
        await asked(secrets, work("select 1", key="nothing"))
    wanted = work("select 1")
    await asked(secrets, wanted)
    assert wanted.secrets
