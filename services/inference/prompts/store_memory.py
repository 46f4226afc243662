"""The honest fake: versions, labels and ties in dictionaries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from services.inference.prompts.resolution import Selector, Target
from services.inference.prompts.store import PromptGeneration, PromptVersion
from shared.paging import Page


class MemoryPromptStore:
    """Everything is gone when the process ends."""

    def __init__(self) -> None:
        self._versions: dict[tuple[str, str], list[PromptVersion]] = {}  # oldest first
        self._labels: dict[tuple[str, str], dict[str, tuple[Target, ...]]] = {}
        self._ties: dict[tuple[str, str], PromptGeneration] = {}

    async def add(self, tenant: str, version: PromptVersion, *, labels: Sequence[str]) -> tuple[PromptVersion, bool]:
        versions = self._versions.setdefault((tenant, version.name), [])
        known = next((one for one in versions if one.digest == version.digest), None)
        if known is None:
            versions.append(replace(version, number=len(versions) + 1))
        for label in labels:
            await self.point(tenant, version.name, label, [Target(version.digest)])
        return self._labelled(tenant, known or versions[-1]), known is None

    async def version(self, tenant: str, name: str, selector: Selector) -> PromptVersion | None:
        fitting = [one for one in self._versions.get((tenant, name), ()) if _fits(one, selector)]
        if not fitting:
            return None
        return self._labelled(tenant, fitting[0] if selector.digest else fitting[-1])

    async def versions(self, tenant: str, name: str, page: Page) -> Sequence[PromptVersion]:
        known = reversed(self._versions.get((tenant, name), []))
        older = [one for one in known if not page.skip or one.number < page.skip]
        return [self._labelled(tenant, one) for one in older[: page.size + 1]]

    async def newest(self, tenant: str, page: Page) -> Sequence[PromptVersion]:
        mine = sorted(name for owner, name in self._versions if owner == tenant and name > page.row)
        return [self._labelled(tenant, self._versions[tenant, name][-1]) for name in mine[: page.size + 1]]

    async def labels(self, tenant: str, name: str) -> Mapping[str, Sequence[Target]]:
        return dict(sorted(self._labels.get((tenant, name), {}).items()))

    async def point(self, tenant: str, name: str, label: str, targets: Sequence[Target]) -> None:
        labels = self._labels.setdefault((tenant, name), {})
        if targets:
            labels[label] = tuple(targets)
        else:
            labels.pop(label, None)

    async def tie(self, tenant: str, tied: PromptGeneration) -> PromptGeneration:
        return self._ties.setdefault((tenant, tied.generation_id), tied)

    async def tied(self, tenant: str, generation_id: str) -> PromptGeneration | None:
        return self._ties.get((tenant, generation_id))

    async def generations(self, tenant: str, name: str, *, digest: str, page: Page) -> Sequence[PromptGeneration]:
        mine = [
            tied for (owner, _), tied in self._ties.items()
            if owner == tenant and tied.name == name and digest in ("", tied.digest)
        ]  # fmt: skip
        mine.sort(key=_place, reverse=True)
        at, last = page.place
        return [tied for tied in mine if at is None or _place(tied) < (at, last)][: page.size + 1]

    def _labelled(self, tenant: str, version: PromptVersion) -> PromptVersion:
        labels = self._labels.get((tenant, version.name), {})
        here = (label for label, targets in labels.items() if any(one.digest == version.digest for one in targets))
        return replace(version, labels=tuple(sorted(here)))


def _fits(version: PromptVersion, selector: Selector) -> bool:
    return version.digest.startswith(selector.digest) and selector.number in (0, version.number)


def _place(tied: PromptGeneration) -> tuple[datetime, str]:
    return tied.created_at, tied.generation_id
