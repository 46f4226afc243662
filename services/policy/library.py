"""The library of bundles: add, find, label, judge, publish."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from services.policy.document import Document, read
from services.policy.errors import BundleNotFound, BundleVersionExists
from services.policy.params import flaw_of
from services.policy.signing import BundleSigner
from services.policy.store import Attachment, Enforced, PolicyStore, StoredBundle, Violation, ViolationFilter
from shared.clock import Clock
from shared.errors import InvalidArgument
from shared.monitors.rules import Bundle
from shared.paging import Page
from shared.telemetry import meter

EVERYONE: Final = "*"
PRODUCTION: Final = "production"
_FIRST_VERSION: Final = "1.0.0"
_IN_FORCE: Final = 4 * 1024 * 1024  # characters, of one tenant
_violations = meter.create_counter("violations_total", description="by severity and rule_name")


class Library:
    """Bundles of all tenants, one tenant a call, and what is enforced everywhere."""

    def __init__(
        self,
        store: PolicyStore,
        default_document: str,
        *,
        clock: Clock,
        poll: timedelta,
        signer: BundleSigner | None,
        has_model: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._store = store
        self._clock = clock
        self._poll = poll
        self._signer = signer
        self._has_model = has_model
        self._default = self._signed(EVERYONE, _built_in(default_document))
        self._changed = asyncio.Condition()
        self._enforced = Enforced(0, {})

    async def read(self, document: str) -> Document:
        """What a new document says. Raises BundleInvalid, also for what its rules name and is not here."""
        return await asyncio.to_thread(read, document, flaw_of=partial(flaw_of, has_model=self._has_model))

    async def add(
        self, tenant: str, *, name: str, version: str, document: str, labels: tuple[str, ...]
    ) -> StoredBundle:
        """Stores a version. Raises BundleInvalid and BundleVersionExists."""
        content = await self.read(document)
        known = [found.version for found in await self._store.bundles(tenant, name=name)]
        made = StoredBundle(
            name=name,
            version=version or _next_version(known),
            digest=content.digest,
            document=document,
            content=content,
            created_at=self._clock.now(),
            labels=labels,
        )
        bundle = self._signed(tenant, made)
        if PRODUCTION in labels:
            await self._refuse_too_much(tenant, bundle)
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

    async def rule_names(self, tenant: str) -> set[str]:
        """The names of all rules there are, in force or not."""
        return {rule.name for bundle in await self.every(tenant) for rule in bundle.content.rules}

    async def label(self, tenant: str, name: str, version: str, *, label: str, remove: bool) -> StoredBundle:
        """Moves a label. Raises BundleNotFound."""
        found = await self.find(tenant, name, version)
        if label == PRODUCTION and not remove:
            await self._refuse_too_much(tenant, found)
        if not await self._store.label(tenant, name, found.version, label=label, remove=remove):
            raise BundleNotFound(f"{name}@{found.version} is built in; make a bundle of your own to label", bundle=name)
        return await self.find(tenant, name, found.version)

    async def attach(self, tenant: str, attachment: Attachment, *, remove: bool) -> Sequence[Attachment]:
        """Gives an agent a bundle, or takes it away; all attachments after it. Raises BundleNotFound."""
        if remove:
            await self._store.detach(tenant, attachment.agent, attachment.name)
            return await self._store.attachments(tenant)
        found = await self.find(tenant, attachment.name, attachment.version)
        if attachment.profile and attachment.profile not in {one.name for one in found.content.profiles}:
            raise InvalidArgument(f"{found.label} has no profile {attachment.profile}", field="profile")
        await self._refuse_too_much(tenant, found, agent=attachment.agent)
        if not await self._store.attach(tenant, replace(attachment, version=found.version)):
            raise BundleNotFound(f"{found.label} is built in; make a bundle of your own", bundle=found.name)
        return await self._store.attachments(tenant)

    async def bundles(self, tenant: str, agent: str, names: Sequence[tuple[str, str]]) -> list[Bundle]:
        """What judges: what is enforced for the tenant's agent, or the named bundles. Those of them that are enforced
        judge as they are for it, in its profile.
        """
        enforced = in_force(await self._store.enforced(tenant), tenant, agent, default=self._default)
        if not names:
            return enforced
        named = [await self.find(tenant, name, version) for name, version in names]
        return [
            bundle
            for stored in {one.label: one for one in named}.values()
            for bundle in [one for one in enforced if one.label == stored.label] or [stored.judged_by]
        ]

    async def labelled(self, tenant: str, label: str) -> list[Bundle]:
        """The tenant's bundles with a label."""
        return [one.judged_by for one in await self._store.labelled(tenant, label)]

    async def record(self, tenant: str, violations: Sequence[Violation]) -> int:
        """Stores violations; each id once."""
        stored = await self._store.record(tenant, violations)
        for one in violations:
            _violations.add(1, {"severity": one.severity.value, "rule_name": one.monitor_name, "shadow": one.shadow})
        return stored

    async def violations(
        self, tenant: str, chosen: ViolationFilter, *, newest_first: bool, page: Page
    ) -> Sequence[Violation]:
        """Violations by time."""
        return await self._store.violations(tenant, chosen, newest_first=newest_first, page=page)

    async def publish(self) -> None:
        """Keeps the snapshot fresh, for as long as the service runs."""
        async for _ in self._store.changes(at_least_every=self._poll):
            found = await self._store.enforced()
            if found.revision != self._enforced.revision:
                async with self._changed:
                    self._enforced = found
                    self._changed.notify_all()

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

    def with_default(self, enforced: Enforced) -> Enforced:
        """With the built-in bundle for every tenant that has none of its own, also where something is attached."""
        default = {
            tenant: [self._default]
            for tenant in (*enforced.attached, *enforced.trying, *enforced.permissions, EVERYONE)
        }
        return replace(enforced, tenants={**default, **enforced.tenants})

    async def _refuse_too_much(self, tenant: str, more: StoredBundle, *, agent: str = "") -> None:
        """Every enforcement point holds what is in force for every tenant. Raises InvalidArgument."""
        enforced = await self._store.enforced(tenant)
        common = [one for one in enforced.tenants.get(tenant, ()) if agent or one.name != more.name]
        attached = [
            stored for one, stored in enforced.attached.get(tenant, ()) if (one.agent, one.name) != (agent, more.name)
        ]
        sizes = {one.label: len(one.document) for one in (*common, *attached, more)}
        if sum(sizes.values()) > _IN_FORCE:
            message = f"with {more.label} the documents in force would have more than {_IN_FORCE} characters"
            raise InvalidArgument(f"{message}; take a label or an attachment off first", field="name")

    def _signed(self, tenant: str, bundle: StoredBundle) -> StoredBundle:
        if self._signer is None:
            return bundle
        signature = self._signer.sign(tenant, bundle.name, bundle.version, bundle.digest)
        return replace(bundle, signature=signature, signing_key=self._signer.key_id)


def in_force(enforced: Enforced, tenant: str, agent: str, *, default: StoredBundle) -> list[Bundle]:
    """The tenant's bundles, the default without any, each as it holds for the agent; then what is attached to it."""
    common = [bundle.judged_by for bundle in enforced.tenants.get(tenant, ())] or [default.judged_by]
    attached = [
        stored.judged_by.profiled(attachment.profile) if attachment.profile else stored.judged_by
        for attachment, stored in enforced.attached.get(tenant, ())
        if attachment.agent in (agent, EVERYONE)
    ]
    return [bundle.for_agent(agent) for bundle in common] + attached


def _built_in(document: str) -> StoredBundle:
    content = read(document)
    return StoredBundle(
        name="default",
        version=_FIRST_VERSION,
        digest=content.digest,
        document=document,
        content=content,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        built_in=True,
    )


def _next_version(known: Sequence[str]) -> str:
    if not known:
        return _FIRST_VERSION
    major, minor, patch = max(tuple(int(part) for part in version.split(".")) for version in known)
    return f"{major}.{minor}.{patch + 1}"
