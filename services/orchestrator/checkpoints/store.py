"""What checkpoints ask of storage. One contract suite holds for all four places they can be kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from shared.paging import Page

# A checkpoint as JSON, of whatever version it was written in.
Data = dict[str, Any]

# Between the names of agents that take part in one run.
AND: Final = ", "


@dataclass(frozen=True, slots=True)
class CheckpointFilter:
    """Which checkpoints: of a run, and those an agent takes part in. Empty means all."""

    agent_name: str = ""
    run_id: str = ""

    def fits(self, data: Data) -> bool:
        return self.fits_agents(data["agent_name"]) and self.run_id in ("", data["run_id"])

    def fits_agents(self, names: str) -> bool:
        return not self.agent_name or self.agent_name in names.split(AND)


class CheckpointStore(Protocol):
    """Where checkpoints are kept, one tenant a call. Raises Unavailable when the place does not answer."""

    async def save(self, tenant: str, checkpoint_id: str, data: Data) -> None:
        """Keeps a checkpoint whole or not at all; one that is there is replaced."""

    async def load(self, tenant: str, checkpoint_id: str) -> Data | None:
        """A checkpoint as it was saved."""

    async def every(self, tenant: str, chosen: CheckpointFilter, *, page: Page) -> Sequence[Data]:
        """Newest first, at most `page.size` + 1. The cursor is the id of the last one seen."""

    async def delete(self, tenant: str, checkpoint_id: str) -> bool:
        """False when there is none."""


def page_of(ids: Sequence[str], page: Page) -> list[str]:
    """The ids of a page, newest first: ids sort by time."""
    before = page.row
    chosen = sorted((one for one in ids if not before or one < before), reverse=True)
    return chosen[: page.size + 1]
