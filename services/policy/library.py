"""The library of bundles: add, find, label, judge, publish."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from services.policy.document import digest, parse
from services.policy.errors import BundleNotFound, BundleVersionExists
from services.policy.store import Enforced, PolicyStore, StoredBundle, Violation, ViolationFilter
from shared.clock import Clock
from shared.monitors.rules import Bundle, Target
from shared.monitors.stream import Ruling, compile_rules, judge
from shared.paging import Page

EVERYONE: Final = "*"
_FIRST_VERSION: Final = "1.0.0"


class Library:
    """Bundles of all tenants, one tenant a call, and what is enforced everywhere."""

    def __init__(self, store: PolicyStore, default_document: str, *, clock: Clock, poll: timedelta) -> None:
        self._store = store
        self._clock = clock
        self._poll = poll
        self._default = _built_in(default_document)
        self._changed = asyncio.Condition()
        self._enforced = Enforced(0, {})

    async def add(
        self, tenant: str, *, name: str, version: str, document: str, labels: tuple[str, ...]
    ) -> StoredBundle:
        """Stores a version. Raises BundleInvalid and BundleVersionExists."""
        rules = parse(document)
        bundle = StoredBundle(
            name=name,
            version=version or _next_version([found.version for found in await self._store.bundles(tenant, name=name)]),
            digest=digest(rules),
            document=document,
            rules=rules,
            created_at=self._clock.now(),
            labels=labels,
        )
        if not await self._store.add(tenant, bundle):
            raise BundleVersionExists(f"{name}@{bundle.version} exists; versions never change", bundle=name)
        return bundle

    async def find(self, tenant: str, name: str, version: str) -> StoredBundle:
        """One version, the newest without a version. Raises BundleNotFound."""
        mine = await self._store.bundles(tenant, name=name)
        known = [*mine, self._default] if name == self._default.name else mine
        for bundle in known:
            if version in ("", bundle.version):
                return bundle
        raise BundleNotFound(f"no bundle {name}{'@' + version if version else ''}", bundle=name)

    async def every(self, tenant: str, *, name: str = "") -> Sequence[StoredBundle]:
        """All versions, newest first, the built-in one last."""
        mine = await self._store.bundles(tenant, name=name)
        return [*mine, self._default] if name in ("", self._default.name) else mine

    async def label(self, tenant: str, name: str, version: str, *, label: str, remove: bool) -> StoredBundle:
        """Moves a label. Raises BundleNotFound."""
        found = await self.find(tenant, name, version)
        if not await self._store.label(tenant, name, found.version, label=label, remove=remove):
            raise BundleNotFound(f"{name}@{found.version} is built in; make a bundle of your own to label", bundle=name)
        return await self.find(tenant, name, found.version)

    async def check(self, tenant: str, text: str, *, target: Target, names: Sequence[tuple[str, str]]) -> Ruling:
        """Judges a text by named bundles, or by what is enforced for the tenant."""
        if names:
            bundles = [await self.find(tenant, name, version) for name, version in names]
        else:
            enforced = await self._store.enforced()
            bundles = list(enforced.tenants.get(tenant, ())) or [self._default]
        return judge(compile_rules([as_bundle(bundle) for bundle in bundles], target), target, text)

    async def record(self, tenant: str, violations: Sequence[Violation]) -> int:
        """Stores violations; each id once."""
        return await self._store.record(tenant, violations)

    async def violations(
        self, tenant: str, chosen: ViolationFilter, *, newest_first: bool, page: Page
    ) -> Sequence[Violation]:
        """Violations by time."""
        return await self._store.violations(tenant, chosen, newest_first=newest_first, page=page)

    async def publish(self) -> None:
        """Keeps the snapshot fresh, for as long as the service runs."""
        while True:
            if await self._store.revision() != self._enforced.revision:
                found = await self._store.enforced()
                async with self._changed:
                    self._enforced = found
                    self._changed.notify_all()
            await asyncio.sleep(self._poll.total_seconds())

    async def watch(self, after: int, *, heartbeat: timedelta) -> AsyncIterator[Enforced | None]:
        """The snapshot when it is newer than `after`, then each newer one; None as a heartbeat."""
        while True:
            try:
                async with asyncio.timeout(heartbeat.total_seconds()), self._changed:
                    while self._enforced.revision <= after:
                        await self._changed.wait()
                    snapshot = self._enforced
            except TimeoutError:
                yield None
                continue
            after = snapshot.revision
            yield snapshot

    def with_default(self, tenants: Mapping[str, Sequence[StoredBundle]]) -> dict[str, Sequence[StoredBundle]]:
        """The tenants' own bundles, and the built-in one for all others."""
        return {**tenants, EVERYONE: [self._default]}


def as_bundle(stored: StoredBundle) -> Bundle:
    """What the engine judges with."""
    return Bundle(stored.name, stored.version, stored.rules)


def _built_in(document: str) -> StoredBundle:
    rules = parse(document)
    return StoredBundle(
        name="default",
        version=_FIRST_VERSION,
        digest=digest(rules),
        document=document,
        rules=rules,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        built_in=True,
    )


def _next_version(known: Sequence[str]) -> str:
    if not known:
        return _FIRST_VERSION
    major, minor, patch = max(tuple(int(part) for part in version.split(".")) for version in known)
    return f"{major}.{minor}.{patch + 1}"
