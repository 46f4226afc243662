"""What the registry asks of storage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.inference.prompts.content import Content
from services.inference.prompts.resolution import Selector, Target
from shared.paging import Page


@dataclass(frozen=True, slots=True)
class PromptVersion:
    """One immutable version. The store counts `number` and fills `labels` in."""

    name: str
    digest: str
    content: Content
    comment: str
    author: str
    created_at: datetime
    number: int = 0
    labels: tuple[str, ...] = ()

    @property
    def reference(self) -> str:
        """Names exactly this version, for records of what was made from it."""
        return f"{self.name}@{self.digest}"


@dataclass(frozen=True, slots=True)
class PromptGeneration:
    """A generation and the version it was made from. The label led to it; empty when a version was named."""

    generation_id: str
    name: str
    digest: str
    label: str
    created_at: datetime


class PromptStore(Protocol):
    """Where versions, labels and ties are kept. Versions and ties never change."""

    async def add(self, tenant: str, version: PromptVersion, *, labels: Sequence[str]) -> tuple[PromptVersion, bool]:
        """Stores a version under the next number, or finds the one of this digest; points the labels wholly at it.

        True when it is new.
        """

    async def version(self, tenant: str, name: str, selector: Selector) -> PromptVersion | None:
        """The selected version."""

    async def versions(self, tenant: str, name: str, page: Page) -> Sequence[PromptVersion]:
        """Newest first, at most `page.size` + 1. The cursor is the number of the last one seen."""

    async def newest(self, tenant: str, page: Page) -> Sequence[PromptVersion]:
        """The newest version of every prompt by name, at most `page.size` + 1. The cursor is the last name seen."""

    async def labels(self, tenant: str, name: str) -> Mapping[str, Sequence[Target]]:
        """Where each label of the prompt points, both in order."""

    async def point(self, tenant: str, name: str, label: str, targets: Sequence[Target]) -> None:
        """Points the label at these versions, which exist; without any it is taken away."""

    async def tie(self, tenant: str, tied: PromptGeneration) -> PromptGeneration:
        """Ties a generation to its version; the first tie of a generation stays and is returned."""

    async def tied(self, tenant: str, generation_id: str) -> PromptGeneration | None:
        """What the generation is tied to."""

    async def generations(self, tenant: str, name: str, *, digest: str, page: Page) -> Sequence[PromptGeneration]:
        """Those of one prompt, of one version when a digest is given, newest first, at most `page.size` + 1.

        The cursor is (time, id) of the last one seen.
        """
