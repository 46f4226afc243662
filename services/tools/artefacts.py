"""What functions leave behind by `attach(name, content)`: kept in the object store, told by reference."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import replace
from typing import Final
from urllib.parse import quote

from services.tools.answer import Artefact, Outcome, Status
from services.tools.errors import ArtefactNotFound
from services.tools.executor import Work
from shared.errors import Unavailable
from shared.log import log
from shared.objects import Objects

_FOLDER: Final = "artefacts"
# What turns show of a result at most, in characters.
_LARGE: Final = 16_384


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

    async def whole(self, work: Work, outcome: Outcome) -> Outcome:
        """The outcome; a large result is kept as an artefact too, since models are shown only its beginning. When the
        store does not answer it is not: the result itself came.
        """
        text = await _text(outcome.result) if outcome.status is Status.OK else ""
        if len(text) <= _LARGE:
            return outcome
        name = "whole_result.txt" if isinstance(outcome.result, str) else "whole_result.json"
        invocation_id, content = work.context["invocation_id"], text.encode(errors="replace")
        try:
            await self._objects.put(_place(work.tenant, invocation_id, name), content)
        except Unavailable as error:
            log.warning("tool.result_not_kept", invocation_id=invocation_id, error=error.message)
            return outcome
        left = Artefact(name, len(content), hashlib.sha256(content).hexdigest(), invocation_id)
        return replace(outcome, artefacts=(*outcome.artefacts, left))

    async def read(self, tenant: str, invocation_id: str, name: str) -> bytes:
        """Raises ArtefactNotFound, also for another tenant's, and Unavailable."""
        found = await self._objects.get(_place(tenant, invocation_id, name))
        if found is None:
            raise ArtefactNotFound(f"{invocation_id} left no {name}", tool=invocation_id)
        return found


async def _text(result: object) -> str:
    """A result as a model reads it; made in a thread, since others would wait for it."""
    if isinstance(result, str):
        return result
    if not isinstance(result, (dict, list)):
        return ""
    return await asyncio.to_thread(json.dumps, result, ensure_ascii=False)


def _place(tenant: str, invocation_id: str, name: str) -> str:
    return f"{_FOLDER}/{quote(tenant, safe='')}/{invocation_id}/{name}"
