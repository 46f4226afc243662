"""The real stores, schema `orchestrator`: what is queried stands in columns, the whole in `data`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, timedelta
from pathlib import Path

from agentnet.orchestrator.v1 import evaluation_service_pb2 as pb
from services.orchestrator.errors import LeaseLost
from services.orchestrator.evaluation.store import Case, CaseLease, Close, Work
from shared.identity import CredentialKind, Principal
from shared.paging import Page
from shared.postgres import Connection, Database, load_queries

SQL = load_queries(Path(__file__).with_name("queries.sql"))
_RUNNING = pb.EVALUATION_STATUS_RUNNING


class PostgresEvaluationStore:
    """One row a run, one a case."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def start(
        self,
        tenant: str,
        evaluation: pb.Evaluation,
        document: str,
        starter: Principal,
        cases: Sequence[Case],
        *,
        request_id: str | None,
    ) -> str:
        ids = [case.id for case in cases]
        async with self._database.tenant(tenant) as connection:
            added = await connection.fetchval(
                SQL["start"], tenant, evaluation.id, evaluation.suite, evaluation.suite_digest, evaluation.status,
                document, evaluation.baseline_id or None, starter.subject, sorted(starter.roles), request_id,
                evaluation.SerializeToString(), evaluation.start_time.ToDatetime(UTC),
            )  # fmt: skip
            if added is None:
                return str(await connection.fetchval(SQL["started_by"], request_id))
            places, repetitions = [case.place for case in cases], [case.repetition for case in cases]
            await connection.execute(SQL["add_cases"], tenant, evaluation.id, ids, places, repetitions)
            await connection.execute(SQL["queue_cases"], tenant, ids)
        return evaluation.id

    async def find(self, tenant: str, evaluation_id: str) -> pb.Evaluation | None:
        async with self._database.tenant(tenant) as connection:
            data = await connection.fetchval(SQL["find"], evaluation_id)
            return await _with_scores(connection, data) if data else None

    async def every(self, tenant: str, *, suite: str, page: Page) -> Sequence[pb.Evaluation]:
        seen = page.place
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(SQL["every"], suite, *seen, page.size + 1)
        found = []
        for row in rows:
            evaluation = pb.Evaluation.FromString(row["data"])
            evaluation.cases_finished = row["finished"]
            found.append(evaluation)
        return found

    async def end(self, tenant: str, evaluation_id: str, close: Close) -> None:
        async with self._database.tenant(tenant) as connection:
            evaluation = await _locked(connection, evaluation_id)
            if evaluation is not None:
                await _close(connection, close(evaluation))

    async def work(self, lease: CaseLease) -> Work | None:
        async with self._database.tenant(lease.tenant) as connection:
            row = await connection.fetchrow(SQL["work"], lease.case_id)
        if row is None or row["status"] != _RUNNING:
            return None
        starter = Principal(
            lease.tenant, row["starter_subject"], frozenset(row["starter_roles"]), CredentialKind.SERVICE
        )
        place, repetition = row["place"], row["repetition"]
        return Work(row["evaluation_id"], row["baseline_id"] or "", place, repetition, row["document"], starter)

    async def finish(self, lease: CaseLease, score: pb.ScenarioScore, close: Close) -> None:
        async with self._database.tenant(lease.tenant) as connection:
            await _hold(connection, lease)
            row = await connection.fetchrow(SQL["work"], lease.case_id)
            await connection.execute(SQL["release"], lease.case_id)
            evaluation = await _locked(connection, row["evaluation_id"]) if row else None
            if evaluation is None:
                return
            await connection.execute(
                SQL["finish_case"], lease.case_id, score.session_id or None, score.passed, score.coverage_score,
                score.novelty_score, score.coherence_score, score.rule_violations_count, score.SerializeToString(),
            )  # fmt: skip
            if not await connection.fetchval(SQL["unfinished"], evaluation.id):
                whole = await _with_scores(connection, evaluation.SerializeToString())
                await _close(connection, close(whole))

    async def drop(self, lease: CaseLease) -> None:
        async with self._database.tenant(lease.tenant) as connection:
            await _hold(connection, lease)
            await connection.execute(SQL["release"], lease.case_id)


class PostgresCaseQueue:
    """The table evaluation_lease, by the role that sees leases alone."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, owner: str, *, ttl: timedelta, limit: int) -> Sequence[CaseLease]:
        async with self._database.transaction() as connection:
            rows = await connection.fetch(SQL["claim"], owner, ttl, limit)
        return [CaseLease(row["tenant_id"], row["case_id"], row["owner"], row["fence"], row["tries"]) for row in rows]

    async def renew(self, owner: str, cases: Sequence[str], *, ttl: timedelta) -> set[str]:
        async with self._database.transaction() as connection:
            rows = await connection.fetch(SQL["renew"], owner, ttl, list(cases))
        return {row["case_id"] for row in rows}

    async def give_back(self, lease: CaseLease) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(SQL["give_back"], lease.tenant, lease.case_id, lease.fence)


async def _hold(connection: Connection, lease: CaseLease) -> None:
    """Locks the lease until the transaction ends, so that no takeover comes between. Raises LeaseLost."""
    if not await connection.fetchval(SQL["held"], lease.case_id, lease.owner, lease.fence):
        raise LeaseLost("another worker runs the case", case_id=lease.case_id)


async def _locked(connection: Connection, evaluation_id: str) -> pb.Evaluation | None:
    """The run, locked, if it is still running."""
    data = await connection.fetchval(SQL["lock"], evaluation_id)
    evaluation = pb.Evaluation.FromString(data or b"")
    return evaluation if evaluation.status == _RUNNING else None


async def _with_scores(connection: Connection, data: bytes) -> pb.Evaluation:
    evaluation = pb.Evaluation.FromString(data)
    rows = await connection.fetch(SQL["scores"], evaluation.id)
    evaluation.scores.extend(pb.ScenarioScore.FromString(row["data"]) for row in rows)
    return evaluation


async def _close(connection: Connection, evaluation: pb.Evaluation) -> None:
    compared = evaluation.HasField("comparison")
    regression = evaluation.comparison.regression_score if compared else None
    del evaluation.scores[:]
    await connection.execute(
        SQL["close"], evaluation.id, evaluation.status, evaluation.end_time.ToDatetime(UTC), regression,
        evaluation.SerializeToString(),
    )  # fmt: skip
