"""WebAssembly tools: a module in wasmtime, within the sandbox."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest
import wasmtime
from google.protobuf import json_format

from agentnet.tools.v1 import tool_pb2
from services.tools.executor import Executor
from services.tools.isolation import MODULES
from services.tools.modules import ModuleExecutor
from services.tools.sandbox import Sandbox
from tests.service.tools.calls import Code, invocation, refusal, register, said
from tests.support.identity import Keys

ECHO = """
(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 65536))
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
    (i32.store (i32.const 4) (i32.load (i32.const 8)))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12)))))
"""
# Prints the errno of opening "etc" under each descriptor that a preopened folder could have: 8 is "bad descriptor".
OPEN = """
(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1) (data (i32.const 100) "etc")
  (func (export "_start")
    (i32.store8 (i32.const 64) (i32.add (i32.const 48) (call $open (i32.const 3) (i32.const 0) (i32.const 100)
      (i32.const 3) (i32.const 0) (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 16))))
    (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 1))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12)))))
"""
LOOP = '(module (memory (export "memory") 1) (func (export "_start") (loop $on (br $on))))'
GROW = """
(module (memory (export "memory") 1) (func (export "_start")
  (if (i32.eq (memory.grow (i32.const 1600)) (i32.const -1)) (then unreachable))))
"""
EXIT = """
(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1) (func (export "_start") (call $exit (i32.const 3))))
"""
FOREIGN = '(module (import "env" "system" (func $run)) (func (export "_start") (call $run)))'
NO_START = '(module (func (export "main")))'


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(at_once=2, profile=MODULES) as sandbox:
        yield sandbox


@pytest.fixture
def executors(sandbox: Sandbox) -> dict[str, Executor]:
    return {"wasm": ModuleExecutor(sandbox)}


def tool(text: str, **limits: Any) -> tool_pb2.Tool:
    module = base64.b64encode(bytes(wasmtime.wat2wasm(text))).decode()
    given = {"name": "run", "exec_mode": "wasm", "allowed_agents": ["*"], "wasm": {"module": module} | limits}
    return json_format.ParseDict(given, tool_pb2.Tool())


async def called(stub: Any, keys: Keys, found: tool_pb2.Tool, **arguments: Any) -> Any:
    await register(stub, keys, found)
    return (await stub.InvokeTool(invocation("run", arguments), metadata=keys.metadata())).finished


async def test_a_module_reads_its_arguments_and_prints_its_result(stub: Any, keys: Keys) -> None:
    finished = await called(stub, keys, tool(ECHO), text="ünï", number=7)
    assert json_format.MessageToDict(finished.result) == {"text": "ünï", "number": 7.0}
    assert finished.isolation == "bubblewrap+seccomp+rlimits+wasmtime"


async def test_a_module_has_no_folder(stub: Any, keys: Keys) -> None:
    assert (await called(stub, keys, tool(OPEN))).result.number_value == 8


@pytest.mark.parametrize(
    ("text", "limits", "status", "why"),
    [
        (LOOP, {"timeout": "0.4s"}, "TIMEOUT", "ran longer"),
        (LOOP, {"fuel": 100_000}, "USER_ERROR", "more instructions than its fuel allows"),
        (GROW, {"memoryLimitMib": 64}, "USER_ERROR", "trapped"),
        (EXIT, {}, "USER_ERROR", "status 3"),
        (FOREIGN, {}, "USER_ERROR", "env::system"),
        (NO_START, {}, "USER_ERROR", "_start"),
    ],
)
async def test_what_a_module_may_not_do_ends_it(
    stub: Any, keys: Keys, text: str, limits: dict[str, Any], status: str, why: str
) -> None:
    await register(stub, keys, tool(text, **limits))
    failed = await refusal(stub.InvokeTool(invocation("run"), metadata=keys.metadata()))
    assert failed.facts["status"] == status
    assert why in failed.message


async def test_memory_up_to_its_limit_is_a_modules_own(stub: Any, keys: Keys) -> None:
    assert not (await called(stub, keys, tool(GROW, memoryLimitMib=128))).HasField("failure")


async def test_one_call_leaves_nothing_to_the_next(stub: Any, keys: Keys) -> None:
    await called(stub, keys, tool(ECHO), secret="first")
    second = await stub.InvokeTool(invocation("run", {}), metadata=keys.metadata())
    assert json_format.MessageToDict(second.finished.result) == {}


async def test_what_is_no_module_is_refused_at_registration(stub: Any, keys: Keys) -> None:
    bad = tool(ECHO)
    bad.wasm.module = b"print('hello')"
    refused = await refusal(register(stub, keys, bad))
    assert (said(refused), refused.field) == ((Code.INVALID_ARGUMENT, "FIELD_INVALID"), "tool.wasm.module")


async def test_a_module_comes_back_as_it_was_registered(stub: Any, keys: Keys) -> None:
    given = tool(ECHO, fuel=5, memoryLimitMib=32, timeout="2s")
    kept = await register(stub, keys, given)
    assert kept.wasm == given.wasm
