"""What functions leave behind: by reference in the result, as it was in the object store, for its tenant alone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from agentnet.tools.v1 import artefact_pb2 as pb
from tests.service.tools.calls import Code, events, invocation, refusal, register, said, tool
from tests.support.identity import Keys

DATA = bytes(range(256)) * 1000
LEAVES = """
def adder():
    attach('report.csv', 'a,b\\n')
    attach('all.bin', bytes(range(256)) * 1000)
    emit('progress', 1)
    attach('report.csv', 'c,d\\n')
    return 'done'
"""


def read(stub: Any, keys: Keys, invocation_id: str, name: str, *, tenant: str = "acme") -> Any:
    request = pb.GetToolArtefactRequest(invocation_id=invocation_id, name=name)
    return stub.GetToolArtefact(request, metadata=keys.metadata(tenant))


def invoke(stub: Any, keys: Keys, **changes: Any) -> Any:
    return stub.InvokeTool(invocation(**changes), metadata=keys.metadata())


async def test_what_a_function_attaches_is_told_by_reference_and_read_as_it_was(stub: Any, keys: Keys) -> None:
    await register(stub, keys, tool(LEAVES))
    answer = await invoke(stub, keys, request_id="once")
    left = [(one.name, one.size, one.sha256) for one in answer.finished.artefacts]
    assert left == [
        ("all.bin", len(DATA), hashlib.sha256(DATA).hexdigest()),
        ("report.csv", 4, hashlib.sha256(b"c,d\n").hexdigest()),
    ]
    assert (await read(stub, keys, answer.invocation_id, "all.bin")).content == DATA
    assert (await read(stub, keys, answer.invocation_id, "report.csv")).content == b"c,d\n"
    again = await invoke(stub, keys, request_id="once")
    assert again.replayed
    assert list(again.finished.artefacts) == list(answer.finished.artefacts)
    assert answer.finished.artefacts[0].invocation_id == answer.invocation_id


@pytest.mark.parametrize(
    ("code", "name", "whole"),
    [
        ("def adder():\n    return 'ä' * 16_385\n", "whole_result.txt", "ä" * 16_385),
        ("def adder():\n    return ['x'] * 9_000\n", "whole_result.json", json.dumps(["x"] * 9_000)),
    ],
)
async def test_a_large_result_is_kept_whole_beside_it(stub: Any, keys: Keys, code: str, name: str, whole: str) -> None:
    await register(stub, keys, tool(code))
    answer = await invoke(stub, keys, request_id="once")
    assert [one.name for one in answer.finished.artefacts] == [name]
    assert (await read(stub, keys, answer.invocation_id, name)).content.decode() == whole
    assert list((await invoke(stub, keys, request_id="once")).finished.artefacts) == list(answer.finished.artefacts)


async def test_a_result_that_a_model_is_shown_whole_leaves_nothing(stub: Any, keys: Keys) -> None:
    await register(stub, keys, tool("def adder():\n    return 'x' * 16_384\n"))
    assert not (await invoke(stub, keys)).finished.artefacts


async def test_a_stream_ends_with_the_references(stub: Any, keys: Keys) -> None:
    await register(stub, keys, tool(LEAVES))
    last = (await events(stub, keys, invocation()))[-1]
    assert [one.name for one in last.finished.artefacts] == ["all.bin", "report.csv"]


@pytest.mark.parametrize(("name", "code"), [("report.csv", Code.NOT_FOUND), ("../x", Code.INVALID_ARGUMENT)])
async def test_another_tenants_artefact_is_not_there(stub: Any, keys: Keys, name: str, code: Code) -> None:
    await register(stub, keys, tool(LEAVES))
    answer = await invoke(stub, keys)
    assert (await refusal(read(stub, keys, answer.invocation_id, name, tenant="other"))).code is code


BAD = {
    "a path": ("attach('../../escape', 'x')", "CRASHED"),
    "an absolute path": ("attach('/tmp/escape_canary', 'x')", "CRASHED"),
    "no name": ("attach('', 'x')", "CRASHED"),
    "too many": ("for n in range(17): attach(str(n), 'x')", "USER_ERROR"),
    "too large": ("attach('x', bytes(5 << 20))", "USER_ERROR"),
    "too large together": ("for n in range(5): attach(str(n), bytes(1 << 20))", "USER_ERROR"),
    "no bytes": ("attach('x', 1.5)", "USER_ERROR"),
    "forged": ("import os; os.write(3, b'{\"artefact\": \"x\", \"data\": \"!\"}\\n')", "CRASHED"),
    "forged too many": (
        "import os; [os.write(3, b'{\"artefact\": \"%d\", \"data\": \"eA==\"}\\n' % n) for n in range(99)]", "CRASHED",
    ),
    "a flood": (
        "import os; os.write(3, b'{\"artefact\": \"x\", \"data\": \"'); [os.write(3, b'eHh4' * 16384) for _ in range(500)]",
        "OUTPUT_LIMIT",
    ),
    "a result that is as large": ("return 'x' * (3 << 20)", "OUTPUT_LIMIT"),
}  # fmt: skip


@pytest.mark.parametrize(("line", "status"), BAD.values(), ids=BAD)
async def test_what_is_no_artefact_is_the_functions_error_and_nothing_is_kept(
    stub: Any, keys: Keys, tmp_path: Path, line: str, status: str
) -> None:
    await register(stub, keys, tool(function={"code": f"def adder():\n    {line}\n", "allowed_imports": ["os"]}))
    assert (await refusal(invoke(stub, keys))).facts["status"] == status
    assert not list((tmp_path / "objects").rglob("*"))


async def test_a_link_that_a_function_makes_is_followed_by_nobody(stub: Any, keys: Keys, tmp_path: Path) -> None:
    """Content passes as bytes: there is no file of the sandbox that anybody outside opens."""
    code = (
        "import os\ndef adder():\n    os.symlink('/etc/passwd', '/tmp/report.csv')\n    attach('report.csv', 'mine')\n"
    )
    await register(stub, keys, tool(function={"code": code, "allowed_imports": ["os"]}))
    answer = await invoke(stub, keys)
    assert (await read(stub, keys, answer.invocation_id, "report.csv")).content == b"mine"
    assert said(await refusal(read(stub, keys, answer.invocation_id, "passwd")))[0] is Code.NOT_FOUND
