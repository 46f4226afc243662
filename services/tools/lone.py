"""The program inside a sandbox that is made for one call: its order is the first line of its input, and it answers on
it. What it asks to be fetched comes back on it as well.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from services.tools import runner, zygote

FILTERS = ("/sandbox/outer", "/sandbox/filter")
# Those that gVisor lets a program set; processes, locked memory and the rest are denied by the filters.
LIMITS = frozenset({"RLIMIT_AS", "RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_NOFILE"})


def main() -> None:
    said: dict[str, Any] | None = None
    try:
        task = json.loads(sys.stdin.buffer.readline())
        os.dup2(0, zygote.ANSWER, inheritable=False)
        if not task.get("fetch"):
            os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.closerange(zygote.ANSWER + 1, 1 << 16)
        os.chdir("/tmp")  # noqa: S108 - the call's own, in memory
        zygote.limit({name: value for name, value in task["limits"].items() if name in LIMITS})
        for name in FILTERS:
            with open(name, "rb") as file:  # noqa: PTH123 - pathlib is one more import of a start-up
                zygote.Filter(file.read()).load()
        os.write(zygote.ANSWER, zygote.READY)
        said = runner.run(task, zygote.say)
    finally:
        if said is None:
            sys.excepthook(*sys.exc_info())  # what is missing of the sandbox, for the log
        zygote.answered(said)
