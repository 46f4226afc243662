"""exec_mode "shell": a program in the sandbox."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import timedelta
from typing import Final

from services.tools import sanitise
from services.tools.answer import Outcome, Printed, Status
from services.tools.executor import Isolation, Work
from services.tools.http_api import target_of
from services.tools.orders import ProgramCall
from services.tools.sandbox import Sandbox

_PLACE: Final = re.compile(r"\{(\w+)\}")


class ProgramExecutor:
    """Runs programs of the host's system folders, which reach nothing outside."""

    isolation = Isolation.NAMESPACES
    reaches_out = False

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def check_room(self) -> None:
        self._sandbox.check_room()

    async def execute(self, work: Work, printed: Printed) -> Outcome:
        """The result is the exit code and what was printed, which is shown as it comes as well."""
        target = target_of(work)
        call = ProgramCall(
            command=[_filled(word, work) for word in target["command"]],
            memory_mib=target["memory_limit_mib"],
            processes=target["process_limit"],
            timeout=timedelta(seconds=target["timeout"]),
        )
        kept = {"stdout": "", "stderr": ""}

        def keep(stream: str, text: str) -> None:
            kept[stream] += text
            printed(stream, text)

        outcome = await self._sandbox.run(call, keep)
        if outcome.status is not Status.OK:
            return outcome
        shown = {stream: sanitise.text(text) for stream, text in kept.items()}
        return replace(outcome, result={**outcome.result, **shown})


def _filled(word: str, work: Work) -> str:
    """An argument is one word of the command line, whatever it holds."""

    def value(match: re.Match[str]) -> str:
        found = work.arguments.get(match[1], "")
        return found if isinstance(found, str) else json.dumps(found)

    return _PLACE.sub(value, word)
