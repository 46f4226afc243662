"""The honest fake: bundles and violations in dictionaries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

from services.policy.store import EVERY_TENANT, Attachment, Enforced, StoredBundle, Violation, ViolationFilter
from shared.paging import Page
from shared.tool_permissions import ToolPermission

PRODUCTION = "production"


class MemoryPolicyStore:
    """Everything is gone when the process ends."""

    def __init__(self) -> None:
        self._bundles: dict[tuple[str, str, str], StoredBundle] = {}
        self._labels: dict[tuple[str, str, str], str] = {}
        self._violations: dict[tuple[str, str], Violation] = {}
        self._attachments: dict[tuple[str, str, str], Attachment] = {}
        self._permissions: dict[tuple[str, str], ToolPermission] = {}
        self._revision = 1
        self._changed = asyncio.Condition()

    async def add(self, tenant: str, bundle: StoredBundle) -> bool:
        key = (tenant, bundle.name, bundle.version)
        if key in self._bundles:
            return False
        self._bundles[key] = bundle
        for label in bundle.labels:
            self._labels[tenant, bundle.name, label] = bundle.version
        await self._bump()
        return True

    async def bundles(self, tenant: str, *, name: str = "") -> Sequence[StoredBundle]:
        mine = [self._labelled(key) for key in self._bundles if key[0] == tenant and name in ("", key[1])]
        return sorted(mine, key=lambda bundle: bundle.created_at, reverse=True)

    async def label(self, tenant: str, name: str, version: str, *, label: str, remove: bool) -> bool:
        if (tenant, name, version) not in self._bundles:
            return False
        if not remove:
            self._labels[tenant, name, label] = version
        elif self._labels.get((tenant, name, label)) == version:
            del self._labels[tenant, name, label]
        await self._bump()
        return True

    async def attach(self, tenant: str, attachment: Attachment) -> bool:
        if (tenant, attachment.name, attachment.version) not in self._bundles:
            return False
        self._attachments[tenant, attachment.agent, attachment.name] = attachment
        await self._bump()
        return True

    async def detach(self, tenant: str, agent: str, name: str) -> None:
        self._attachments.pop((tenant, agent, name), None)
        await self._bump()

    async def attachments(self, tenant: str) -> Sequence[Attachment]:
        return [self._attachments[key] for key in sorted(self._attachments) if key[0] == tenant]

    async def changes(self, *, at_least_every: timedelta) -> AsyncIterator[None]:
        seen = -1
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(at_least_every.total_seconds()), self._changed:
                    while self._revision == seen:
                        await self._changed.wait()
            seen = self._revision
            yield

    async def labelled(self, tenant: str, label: str) -> Sequence[StoredBundle]:
        return [
            self._labelled((owner, name, version))
            for (owner, name, found), version in sorted(self._labels.items())
            if (owner, found) == (tenant, label)
        ]

    async def enforced(self, tenant: str = EVERY_TENANT) -> Enforced:
        tenants: dict[str, list[StoredBundle]] = {}
        for owner, name, label in sorted(self._labels):
            if label == PRODUCTION and tenant in (EVERY_TENANT, owner):
                version = self._labels[owner, name, label]
                tenants.setdefault(owner, []).append(self._labelled((owner, name, version)))
        attached: dict[str, list[tuple[Attachment, StoredBundle]]] = {}
        for key in sorted(key for key in self._attachments if tenant in (EVERY_TENANT, key[0])):
            found = self._attachments[key]
            stored = self._labelled((key[0], found.name, found.version))
            attached.setdefault(key[0], []).append((found, stored))
        trying = {owner for owner, _, label in self._labels if label == "shadow" and tenant == EVERY_TENANT}
        permissions = {owner: await self.permissions(owner) for owner, _ in self._permissions if tenant == EVERY_TENANT}
        return Enforced(self._revision, tenants, attached, frozenset(trying), permissions)

    async def set_permission(self, tenant: str, permission: ToolPermission) -> None:
        self._permissions[tenant, permission.tool] = permission
        await self._bump()

    async def permissions(self, tenant: str) -> Sequence[ToolPermission]:
        return [one for (owner, _), one in sorted(self._permissions.items()) if owner == tenant]

    async def record(self, tenant: str, violations: Sequence[Violation]) -> int:
        new = [violation for violation in violations if (tenant, violation.id) not in self._violations]
        self._violations |= {(tenant, violation.id): violation for violation in new}
        return len(new)

    async def violations(
        self, tenant: str, chosen: ViolationFilter, *, newest_first: bool, page: Page
    ) -> Sequence[Violation]:
        mine = [found for (owner, _), found in self._violations.items() if owner == tenant and _fits(found, chosen)]
        mine.sort(key=_place, reverse=newest_first)
        at, last = page.place
        if at is not None:
            seen = (at, last)
            mine = [found for found in mine if (_place(found) < seen if newest_first else _place(found) > seen)]
        return mine[: page.size + 1]

    async def _bump(self) -> None:
        async with self._changed:
            self._revision += 1
            self._changed.notify_all()

    def _labelled(self, key: tuple[str, str, str]) -> StoredBundle:
        tenant, name, version = key
        labels = (
            label
            for (owner, bundle, label), at in self._labels.items()
            if (owner, bundle, at) == (tenant, name, version)
        )
        return replace(self._bundles[key], labels=tuple(sorted(labels)))


def _place(violation: Violation) -> tuple[datetime, str]:
    return violation.created_at, violation.id


def _fits(violation: Violation, chosen: ViolationFilter) -> bool:
    return (
        chosen.shadow == violation.shadow
        and chosen.session_id in ("", violation.session_id)
        and chosen.severity in (None, violation.severity)
        and chosen.monitor_name in ("", violation.monitor_name)
        and (chosen.start is None or violation.created_at >= chosen.start)
        and (chosen.end is None or violation.created_at < chosen.end)
    )
