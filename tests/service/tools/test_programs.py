"""Shell tools: a program in the sandbox, with some processes of its own and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf import json_format

from agentnet.tools.v1 import tool_pb2
from services.tools.answer import Outcome, Status
from services.tools.executor import Executor
from services.tools.isolation import PROGRAMS
from services.tools.orders import ProgramCall
from services.tools.programs import ProgramExecutor
from services.tools.sandbox import Sandbox
from tests.service.tools.attacking import descendants, filled, settings_of_the_host, settled
from tests.service.tools.calls import Code, events, invocation, refusal, register, said
from tests.support.identity import Keys

LIMIT = timedelta(seconds=2)


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(at_once=2, profile=PROGRAMS) as sandbox:
        found = await shell(sandbox, "grep -E '^(Cap|Seccomp:|NoNewPrivs)' /proc/self/status | cut -f2; id -u")
        if found[1].split() != ["0" * 16] * 5 + ["1", "2", "65534"]:
            pytest.exit(f"the sandbox does not hold, so nothing is tried on it: {found}", returncode=3)
        yield sandbox


@pytest.fixture
def executors(sandbox: Sandbox) -> dict[str, Executor]:
    return {"shell": ProgramExecutor(sandbox)}


async def shell(sandbox: Sandbox, line: str, *, processes: int = 8, memory_mib: int = 128) -> tuple[Outcome, str]:
    printed: list[str] = []
    call = ProgramCall(["/bin/sh", "-c", line], memory_mib, processes, LIMIT)
    outcome = await sandbox.run(call, lambda _stream, text: printed.append(text))
    return outcome, "".join(printed)


def tool(command: list[str], **changes: Any) -> tool_pb2.Tool:
    given = {"name": "run", "exec_mode": "shell", "allowed_agents": ["*"], "shell": {"command": command} | changes}
    return json_format.ParseDict(given, tool_pb2.Tool())


def call(stub: Any, keys: Keys, **arguments: Any) -> Any:
    return stub.InvokeTool(invocation("run", arguments), metadata=keys.metadata())


async def test_a_program_runs_and_its_output_and_exit_code_come_back(stub: Any, keys: Keys) -> None:
    await register(stub, keys, tool(["/bin/sh", "-c", "echo out; echo err >&2; exit 3"]))
    answer = await call(stub, keys)
    result = json_format.MessageToDict(answer.finished.result)
    assert result == {"exit_code": 3, "stdout": "out\n", "stderr": "err\n"}
    assert (answer.stdout, answer.stderr) == ("out\n", "err\n")
    assert answer.finished.isolation == "bubblewrap+seccomp+rlimits"


async def test_an_argument_is_one_word_whatever_it_holds(stub: Any, keys: Keys) -> None:
    await register(stub, keys, tool(["/usr/bin/printf", "%s|", "{text}", "n={n}"]))
    answer = await call(stub, keys, text="a b; echo $(id) `id` 'x' \"y\"", n=5)
    assert answer.stdout == "a b; echo $(id) `id` 'x' \"y\"|n=5|"


async def test_programs_work_together(stub: Any, keys: Keys) -> None:
    await register(stub, keys, tool(["/bin/sh", "-c", "printf 'b\\na\\n' | sort > x; wc -l < x; cat x"]))
    assert (await call(stub, keys)).stdout.split() == ["2", "a", "b"]


async def test_output_streams_as_it_comes(stub: Any, keys: Keys) -> None:
    await register(stub, keys, tool(["/bin/sh", "-c", "echo one; sleep 0.2; echo two"]))
    found = await events(stub, keys, invocation("run"))
    assert [event.output.text for event in found if event.HasField("output")] == ["one\n", "two\n"]


async def test_a_program_that_is_not_there_says_so(stub: Any, keys: Keys) -> None:
    await register(stub, keys, tool(["/usr/bin/nothing-of-the-kind"]))
    error = await refusal(call(stub, keys))
    assert (*said(error), error.facts["status"]) == (Code.FAILED_PRECONDITION, "FUNCTION_FAILED", "USER_ERROR")
    assert "does not start" in error.message


OUT_OF_REACH = {
    "the network": "cat < /dev/null > /dev/tcp/127.0.0.1/80 || curl -sm1 http://127.0.0.1",
    "a namespace": "unshare -U true || unshare -m true || unshare -p true",
    "a mount": "mount -t tmpfs none /tmp || umount /proc",
    "a setuid program": "su -c true || sudo -n true",
    "a file of the host": "cat /etc/shadow || cat /etc/passwd || ls /home /work /var",
    "the system": "touch /usr/bin/x || touch /bin/x || touch /sandbox/x || touch /dev/x",
    "the kernel's settings": "dmesg || sysctl -w kernel.hostname=x",
}


@pytest.mark.parametrize("line", OUT_OF_REACH.values(), ids=OUT_OF_REACH.keys())
async def test_what_is_outside_is_out_of_reach(sandbox: Sandbox, line: str) -> None:
    before = settings_of_the_host()
    outcome, _ = await shell(sandbox, f"({line}) 2> /dev/null")
    assert outcome.status is Status.OK
    assert outcome.result["exit_code"] != 0
    assert settings_of_the_host() == before


BOMBS = {
    "forks": ":(){ :|:& };: ; sleep 60",
    "sleepers": "while :; do sleep 60 & done",
    "daemons": "setsid sh -c 'while :; do setsid sleep 60 & done' & sleep 60",
    "memory in children": "for i in 1 2 3 4; do tail /dev/zero & done; wait; sleep 60",
    "spinners": "for i in 1 2 3 4; do while :; do :; done & done; wait",
    "deaf": "trap '' TERM INT HUP; while :; do :; done",
}


@pytest.mark.parametrize("line", BOMBS.values(), ids=BOMBS.keys())
async def test_a_bomb_is_bounded_and_gone_at_its_deadline(sandbox: Sandbox, line: str) -> None:
    await sandbox.prepare()
    assert await filled(sandbox)
    few = len(descendants())
    running = asyncio.ensure_future(shell(sandbox, line))
    most = 0
    while not running.done():
        most = max(most, len(descendants()))
        await asyncio.sleep(0.05)
    outcome, _ = await running
    assert outcome.status in (Status.TIMEOUT, Status.OK)
    assert outcome.elapsed <= LIMIT + timedelta(milliseconds=250)
    assert most <= few + 8 + 2, "the limit of processes is the call's own"
    assert await settled(few + 1), "a process outlived its call"
    assert (await shell(sandbox, "echo well"))[1] == "well\n"


async def test_what_is_left_running_ends_with_its_call(sandbox: Sandbox) -> None:
    await sandbox.prepare()
    assert await filled(sandbox)
    few = len(descendants())
    outcome, _ = await shell(sandbox, "setsid sleep 60 > /dev/null 2>&1 & echo started")
    assert outcome.status is Status.OK
    assert await settled(few + 1)


async def test_a_program_without_a_command_is_refused(stub: Any, keys: Keys) -> None:
    error = await refusal(register(stub, keys, tool([])))
    assert (*said(error), error.field) == (Code.INVALID_ARGUMENT, "FIELD_REQUIRED", "tool.shell.command")
