"""The registry of prompts: add, find, label, compare, render, and tie generations to versions."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.inference.prompts.content import Content, check, digest
from services.inference.prompts.diff import Difference, compare
from services.inference.prompts.errors import PromptNotFound
from services.inference.prompts.filling import RenderedMessage, fill
from services.inference.prompts.resolution import Reference, Selector, Target, select, selector
from services.inference.prompts.store import PromptGeneration, PromptStore, PromptVersion
from shared.clock import Clock
from shared.errors import InvalidArgument
from shared.paging import Page


@dataclass(frozen=True, slots=True)
class Rendered:
    """The messages and the version they are of."""

    version: PromptVersion
    messages: tuple[RenderedMessage, ...]


class PromptRegistry:
    """Prompts of all tenants, one tenant a call."""

    def __init__(self, store: PromptStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def add(
        self, tenant: str, name: str, content: Content, *, comment: str, author: str, labels: Sequence[str]
    ) -> tuple[PromptVersion, bool]:
        """Stores a version, or finds the same content; True when it is new. Raises PromptInvalid."""
        check(content)
        version = PromptVersion(name, digest(content), content, comment, author, self._clock.now())
        return await self._store.add(tenant, version, labels=labels)

    async def resolve(self, tenant: str, reference: Reference, *, key: str = "") -> PromptVersion:
        """The version the reference means for this key. Raises PromptNotFound."""
        return (await self._resolve(tenant, reference, key))[0]

    async def labels(self, tenant: str, name: str) -> Mapping[str, Sequence[Target]]:
        """Where each label of the prompt points."""
        return await self._store.labels(tenant, name)

    async def prompts(self, tenant: str, page: Page) -> Sequence[PromptVersion]:
        """The newest version of each prompt, by name."""
        return await self._store.newest(tenant, page)

    async def versions(self, tenant: str, name: str, page: Page) -> Sequence[PromptVersion]:
        """Newest first. Raises PromptNotFound when there is no such prompt."""
        found = await self._store.versions(tenant, name, page)
        if not found and not page.skip:
            raise _absent(Reference(name))
        return found

    async def point(self, tenant: str, name: str, label: str, targets: Sequence[tuple[str, int]]) -> Sequence[Target]:
        """Points a label at versions by weight; takes it away without any. Raises PromptNotFound."""
        if not targets:
            await self._version(tenant, Reference(name), Selector())
        pointed = [
            Target((await self._named(tenant, Reference(name, version))).digest, weight) for version, weight in targets
        ]
        if len({target.digest for target in pointed}) < len(pointed):
            raise InvalidArgument("a version is there twice; give each its whole weight", field="targets")
        await self._store.point(tenant, name, label, pointed)
        return pointed

    async def compare(self, tenant: str, before: Reference, after: Reference) -> Difference:
        """What differs between two versions. Raises PromptNotFound."""
        old, new = await self.resolve(tenant, before), await self.resolve(tenant, after)
        return await asyncio.to_thread(compare, old, new)

    async def render(
        self, tenant: str, reference: Reference, given: Mapping[str, object], *, key: str, generation_id: str
    ) -> Rendered:
        """The prompt with its variables filled in, and the generation tied to its version if there is one.

        A generation that is tied already keeps its version. Raises PromptNotFound, InvalidArgument.
        """
        tied = await self._store.tied(tenant, generation_id) if generation_id else None
        if tied and tied.name == reference.name:
            version, label = await self._version(tenant, reference, Selector(digest=tied.digest)), tied.label
        else:
            version, label = await self._resolve(tenant, reference, key or generation_id)
        messages = fill(check(version.content), given)
        if generation_id:
            await self.tie(tenant, generation_id, version, label=label)
        return Rendered(version, messages)

    async def of(self, tenant: str, reference: Reference, generation_id: str) -> PromptVersion:
        """The version a generation is made from, tied to it for good: a label goes on meaning what it meant when it was
        tied. Raises PromptNotFound, and InvalidArgument when it is tied to another.
        """
        tied = await self._store.tied(tenant, generation_id)
        if tied and tied.name == reference.name and selector(reference.version) is None:
            return await self._version(tenant, reference, Selector(digest=tied.digest))
        version, label = await self._resolve(tenant, reference, generation_id)
        await self.tie(tenant, generation_id, version, label=label)
        return version

    async def tie(self, tenant: str, generation_id: str, version: PromptVersion, *, label: str = "") -> None:
        """Ties a generation to a version for good. Raises InvalidArgument when it is tied to another one."""
        wanted = PromptGeneration(generation_id, version.name, version.digest, label, self._clock.now())
        tied = await self._store.tie(tenant, wanted)
        if (tied.name, tied.digest) != (version.name, version.digest):
            raise InvalidArgument(f"the generation is tied to {tied.name}@{tied.digest[:12]}", field="generation_id")

    async def generations(self, tenant: str, name: str, version: str, page: Page) -> Sequence[PromptGeneration]:
        """Generations made from a prompt, or from one version of it, newest first. Raises PromptNotFound."""
        wanted = (await self._named(tenant, Reference(name, version))).digest if version else ""
        return await self._store.generations(tenant, name, digest=wanted, page=page)

    async def _resolve(self, tenant: str, reference: Reference, key: str) -> tuple[PromptVersion, str]:
        """The version and the label that led to it."""
        labels = {} if selector(reference.version) else await self._store.labels(tenant, reference.name)
        chosen = select(reference, labels, key=key)
        if chosen is None:
            raise _absent(reference)
        return await self._version(tenant, reference, chosen), chosen.label

    async def _named(self, tenant: str, reference: Reference) -> PromptVersion:
        chosen = selector(reference.version)
        if chosen is None:
            raise InvalidArgument("a version is a number or 12 or more digits of a digest", field="version")
        return await self._version(tenant, reference, chosen)

    async def _version(self, tenant: str, reference: Reference, chosen: Selector) -> PromptVersion:
        found = await self._store.version(tenant, reference.name, chosen)
        if found is None:
            raise _absent(reference)
        return found


def _absent(reference: Reference) -> PromptNotFound:
    return PromptNotFound(f"no prompt {reference}", reference=str(reference))
