"""Reads documents in a process of their own: a hostile file can spend its limits there and nothing else."""

from __future__ import annotations

import asyncio
import json
import math
import os
import subprocess
import sys
from dataclasses import asdict
from datetime import timedelta
from typing import Any, Final

from services.inference.document import Document, DocumentKind, Limits, Problem
from shared.errors import FieldTooLong, InvalidArgument, Reason

_MAX_BYTES: Final = 20 * 1024 * 1024
_MEMORY: Final = 1024 * 1024 * 1024
_PARALLEL: Final = 2
_MESSAGES: Final = {
    Problem.DAMAGED: "the document is damaged",
    Problem.ENCRYPTED: "the document is encrypted; send it without a password",
    Problem.NO_TEXT: "the document holds no text, perhaps only pictures of it",
    Problem.TOO_LARGE_INSIDE: "the document is larger inside than is read",
    Problem.TOO_SLOW: "the document takes longer to read than is given to it",
    Problem.UNKNOWN_KIND: "the document is neither PDF nor DOCX",
}


class DocumentUnreadable(InvalidArgument):
    """The document has no text for us; `problem` in the facts says why."""

    reason = Reason.ERROR_REASON_DOCUMENT_UNREADABLE

    def __init__(self, problem: Problem, field: str) -> None:
        super().__init__(_MESSAGES[problem], field=field, problem=problem.value)


class DocumentReader:
    """A process a document, a few at a time, each with a limit of memory and time."""

    def __init__(self, *, timeout: timedelta = timedelta(seconds=20), limits: Limits = Limits()) -> None:  # noqa: B008 - frozen
        self._timeout = timeout
        self._limits = limits
        self._turns = asyncio.Semaphore(_PARALLEL)

    async def read(self, data: bytes, *, field: str) -> Document:
        """The document's text. Cancelled, its process ends. Raises FieldTooLong and DocumentUnreadable."""
        if len(data) > _MAX_BYTES:
            raise FieldTooLong(field, length=len(data), limit=_MAX_BYTES, unit="bytes")
        async with self._turns:
            answer = await self._apart(data)
        if "problem" in answer:
            raise DocumentUnreadable(Problem(answer["problem"]), field)
        kind = DocumentKind(answer["kind"])
        return Document(kind, answer["text"], answer["pages"], truncated=answer["truncated"])

    async def _apart(self, data: bytes) -> dict[str, Any]:
        """What the process says; a process that dies or hangs says what its end means.

        It is spoken to in a thread: under uvloop the pipe to a new process is now and then closed before it is written.
        """
        seconds = self._timeout.total_seconds()
        process = subprocess.Popen(  # noqa: ASYNC220 - a vfork, under a millisecond
            (
                sys.executable, "-m", "services.inference.documents", json.dumps(asdict(self._limits)),
                str(math.ceil(seconds) + 1), str(_MEMORY),
            ),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={"PYTHONPATH": os.pathsep.join(sys.path), "LANG": "C.UTF-8"},  # none of our secrets
        )  # fmt: skip
        speaking = asyncio.ensure_future(asyncio.to_thread(process.communicate, data))
        try:
            async with asyncio.timeout(seconds):
                said, _ = await asyncio.shield(speaking)
        except TimeoutError:
            return {"problem": Problem.TOO_SLOW}
        finally:
            process.kill()  # nothing where it has ended
            await asyncio.shield(asyncio.wait([speaking]))
        if process.returncode != 0:
            return {"problem": Problem.DAMAGED}
        answer: dict[str, Any] = json.loads(said)
        return answer
