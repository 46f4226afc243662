"""What functions leave behind by `attach(name, content)`: kept in the object store, told by reference."""

from __future__ import annotations

from dataclasses import replace
from typing import Final
from urllib.parse import quote

from services.tools.answer import Artefact, Outcome, Status
from services.tools.errors import ArtefactNotFound
from services.tools.executor import Work
from shared.objects import Objects

_FOLDER: Final = "artefacts"


class Artefacts:
    """The artefacts of all tenants, one tenant a call. How long they are kept is the object store's to say."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def kept(self, work: Work, outcome: Outcome) -> Outcome:
        """The outcome with references, when the store has everything. Only a call that went well leaves something.

        Raises Unavailable.
        """
        if outcome.status is not Status.OK:
            return replace(outcome, artefacts=())
        invocation_id, references = work.context["invocation_id"], []
        for one in outcome.artefacts:
            await self._objects.put(_place(work.tenant, invocation_id, one.name), one.content)
            references.append(Artefact(one.name, one.size, one.sha256, invocation_id))
        return replace(outcome, artefacts=tuple(references))

    async def read(self, tenant: str, invocation_id: str, name: str) -> bytes:
        """Raises ArtefactNotFound, also for another tenant's, and Unavailable."""
        found = await self._objects.get(_place(tenant, invocation_id, name))
        if found is None:
            raise ArtefactNotFound(f"{invocation_id} left no {name}", tool=invocation_id)
        return found


def _place(tenant: str, invocation_id: str, name: str) -> str:
    return f"{_FOLDER}/{quote(tenant, safe='')}/{invocation_id}/{name}"
