"""The real store: the prompt tables of the schema `inference`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from services.inference.prompts.content import canonical, from_canonical
from services.inference.prompts.resolution import Selector, Target
from services.inference.prompts.store import PromptGeneration, PromptVersion
from shared.paging import Page
from shared.postgres import Connection, Database, load_queries

_SQL = load_queries(Path(__file__).with_name("queries.sql"))


class PostgresPromptStore:
    """Versions, labels and ties. Writers of one prompt take turns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, tenant: str, version: PromptVersion, *, labels: Sequence[str]) -> tuple[PromptVersion, bool]:
        async with self._database.tenant(tenant) as connection:
            await connection.execute(_SQL["lock"], tenant, version.name)
            number = await connection.fetchval(
                _SQL["add_version"], tenant, version.name, version.digest, canonical(version.content), version.comment,
                version.author, version.created_at,
            )  # fmt: skip
            for label in labels:
                await _point(connection, tenant, version.name, label, [Target(version.digest)])
            row = await connection.fetchrow(_SQL["find_version"], version.name, version.digest, 0)
        return _version(row), number is not None

    async def version(self, tenant: str, name: str, selector: Selector) -> PromptVersion | None:
        async with self._database.tenant(tenant) as connection:
            row = await connection.fetchrow(_SQL["find_version"], name, selector.digest, selector.number)
        return None if row is None else _version(row)

    async def versions(self, tenant: str, name: str, page: Page) -> Sequence[PromptVersion]:
        async with self._database.tenant(tenant) as connection:
            return [_version(row) for row in await connection.fetch(_SQL["versions"], name, page.skip, page.size + 1)]

    async def newest(self, tenant: str, page: Page) -> Sequence[PromptVersion]:
        async with self._database.tenant(tenant) as connection:
            return [_version(row) for row in await connection.fetch(_SQL["newest"], page.row, page.size + 1)]

    async def labels(self, tenant: str, name: str) -> Mapping[str, Sequence[Target]]:
        found: dict[str, list[Target]] = {}
        async with self._database.tenant(tenant) as connection:
            for row in await connection.fetch(_SQL["labels"], name):
                found.setdefault(row["label"], []).append(Target(row["digest"], row["weight"]))
        return {label: tuple(targets) for label, targets in found.items()}

    async def point(self, tenant: str, name: str, label: str, targets: Sequence[Target]) -> None:
        async with self._database.tenant(tenant) as connection:
            await connection.execute(_SQL["lock"], tenant, name)
            await _point(connection, tenant, name, label, targets)

    async def tie(self, tenant: str, tied: PromptGeneration) -> PromptGeneration:
        async with self._database.tenant(tenant) as connection:
            await connection.execute(
                _SQL["tie"], tenant, tied.generation_id, tied.name, tied.digest, tied.label, tied.created_at
            )
            return _tied(await connection.fetchrow(_SQL["tied"], tied.generation_id))

    async def tied(self, tenant: str, generation_id: str) -> PromptGeneration | None:
        async with self._database.tenant(tenant) as connection:
            row = await connection.fetchrow(_SQL["tied"], generation_id)
        return None if row is None else _tied(row)

    async def generations(self, tenant: str, name: str, *, digest: str, page: Page) -> Sequence[PromptGeneration]:
        seen = page.place
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(_SQL["generations"], name, digest, *seen, page.size + 1)
        return [_tied(row) for row in rows]


async def _point(connection: Connection, tenant: str, name: str, label: str, targets: Sequence[Target]) -> None:
    await connection.execute(_SQL["drop_label"], name, label)
    for place, target in enumerate(targets):
        await connection.execute(_SQL["put_target"], tenant, name, label, place, target.digest, target.weight)


def _version(row: Any) -> PromptVersion:
    return PromptVersion(
        name=row["name"],
        digest=row["digest"],
        content=from_canonical(row["content"]),
        comment=row["comment"],
        author=row["author"],
        created_at=row["created_at"],
        number=row["number"],
        labels=tuple(row["labels"]),
    )


def _tied(row: Any) -> PromptGeneration:
    return PromptGeneration(row["generation_id"], row["name"], row["digest"], row["label"], row["created_at"])
