"""What a call passes on its way: roles, the operator's file, policy, rates, cache, names, what it may show."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf import json_format
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from structlog.testing import capture_logs

from agentnet.tools.v1 import tool_service_pb2 as pb
from services.tools.store_memory import MemoryToolStore
from shared.clock import FakeClock
from shared.identity import Grant
from tests.service.tools.calls import Code, events, invocation, refusal, register, said, tool
from tests.support.identity import Keys

COUNTER = "def adder(a=0, b=0):\n    import random\n    return random.random()\n"
RANDOM = {"code": COUNTER, "allowed_imports": ["random"]}


def call(stub: Any, keys: Keys, *, subject: str = "ada", roles: tuple[str, ...] = ("admin",), **asked: Any) -> Any:
    given = {"arguments": {"a": 1, "b": 1}} | asked
    return stub.InvokeTool(invocation(**given), metadata=keys.metadata(subject=subject, roles=roles))


ROLES = [
    ([], "Athena", ("tenant_user",), True),
    ([], "", ("admin",), True),
    ([], "", ("tenant_user",), False),
    (["viewer"], "", ("tenant_user",), True),
    (["viewer"], "", ("auditor",), True),
    (["viewer"], "Athena", ("admin",), False),
    (["agent"], "", ("admin",), False),
    (["batch_processor"], "", ("batch_processor",), True),
    (["batch_processor"], "", ("operator",), False),
    (["admin", "batch_processor"], "", ("operator",), True),
]


@pytest.mark.parametrize(("allowed", "agent", "roles", "admitted"), ROLES)
async def test_a_tool_says_which_roles_may_call_it(
    stub: Any, keys: Keys, allowed: list[str], agent: str, roles: tuple[str, ...], admitted: bool
) -> None:
    await register(stub, keys, tool(allowed_roles=allowed))
    asked = call(stub, keys, agent=agent, roles=roles)
    if admitted:
        assert (await asked).finished.result.number_value == 2
    else:
        assert said(await refusal(asked)) == (Code.PERMISSION_DENIED, "TOOL_NOT_ALLOWED")


@pytest.mark.parametrize(
    ("tools", "admitted"),
    [(None, True), ({"adder"}, True), ({"adder@1.0.0"}, True), ({"other"}, False), (set(), False)],
)
async def test_a_delegated_credential_reaches_the_tools_it_was_given_for(
    stub: Any, keys: Keys, tools: set[str] | None, admitted: bool
) -> None:
    await register(stub, keys, tool())
    grant = Grant(tools=None if tools is None else frozenset(tools), delegators=("ada",))
    given = invocation(arguments={"a": 1, "b": 1})
    asked = stub.InvokeTool(given, metadata=keys.metadata(subject="agent:Athena", grant=grant))
    if admitted:
        assert (await asked).finished.result.number_value == 2
    else:
        assert said(await refusal(asked)) == (Code.PERMISSION_DENIED, "TOOL_NOT_ALLOWED")


async def test_an_unknown_role_is_refused_when_it_is_registered(stub: Any, keys: Keys) -> None:
    error = await refusal(register(stub, keys, tool(allowed_roles=["emperor"])))
    assert (*said(error), error.field) == (Code.INVALID_ARGUMENT, "FIELD_INVALID", "tool.allowed_roles")


class TestNarrowed:
    """With an operator's file."""

    @pytest.fixture
    def narrowed(self) -> dict[str, Any]:
        return {"adder": {"allowed_agents": ["Athena"]}}

    async def test_the_operators_file_takes_away(self, stub: Any, keys: Keys) -> None:
        await register(stub, keys, tool(allowed_agents=["*"]))
        assert (await call(stub, keys)).finished.result.number_value == 2
        assert said(await refusal(call(stub, keys, agent="Apollo"))) == (Code.PERMISSION_DENIED, "TOOL_NOT_ALLOWED")


async def test_the_rate_of_one_user_leaves_the_others_theirs(stub: Any, keys: Keys, clock: FakeClock) -> None:
    await register(stub, keys, tool(user_rate_limit_per_min=1))
    await call(stub, keys)
    clock.advance(timedelta(seconds=20))
    error = await refusal(call(stub, keys))
    assert (*said(error), error.retry_after) == (Code.RESOURCE_EXHAUSTED, "OVERLOADED", timedelta(seconds=40))
    await call(stub, keys, subject="bob")
    clock.advance(timedelta(seconds=40))
    await call(stub, keys)


async def test_the_rate_of_a_tool_is_shared_by_its_users(stub: Any, keys: Keys) -> None:
    await register(stub, keys, tool(rate_limit_per_min=1))
    await call(stub, keys)
    assert said(await refusal(call(stub, keys, subject="bob"))) == (Code.RESOURCE_EXHAUSTED, "OVERLOADED")


async def test_a_cached_result_is_given_again_until_its_time_is_over(
    stub: Any, keys: Keys, clock: FakeClock, store: MemoryToolStore
) -> None:
    await register(stub, keys, tool(function=RANDOM, idempotent=True, cache_ttl="60s"))
    first, again, other = [await call(stub, keys, arguments=given) for given in ({"a": 1}, {"a": 1}, {"a": 2})]
    assert (first.cached, again.cached, other.cached) == (False, True, False)
    assert first.finished.result == again.finished.result != other.finished.result
    clock.advance(timedelta(seconds=60))
    assert not (await call(stub, keys, arguments={"a": 1})).cached
    recorded = [one.status for one in await store.invocations("acme", "adder@1.0.0")]
    assert sorted(recorded) == ["CACHED", "OK", "OK", "OK"]


@pytest.mark.parametrize("changes", [{"idempotent": True}, {"idempotent": True, "cache_ttl": "0s"}])
async def test_nothing_is_cached_that_was_not_asked_for(stub: Any, keys: Keys, changes: dict[str, Any]) -> None:
    await register(stub, keys, tool(function=RANDOM, **changes))
    answers = [await call(stub, keys) for _ in range(2)]
    assert answers[0].finished.result != answers[1].finished.result


async def test_only_idempotent_tools_may_be_cached(stub: Any, keys: Keys) -> None:
    error = await refusal(register(stub, keys, tool(cache_ttl="60s")))
    assert (*said(error), error.field) == (Code.INVALID_ARGUMENT, "FIELD_INVALID", "tool.cache_ttl")


async def test_a_call_with_a_name_is_done_once_and_its_outcome_told_again(stub: Any, keys: Keys) -> None:
    await register(stub, keys, tool(function=RANDOM))
    first, again = [await call(stub, keys, request_id="req_1") for _ in range(2)]
    assert (first.replayed, again.replayed) == (False, True)
    assert first.finished.result == again.finished.result
    assert (await call(stub, keys, request_id="req_2")).finished.result != first.finished.result


async def test_a_failure_is_told_again_as_well(stub: Any, keys: Keys) -> None:
    await register(stub, keys, tool("def adder(a, b):\n    return a / 0\n"))
    errors = [await refusal(call(stub, keys, request_id="req_1")) for _ in range(2)]
    assert [(said(error), error.message) for error in errors] == [
        ((Code.FAILED_PRECONDITION, "FUNCTION_FAILED"), "ZeroDivisionError: division by zero")
    ] * 2


async def test_a_name_that_came_with_another_call_is_refused(stub: Any, keys: Keys) -> None:
    await register(stub, keys, tool())
    await call(stub, keys, request_id="req_1")
    error = await refusal(call(stub, keys, request_id="req_1", arguments={"a": 5, "b": 5}))
    assert (*said(error), error.field) == (Code.ALREADY_EXISTS, "REQUEST_ID_REUSED", "request_id")


async def test_the_same_call_twice_at_once_is_done_once(stub: Any, keys: Keys) -> None:
    code = "def adder(a, b):\n    import time\n    time.sleep(0.5)\n    return 1\n"
    await register(stub, keys, tool(function={"code": code, "allowed_imports": ["time"]}))
    first = asyncio.ensure_future(call(stub, keys, request_id="req_1"))
    await asyncio.sleep(0.2)
    assert said(await refusal(call(stub, keys, request_id="req_1"))) == (Code.ABORTED, "TOOL_CALL_IN_PROGRESS")
    assert not (await first).replayed
    assert (await call(stub, keys, request_id="req_1")).replayed


async def test_calls_run_beside_each_other(stub: Any, keys: Keys) -> None:
    slow = {"code": "def adder(a, b):\n    import time\n    time.sleep(0.5)\n    return time.monotonic()\n",
            "allowed_imports": ["time"]}  # fmt: skip
    await register(stub, keys, tool(function=slow))
    answers = await asyncio.gather(*(call(stub, keys) for _ in range(2)))
    ends = [answer.finished.result.number_value for answer in answers]
    assert abs(ends[0] - ends[1]) < 0.5


async def test_a_minimum_of_isolation_that_is_not_there_fails_closed(stub: Any, keys: Keys) -> None:
    await register(stub, keys, tool(min_isolation="vm"))
    error = await refusal(call(stub, keys))
    assert said(error) == (Code.FAILED_PRECONDITION, "SANDBOX_UNAVAILABLE")
    assert error.facts == {"demanded": "vm", "present": "namespaces"}


async def test_a_function_that_wants_it_is_told_its_context(stub: Any, keys: Keys) -> None:
    code = "def adder(a, b, context):\n    return context\n"
    await register(stub, keys, tool(function={"code": code, "requires_context": True}))
    answer = await call(stub, keys, session_id="ses_1", turn_id="trn_1")
    told = json_format.MessageToDict(answer.finished.result)
    assert told == {
        "tenant_id": "acme", "subject": "ada", "agent": "Athena", "session_id": "ses_1", "turn_id": "trn_1",
        "tool": "adder@1.0.0", "invocation_id": answer.invocation_id, "working_dir": "/tmp",
    }  # fmt: skip


async def test_the_working_folder_is_the_calls_own(stub: Any, keys: Keys) -> None:
    code = (
        "def adder(a, b, context):\n    import os, pathlib\n    found = os.listdir(context['working_dir'])\n"
        "    pathlib.Path('notes.txt').write_text('mine')\n    return [found, os.listdir('.')]\n"
    )
    function = {"code": code, "requires_context": True, "allowed_imports": ["os", "pathlib"]}
    await register(stub, keys, tool(function=function))
    for _ in range(2):
        answer = await call(stub, keys)
        assert json_format.MessageToDict(answer.finished.result) == [[], ["notes.txt"]]


async def test_without_safe_mode_only_the_sandbox_holds(stub: Any, keys: Keys) -> None:
    code = "import base64\ndef adder(a, b):\n    return len(open('/etc/passwd').read())\n"
    assert said(await refusal(register(stub, keys, tool(code)))) == (Code.INVALID_ARGUMENT, "FUNCTION_REJECTED")
    await register(stub, keys, tool(function={"code": code, "safe_mode": False}))
    error = await refusal(call(stub, keys))
    assert "No such file" in error.message


async def test_a_stream_of_a_named_call_tells_the_outcome_again(stub: Any, keys: Keys) -> None:
    await register(stub, keys, tool(function=RANDOM))
    first, again = [await events(stub, keys, invocation(request_id="req_1")) for _ in range(2)]
    assert first[-1].finished.result == again[-1].finished.result
    assert [found[-1].finished.replayed for found in (first, again)] == [False, True]


async def test_what_is_printed_holds_no_control_sequences(stub: Any, keys: Keys) -> None:
    await register(stub, keys, tool("def adder(a, b):\n    print('\\x1b[31mred\\x1b[0m\\x00')\n"))
    assert (await call(stub, keys)).stdout == "red\n"


async def test_binary_output_is_text_in_the_end(stub: Any, keys: Keys) -> None:
    code = "import os\ndef adder(a, b):\n    os.write(1, bytes(range(256)))\n    return 'ok'\n"
    await register(stub, keys, tool(function={"code": code, "allowed_imports": ["os"]}))
    answer = await call(stub, keys)
    assert answer.finished.result.string_value == "ok"
    assert "ABC" in answer.stdout
    assert "\ufffd" in answer.stdout


@pytest.fixture(scope="session")
def reader() -> Iterator[InMemoryMetricReader]:
    reader = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))
    yield reader
    reader.shutdown()


async def test_calls_are_counted_by_tool_and_status(stub: Any, keys: Keys, reader: InMemoryMetricReader) -> None:
    name = "counted"
    await register(stub, keys, tool(name=name, function={"code": "def counted(a, b):\n    return a / b\n"}))
    for b in (1, 0):
        wanted = stub.InvokeTool(pb.InvokeToolRequest(
            name=name, agent="Athena", arguments=json_format.ParseDict({"a": 1, "b": b}, pb.InvokeToolRequest().arguments)
        ), metadata=keys.metadata())  # fmt: skip
        await (wanted if b else refusal(wanted))
    found = reader.get_metrics_data()
    assert found is not None
    points = [
        point for resource in found.resource_metrics for scope in resource.scope_metrics for metric in scope.metrics
        if metric.name == "tool_invocations_total" for point in metric.data.data_points
    ]  # fmt: skip
    counted = {point.attributes["status"]: point.value for point in points if point.attributes["tool_name"] == name}
    assert counted == {"OK": 1, "USER_ERROR": 1}


async def test_what_looks_like_an_escape_is_logged(stub: Any, keys: Keys) -> None:
    function = {"code": "def adder(a, b):\n    import os\n    os.fork()\n", "allowed_imports": ["os"]}
    await register(stub, keys, tool(function=function))
    with capture_logs() as logged:
        await refusal(call(stub, keys))
        await refusal(register(stub, keys, tool("import os\ndef adder(): pass\n", version="2.0.0")))
    found = {entry["event"]: entry for entry in logged}
    assert found["tool.security"]["status"] == "DENIED"
    assert "function.rejected" in found


EMITTING = """
def adder(a, b):
    emit('progress', {'done': a})
    print('between', flush=True)
    emit('progress', {'done': a + b})
    return 'end'
"""


async def test_a_function_emits_events_while_it_runs(stub: Any, keys: Keys) -> None:
    await register(stub, keys, tool(EMITTING))
    answer = await call(stub, keys)
    told = [(one.kind, json_format.MessageToDict(one.data)) for one in answer.emitted]
    assert told == [("progress", {"done": 1}), ("progress", {"done": 2})]
    found = await events(stub, keys, invocation(arguments={"a": 1, "b": 1}))
    kinds = [event.WhichOneof("event") for event in found]
    assert sorted(kinds[1:-1]) == ["emitted", "emitted", "output"]
    assert [event.sequence for event in found] == list(range(1, len(found) + 1))


BAD_EVENTS = {
    "too many": ("for n in range(300): emit('x')", "USER_ERROR", "at most 256 events"),
    "too large": ("emit('x', 'y' * 20_000)", "USER_ERROR", "at most 16384 bytes"),
    "not JSON": ("emit('x', {1, 2})", "USER_ERROR", "not JSON serializable"),
    "not a number": ("emit('x', float('nan'))", "USER_ERROR", "not JSON compliant"),
    "forged": ("import os; os.write(3, b'rubbish\\n')", "CRASHED", "where only its runner may"),
    "forged again": ("import os; os.write(3, b'{}\\n' * 9)", "CRASHED", "where only its runner may"),
}


@pytest.mark.parametrize(("line", "status", "message"), BAD_EVENTS.values(), ids=BAD_EVENTS.keys())
async def test_an_event_at_fault_is_the_functions_error(
    stub: Any, keys: Keys, line: str, status: str, message: str
) -> None:
    await register(stub, keys, tool(function={"code": f"def adder(a, b):\n    {line}\n", "allowed_imports": ["os"]}))
    error = await refusal(call(stub, keys))
    assert error.facts["status"] == status
    assert message in error.message


async def test_what_is_validated_is_what_runs(stub: Any, keys: Keys) -> None:
    """A key that comes twice is refused where JSON is read, so that validator and function cannot see different ones."""
    with pytest.raises(json_format.ParseError, match="duplicate key"):
        json_format.Parse('{"name": "adder", "arguments": {"a": 1, "a": 1000000}}', pb.InvokeToolRequest())
    schema = {"type": "object", "properties": {"a": {"type": "integer", "maximum": 10}}}
    await register(stub, keys, tool("def adder(a):\n    return a\n", input_schema=schema))
    assert (await call(stub, keys, arguments={"a": 10})).finished.result.number_value == 10
    error = await refusal(call(stub, keys, arguments={"a": 1000000}))
    assert (*said(error), error.field) == (Code.INVALID_ARGUMENT, "TOOL_ARGUMENTS_INVALID", "arguments.a")
