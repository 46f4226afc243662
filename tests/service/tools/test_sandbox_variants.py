"""More ways out that a doubter would try, and calls that would meet another call, at the same time or later."""

from __future__ import annotations

import asyncio

import pytest

from services.tools.answer import Outcome, Status
from services.tools.sandbox import Sandbox
from tests.service.tools.attacking import Besieged, Case, Printed, attack, call, cases

CASES = cases("variants.yaml") + cases("siblings.yaml")


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
async def test_a_variant_is_contained(case: Case, siege: Besieged) -> None:
    await attack(siege, case)


ASKS_ABOUT_A_LOCK = """
import fcntl, struct
asked = struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 0, 0, 0)
return struct.unpack('hhqqi4x', fcntl.fcntl(open('/sandbox/filter'), 5, asked))[0] != fcntl.F_UNLCK
"""
MEETINGS = {
    "a file": ("open('/tmp/met','w').write('x')", "import os\nreturn os.path.exists('/tmp/met')"),
    "shared memory": (
        "import mmap\nm = mmap.mmap(-1, 4096)\nm[:3] = b'met'",
        "import os\nreturn os.listdir('/dev/shm') != []",
    ),
    "a name": (
        "import socket\na, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\na.bind('\\0met')",
        "import socket\na, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\na.sendto(b'x', '\\0met')\nreturn True",
    ),
    "a terminal": ("import os\nos.openpty()", "import os\nreturn os.listdir('/dev/pts') != []"),
    "a lock": (
        "import fcntl\nf = open('/sandbox/filter')\nfcntl.lockf(f, fcntl.LOCK_SH)",
        ASKS_ABOUT_A_LOCK,
    ),
    "a process": ("pass", "import os\nreturn [p for p in os.listdir('/proc') if p.isdigit()] != ['1']"),
    "a variable": ("import os\nos.environ['MET'] = 'x'", "import os\nreturn 'MET' in os.environ"),
    "a module": (
        "import json, sys\njson.met = sys.modules['met'] = json",
        "import json, sys\nreturn hasattr(json, 'met') or 'met' in sys.modules",
    ),
    "a class": (
        "import builtins\nbuiltins.met = lambda _: 7",
        "import builtins\nreturn hasattr(builtins, 'met')",
    ),
    "a limit": (
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))",
        "import resource\nreturn resource.getrlimit(resource.RLIMIT_NOFILE)[1] == 8",
    ),
    "a time zone": (
        "import os, time\nos.environ['TZ'] = 'X9'\ntime.tzset()",
        "import time\nreturn time.tzname[0] == 'X9'",
    ),
    "a handler": (
        "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)",
        "import signal\nreturn signal.getsignal(signal.SIGTERM) is signal.SIG_IGN",
    ),
}
MEETING_SECONDS = 0.3


async def run(sandbox: Sandbox, body: str) -> Outcome:
    return await sandbox.run(call(body), Printed())


@pytest.mark.parametrize(("leaves", "looks"), MEETINGS.values(), ids=MEETINGS)
async def test_a_call_meets_no_other_beside_it_or_before_it(leaves: str, looks: str) -> None:
    async with Sandbox(at_once=2) as sandbox:
        waits = f"import time\ntry:\n{_indented(leaves)}\nexcept OSError: pass\ntime.sleep({MEETING_SECONDS})"
        beside = asyncio.create_task(run(sandbox, waits))
        await asyncio.sleep(MEETING_SECONDS / 2)
        during = await run(sandbox, looks)
        left = await beside
        after = await run(sandbox, looks)
    assert left.status is Status.OK, left
    for found in (during, after):
        assert found.status is Status.DENIED or (found.status, found.result) == (Status.OK, False), found


def _indented(body: str) -> str:
    return "\n".join(f"  {line}" for line in body.splitlines())
