"""Registering and finding tools over a real port: what is kept, and what is refused and why."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from google.protobuf import json_format

from agentnet.tools.v1 import tool_pb2
from agentnet.tools.v1 import tool_service_pb2 as pb
from shared.clock import FakeClock
from tests.service.tools.calls import ADDER, Code, invocation, refusal, register, said, tool
from tests.support.forged import NUMBERS, forged
from tests.support.identity import Keys

SEED = {
    "name": "web_search",
    "input_schema": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
    "rate_limit_per_min": 30,
    "exec_mode": "external_api",
    "auth": {"type": "api_key_ref", "key_id": "serpapi_key"},
    "allowed_agents": ["Athena", "*"],
}


async def test_a_tool_as_the_seed_writes_it_is_registered(stub: Any, keys: Keys) -> None:
    registered = await register(stub, keys, json_format.ParseDict(SEED, tool_pb2.Tool()))
    found = json_format.MessageToDict(registered, preserving_proto_field_name=True)
    assert {name: found[name] for name in SEED} == SEED
    assert registered.version == "1.0.0"


async def test_a_function_gets_its_defaults_and_its_hash(stub: Any, keys: Keys) -> None:
    function = (await register(stub, keys, tool())).function
    assert (function.entry_point, function.memory_limit_mib, function.timeout.seconds) == ("adder", 512, 30)
    assert list(function.allowed_imports) == ["json", "datetime", "math", "re", "collections", "itertools", "functools"]
    assert len(function.code_hash) == 64


async def test_a_version_is_registered_once(stub: Any, keys: Keys) -> None:
    await register(stub, keys, tool())
    assert said(await refusal(register(stub, keys, tool(description="other")))) == (
        Code.ALREADY_EXISTS,
        "TOOL_VERSION_EXISTS",
    )


REFUSED = {
    "no name": ({"name": ""}, "FIELD_REQUIRED", "tool.name"),
    "a name that is a path": ({"name": "../../etc/cron.d/x"}, "FIELD_INVALID", "tool.name"),
    "a version that is none": ({"version": "latest"}, "FIELD_INVALID", "tool.version"),
    "an unknown mode": ({"exec_mode": "telepathy"}, "FIELD_INVALID", "tool.exec_mode"),
    "python without a function": ({"function": None}, "FIELD_REQUIRED", "tool.function"),
    "a secret in the open": ({"auth": {"type": "password", "key_id": "x"}}, "FIELD_INVALID", "tool.auth.type"),
    "a reference without a name": ({"auth": {"type": "api_key_ref"}}, "FIELD_REQUIRED", "tool.auth.key_id"),
    "an agent without a name": ({"allowed_agents": [""]}, "FIELD_REQUIRED", "tool.allowed_agents"),
    "an agent with U+0000": ({"allowed_agents": ["a\x00"]}, "FIELD_INVALID", "tool.allowed_agents"),
    "too many agents": ({"allowed_agents": ["a"] * 257}, "FIELD_TOO_LONG", "tool.allowed_agents"),
    "a schema that is none": ({"input_schema": {"type": "nope"}}, "FIELD_INVALID", "tool.input_schema"),
    "a schema that reaches out": ({"input_schema": {"$ref": "http://host/x"}}, "FIELD_INVALID", "tool.input_schema"),
    "a schema with U+0000": ({"input_schema": {"title": "a\x00"}}, "FIELD_INVALID", "tool.input_schema"),
    "a result schema that is none": ({"output_schema": {"type": "nope"}}, "FIELD_INVALID", "tool.output_schema"),
    "a negative rate": ({"rate_limit_per_min": -1}, "FIELD_INVALID", "tool.rate_limit_per_min"),
    "little memory": (
        {"function": {"code": ADDER, "memory_limit_mib": 1}}, "FIELD_INVALID", "tool.function.memory_limit_mib",
    ),
    "much time": ({"function": {"code": ADDER, "timeout": "601s"}}, "FIELD_INVALID", "tool.function.timeout"),
    "no code": ({"function": {"code": " "}}, "FIELD_REQUIRED", "tool.function.code"),
    "forbidden code": (
        {"function": {"code": "import os\ndef adder(): pass\n"}}, "FUNCTION_REJECTED", "tool.function.code",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "reason", "field"), REFUSED.values(), ids=REFUSED.keys())
async def test_a_tool_at_fault_is_refused_with_its_field(
    stub: Any, keys: Keys, changes: dict[str, Any], reason: str, field: str
) -> None:
    error = await refusal(register(stub, keys, tool(**changes)))
    assert (error.code, error.reason_name, error.field) == (Code.INVALID_ARGUMENT, reason, field)


async def test_rejected_code_names_its_line(stub: Any, keys: Keys) -> None:
    error = await refusal(register(stub, keys, tool("def adder():\n    return eval('1')\n")))
    assert said(error) == (Code.INVALID_ARGUMENT, "FUNCTION_REJECTED")
    assert error.facts["line"] == "2"
    assert "line 2: eval is not allowed" in error.message


async def test_the_newest_version_is_found_by_number_and_not_by_text(stub: Any, keys: Keys) -> None:
    for version in ("1.9.0", "1.10.0"):
        await register(stub, keys, tool(version=version))
    newest = await stub.GetTool(pb.GetToolRequest(name="adder"), metadata=keys.metadata())
    chosen = await stub.GetTool(pb.GetToolRequest(name="adder@1.9.0"), metadata=keys.metadata())
    assert (newest.tool.version, chosen.tool.version) == ("1.10.0", "1.9.0")


async def test_a_tool_of_another_tenant_is_not_found(stub: Any, keys: Keys) -> None:
    await register(stub, keys, tool(allowed_agents=["*"]))
    other = keys.metadata("other")
    read = stub.GetTool(pb.GetToolRequest(name="adder"), metadata=other)
    call = stub.InvokeTool(invocation(arguments={"a": 1, "b": 2}), metadata=other)
    assert said(await refusal(read)) == (Code.NOT_FOUND, "TOOL_NOT_FOUND")
    assert said(await refusal(call)) == (Code.NOT_FOUND, "TOOL_NOT_FOUND")
    assert not (await stub.ListTools(pb.ListToolsRequest(), metadata=other)).tools


async def test_a_list_comes_in_pages(stub: Any, keys: Keys) -> None:
    for name in ("c", "a", "b"):
        await register(stub, keys, tool(name=name, function={"code": ADDER, "entry_point": "adder"}))
    first = await stub.ListTools(pb.ListToolsRequest(page_size=2), metadata=keys.metadata())
    rest = await stub.ListTools(
        pb.ListToolsRequest(page_size=2, page_token=first.next_page_token), metadata=keys.metadata()
    )
    assert [[one.name for one in page.tools] for page in (first, rest)] == [["a", "b"], ["c"]]
    assert not rest.next_page_token


async def test_a_list_is_filtered_by_agent_and_mode_and_sorted_by_time(stub: Any, keys: Keys, clock: FakeClock) -> None:
    await register(stub, keys, tool(name="for_all", exec_mode="sql", function=None, allowed_agents=["*"]))
    clock.advance(timedelta(seconds=1))
    await register(stub, keys, tool())
    clock.advance(timedelta(seconds=1))
    await register(stub, keys, tool(name="secret", exec_mode="sql", function=None, allowed_agents=[]))

    async def names(*, agent: str = "", exec_mode: str = "", order_by: str = "") -> list[str]:
        request = pb.ListToolsRequest(agent=agent, exec_mode=exec_mode, order_by=order_by)
        answer = await stub.ListTools(request, metadata=keys.metadata())
        return [one.name for one in answer.tools]

    assert await names(agent="Athena") == ["adder", "for_all"]
    assert await names(agent="Zeus") == ["for_all"]
    assert await names(exec_mode="sql") == ["for_all", "secret"]
    assert await names(order_by="create_time desc") == ["secret", "adder", "for_all"]


async def test_a_page_token_of_another_list_is_refused(stub: Any, keys: Keys) -> None:
    for version in ("1.0.0", "1.0.1"):
        await register(stub, keys, tool(version=version))
    first = await stub.ListTools(pb.ListToolsRequest(page_size=1), metadata=keys.metadata())
    wrong = pb.ListToolsRequest(page_size=1, page_token=first.next_page_token, exec_mode="python")
    assert said(await refusal(stub.ListTools(wrong, metadata=keys.metadata()))) == (
        Code.INVALID_ARGUMENT,
        "PAGE_TOKEN_INVALID",
    )
    for cursor in NUMBERS:
        wrong = pb.ListToolsRequest(page_token=forged(first.next_page_token, cursor))
        error = await refusal(stub.ListTools(wrong, metadata=keys.metadata()))
        assert (*said(error), error.field) == (Code.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID", "page_token")


async def test_an_order_that_is_none_is_refused(stub: Any, keys: Keys) -> None:
    error = await refusal(stub.ListTools(pb.ListToolsRequest(order_by="size"), metadata=keys.metadata()))
    assert (*said(error), error.field) == (Code.INVALID_ARGUMENT, "FIELD_INVALID", "order_by")
