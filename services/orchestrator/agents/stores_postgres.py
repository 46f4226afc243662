"""The real stores of relationships, delegations and templates, schema `orchestrator`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from agentnet.orchestrator.v1 import delegation_pb2
from services.orchestrator.agents.stores import Delegation, DelegationFilter, Fits, Relationship, Template
from shared.paging import Page
from shared.postgres import Connection, Database, load_queries

SQL = load_queries(Path(__file__).with_name("stores.sql"))
RUNNING = delegation_pb2.DELEGATION_STATE_RUNNING


class PostgresRelationshipStore:
    """One row an edge."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(
        self, tenant: str, relationship: Relationship, *, fits: Callable[[Sequence[Relationship]], None]
    ) -> Relationship:
        async with self._database.tenant(tenant) as connection:
            await connection.execute(SQL["lock_relationships"], tenant, relationship.kind)
            rows = await connection.fetch(SQL["relationships_of_kind"], relationship.kind)
            known = [Relationship.FromString(row["data"]) for row in rows]
            fits(known)
            for edge in known:
                if (edge.source, edge.target) == (relationship.source, relationship.target):
                    relationship.id = edge.id
                    relationship.create_time.CopyFrom(edge.create_time)
            await connection.execute(
                SQL["put_relationship"], tenant, relationship.id, relationship.source, relationship.target,
                relationship.kind, relationship.priority, relationship.SerializeToString(),
            )  # fmt: skip
        return relationship

    async def every(self, tenant: str, *, agent: str, kind: str) -> Sequence[Relationship]:
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(SQL["every_relationship"], agent, kind)
        return [Relationship.FromString(row["data"]) for row in rows]

    async def delete(self, tenant: str, relationship_id: str) -> bool:
        async with self._database.tenant(tenant) as connection:
            return await connection.fetchval(SQL["delete_relationship"], relationship_id) is not None


class PostgresDelegationStore:
    """One row a delegation."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(self, tenant: str, delegation: Delegation, *, request_id: str | None, fits: Fits) -> Delegation:
        async with self._database.tenant(tenant) as connection:
            if request_id and (earlier := await connection.fetchval(SQL["delegation_of_request"], request_id)):
                return Delegation.FromString(earlier)
            parent, below = await _parent(connection, delegation.parent_id)
            fits(parent, below)
            opened = await connection.fetchval(
                SQL["open_delegation"], tenant, delegation.id, delegation.parent_id,
                delegation.target.partition("@")[0], delegation.session_id, delegation.conversation_id,
                delegation.state, delegation.capability.budget_micros_usd, request_id, delegation.SerializeToString(),
                delegation.create_time.ToDatetime(UTC), delegation.capability.expire_time.ToDatetime(UTC),
            )  # fmt: skip
            if opened is None:
                # Another one of this request_id came in between.
                earlier = await connection.fetchval(SQL["delegation_of_request"], request_id)
                return Delegation.FromString(earlier)
        return delegation

    async def of_request(self, tenant: str, request_id: str) -> Delegation | None:
        async with self._database.tenant(tenant) as connection:
            data = await connection.fetchval(SQL["delegation_of_request"], request_id)
        return Delegation.FromString(data) if data is not None else None

    async def find(self, tenant: str, delegation_id: str) -> Delegation | None:
        async with self._database.tenant(tenant) as connection:
            data = await connection.fetchval(SQL["find_delegation"], delegation_id)
        return Delegation.FromString(data) if data is not None else None

    async def every(self, tenant: str, chosen: DelegationFilter, *, page: Page) -> Sequence[Delegation]:
        seen = page.place
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(
                SQL["every_delegation"], chosen.parent_id, chosen.agent, chosen.conversation_id, chosen.state, *seen,
                page.size + 1,
            )  # fmt: skip
        return [Delegation.FromString(row["data"]) for row in rows]

    async def running(self, tenant: str, *, now: datetime) -> Mapping[str, int]:
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(SQL["running_delegations"], now)
        return {row["agent_name"]: row["running"] for row in rows}

    async def end(self, tenant: str, delegation: Delegation) -> bool:
        async with self._database.tenant(tenant) as connection:
            return await _end(connection, delegation)

    async def spent(self, tenant: str, delegation: Delegation) -> None:
        async with self._database.tenant(tenant) as connection:
            await connection.execute(
                SQL["delegation_spent"], delegation.id, delegation.cost_micros_usd, delegation.SerializeToString()
            )

    async def revoke(self, tenant: str, delegation_id: str, *, at: datetime) -> Sequence[Delegation]:
        revoked: list[Delegation] = []
        async with self._database.tenant(tenant) as connection:
            # Until there is none: while one was waited for, another may have been made below it.
            while running := await _running_below(connection, delegation_id):
                for one in running:
                    one.state = delegation_pb2.DELEGATION_STATE_REVOKED
                    one.end_time.FromDatetime(at)
                    await _end(connection, one)
                revoked += running
        return revoked


class PostgresTemplateStore:
    """One row a version of a template."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, tenant: str, template: Template) -> bool:
        async with self._database.tenant(tenant) as connection:
            added = await connection.fetchval(
                SQL["add_template"], tenant, template.name, template.version, template.domain,
                template.SerializeToString(),
            )  # fmt: skip
        return added is not None

    async def every(self, tenant: str) -> Sequence[Template]:
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(SQL["every_template"])
        return [Template.FromString(row["data"]) for row in rows]

    async def used(self, tenant: str, name: str, version: str) -> None:
        async with self._database.tenant(tenant) as connection:
            await connection.execute(SQL["use_template"], tenant, name, version)

    async def uses(self, tenant: str) -> Mapping[tuple[str, str], int]:
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(SQL["template_uses"])
        return {(row["name"], row["version"]): row["uses"] for row in rows}


async def _parent(connection: Connection, parent_id: str) -> tuple[Delegation | None, int]:
    """The parent, held until the transaction ends, and what those below it have taken."""
    if not parent_id:
        return None, 0
    data = await connection.fetchval(SQL["lock_delegation"], parent_id)
    below = await connection.fetchval(SQL["taken_below"], parent_id)
    return (Delegation.FromString(data) if data is not None else None), below


async def _running_below(connection: Connection, delegation_id: str) -> list[Delegation]:
    """Those that run of one and all below it, its own first; nobody changes them until the transaction ends."""
    rows = await connection.fetch(SQL["delegations_below"], delegation_id)
    found = [Delegation.FromString(row["data"]) for row in rows]
    return [one for one in found if one.state == RUNNING]


async def _end(connection: Connection, one: Delegation) -> bool:
    data = one.SerializeToString()
    return await connection.fetchval(SQL["end_delegation"], one.id, one.state, one.cost_micros_usd, data) is not None
