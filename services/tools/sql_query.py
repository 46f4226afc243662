"""exec_mode "sql": one statement in a read-only transaction, with a limit of rows and time."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final

import asyncpg

from services.tools import answer
from services.tools.answer import Outcome, Printed, Status
from services.tools.executor import Isolation, Work
from services.tools.http_api import target_of
from services.tools.secrets import Secrets

_MAX_ANSWER: Final = 1024 * 1024
_LOST: Final = (OSError, asyncpg.PostgresConnectionError, asyncpg.CannotConnectNowError, TimeoutError)


class SqlExecutor:
    """Reads from databases whose addresses are secrets."""

    isolation = Isolation.VM
    reaches_out = True

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    def check_room(self) -> None:
        """A query needs no place of its own."""

    async def execute(self, work: Work, printed: Printed) -> Outcome:
        target = target_of(work)
        dsn = self._secrets.use(work, target["dsn_key_id"])
        values = [work.arguments.get(name) for name in target["parameters"]]
        began = time.monotonic()
        try:
            async with asyncio.timeout(target["timeout"]):
                outcome = await _queried(dsn, target, values)
        except TimeoutError:
            outcome = Outcome(Status.TIMEOUT, message=f"the query ran longer than {target['timeout']:g} seconds")
        elapsed = timedelta(seconds=time.monotonic() - began)
        return Outcome(outcome.status, outcome.result, outcome.message, elapsed=elapsed, isolation="none")


async def _queried(dsn: str, target: Mapping[str, Any], values: Sequence[Any]) -> Outcome:
    try:
        connection = await asyncpg.connect(dsn, timeout=target["timeout"])
    except _LOST as error:
        return Outcome(Status.UNREACHABLE, message=f"the database does not answer: {type(error).__name__}")
    except (asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:  # whose texts may tell of the secret
        return Outcome(Status.UPSTREAM_REFUSED, message=f"the database refuses the secret: {type(error).__name__}")
    try:
        async with connection.transaction(readonly=True):
            await connection.execute(f"set local statement_timeout = {int(target['timeout'] * 1000)}")
            rows = await _rows(connection, target, values)
    except asyncpg.QueryCanceledError:
        raise TimeoutError from None
    except (asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        return Outcome(Status.UPSTREAM_REFUSED, message=f"{type(error).__name__}: {error}"[:500])
    finally:
        await connection.close(timeout=1)
    return _result(rows, target["row_limit"])


async def _rows(connection: asyncpg.Connection[Any], target: Mapping[str, Any], values: Sequence[Any]) -> list[Any]:
    """One more than allowed, when there are more. A prepared statement is one statement."""
    statement = await connection.prepare(target["query"])
    cursor = await statement.cursor(*values)
    return await cursor.fetch(target["row_limit"] + 1)


def _result(rows: Sequence[Any], limit: int) -> Outcome:
    kept = [{name: _plain(value) for name, value in row.items()} for row in rows[:limit]]
    result = {"rows": kept, "row_count": len(kept), "truncated": len(rows) > limit}
    if problem := answer.flaw(result):
        return Outcome(Status.UPSTREAM_REFUSED, message=f"the result {problem}")
    if len(json.dumps(result)) > _MAX_ANSWER:
        return Outcome(Status.OUTPUT_LIMIT, message=f"the rows have more than {_MAX_ANSWER} bytes of JSON")
    return Outcome(Status.OK, result=result)


def _plain(value: Any) -> Any:
    """Postgres's values as JSON has them; what JSON has not becomes text."""
    match value:
        case None | bool() | int() | str():
            return value
        case float() if value == value and abs(value) != float("inf"):  # noqa: PLR0124 - a number
            return value
        case datetime() | date():
            return value.isoformat()
        case bytes():
            return value.hex()
        case list() | tuple():
            return [_plain(part) for part in value]
        case _:
            return str(value)
