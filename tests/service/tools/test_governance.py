"""The life of a tool over a real port: states, levels, approvals, quotas, audit."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from google.protobuf import json_format

from agentnet.tools.v1 import governance_pb2 as gov
from agentnet.tools.v1 import tool_pb2
from agentnet.tools.v1 import tool_service_pb2 as pb
from shared.clock import FakeClock
from tests.service.tools.calls import Code, invocation, refusal, register, said, tool
from tests.support.identity import Keys

RESTRICTED, CONFIDENTIAL = tool_pb2.GOVERNANCE_LEVEL_RESTRICTED, tool_pb2.GOVERNANCE_LEVEL_CONFIDENTIAL
ORDER = ["testing", "approved", "active", "deprecated", "retired"]
STATES = {name.removeprefix("TOOL_STATE_").lower(): value for name, value in tool_pb2.ToolState.items()}
NAMES = {value: name for name, value in STATES.items()}
AUTHOR, FIRST, SECOND = "ada", "bob", "eve"


async def move(stub: Any, keys: Keys, state: str, *, name: str = "adder", who: str = AUTHOR, note: str = "") -> str:
    request = gov.SetToolStateRequest(name=name, state=STATES[state], note=note)
    answer = await stub.SetToolState(request, metadata=keys.metadata(subject=who))
    return NAMES[answer.tool.state]


async def review(stub: Any, keys: Keys, who: str, *, approve: bool = True, note: str = "") -> tuple[str, int]:
    request = gov.ReviewToolRequest(name="adder", approve=approve, note=note)
    answer = await stub.ReviewTool(request, metadata=keys.metadata(subject=who))
    return NAMES[answer.tool.state], answer.missing


async def governed(stub: Any, keys: Keys, level: int = RESTRICTED, **changes: Any) -> None:
    await register(stub, keys, tool(governance_level=level, **changes))


def call(stub: Any, keys: Keys, *, agent: str = "Athena", **changes: Any) -> Any:
    return stub.InvokeTool(invocation(arguments={"a": 1, "b": 1}, agent=agent, **changes), metadata=keys.metadata())


@pytest.mark.parametrize("level", ["GOVERNANCE_LEVEL_PUBLIC", "GOVERNANCE_LEVEL_INTERNAL", None])
async def test_what_needs_no_approval_is_active_at_once(stub: Any, keys: Keys, level: str | None) -> None:
    registered = await register(stub, keys, tool(**({"governance_level": level} if level else {})))
    assert NAMES[registered.state] == "active"
    assert (await call(stub, keys)).finished.result.number_value == 2


@pytest.mark.parametrize("level", [RESTRICTED, CONFIDENTIAL])
async def test_what_needs_approval_starts_as_a_draft_that_nobody_calls(stub: Any, keys: Keys, level: int) -> None:
    await governed(stub, keys, level)
    for agent in ("Athena", ""):
        error = await refusal(call(stub, keys, agent=agent))
        assert (*said(error), error.facts["state"]) == (Code.FAILED_PRECONDITION, "TOOL_STATE_INVALID", "draft")


async def test_a_tool_that_is_tested_is_called_by_people_and_not_by_agents(stub: Any, keys: Keys) -> None:
    await governed(stub, keys)
    await move(stub, keys, "testing")
    assert (await call(stub, keys, agent="")).finished.result.number_value == 2
    assert said(await refusal(call(stub, keys))) == (Code.FAILED_PRECONDITION, "TOOL_STATE_INVALID")


async def test_a_restricted_tool_goes_through_its_whole_life(stub: Any, keys: Keys) -> None:
    await governed(stub, keys)
    assert await move(stub, keys, "testing") == "testing"
    assert await review(stub, keys, FIRST) == ("approved", 0)
    assert [await move(stub, keys, state) for state in ORDER[2:]] == ORDER[2:]


@pytest.mark.parametrize(
    ("at", "wanted"),
    [
        ("draft", "approved"), ("draft", "active"), ("draft", "deprecated"), ("draft", "draft"),
        ("testing", "active"), ("testing", "draft"), ("approved", "testing"), ("approved", "deprecated"),
        ("active", "draft"), ("active", "approved"), ("active", "quarantined"), ("deprecated", "active"),
        ("retired", "active"), ("retired", "draft"),
    ],
)  # fmt: skip
async def test_an_illegal_step_is_refused_with_the_legal_ones(stub: Any, keys: Keys, at: str, wanted: str) -> None:
    await governed(stub, keys)
    for state in ORDER[: ORDER.index(at) + 1] if at != "draft" else []:
        await (review(stub, keys, FIRST) if state == "approved" else move(stub, keys, state))
    error = await refusal(move(stub, keys, wanted))
    assert (*said(error), error.facts["state"]) == (Code.FAILED_PRECONDITION, "TOOL_STATE_INVALID", at)
    assert wanted not in error.facts["allowed"].split(",")


@pytest.mark.parametrize("at", ["draft", "testing", "approved", "active", "deprecated"])
async def test_every_state_may_be_left_for_good(stub: Any, keys: Keys, at: str) -> None:
    await governed(stub, keys)
    for state in ORDER[: ORDER.index(at) + 1] if at != "draft" else []:
        await (review(stub, keys, FIRST) if state == "approved" else move(stub, keys, state))
    assert await move(stub, keys, "retired") == "retired"
    assert said(await refusal(call(stub, keys))) == (Code.FAILED_PRECONDITION, "TOOL_STATE_INVALID")


async def test_a_restricted_tool_is_not_approved_without_a_review(stub: Any, keys: Keys) -> None:
    await governed(stub, keys)
    await move(stub, keys, "testing")
    error = await refusal(move(stub, keys, "approved"))
    assert (*said(error), error.facts["missing"]) == (Code.FAILED_PRECONDITION, "TOOL_APPROVAL_MISSING", "1")


async def test_a_confidential_tool_needs_two_persons(stub: Any, keys: Keys) -> None:
    await governed(stub, keys, CONFIDENTIAL)
    await move(stub, keys, "testing")
    assert await review(stub, keys, FIRST) == ("testing", 1)
    assert said(await refusal(review(stub, keys, FIRST))) == (Code.PERMISSION_DENIED, "TOOL_NOT_ALLOWED")
    assert await review(stub, keys, SECOND) == ("approved", 0)


async def test_nobody_approves_a_tool_of_their_own(stub: Any, keys: Keys) -> None:
    await governed(stub, keys)
    await move(stub, keys, "testing", who=FIRST)
    assert said(await refusal(review(stub, keys, AUTHOR))) == (Code.PERMISSION_DENIED, "TOOL_NOT_ALLOWED")


async def test_only_what_is_tested_is_reviewed(stub: Any, keys: Keys) -> None:
    await governed(stub, keys)
    assert said(await refusal(review(stub, keys, FIRST))) == (Code.FAILED_PRECONDITION, "TOOL_STATE_INVALID")


async def test_a_rejection_sends_it_back_and_earlier_approvals_are_void(stub: Any, keys: Keys) -> None:
    await governed(stub, keys, CONFIDENTIAL)
    await move(stub, keys, "testing")
    await review(stub, keys, FIRST)
    assert (await review(stub, keys, SECOND, approve=False, note="too broad"))[0] == "draft"
    await move(stub, keys, "testing")
    assert await review(stub, keys, FIRST) == ("testing", 1)


async def test_the_audit_tells_who_did_what_when_and_why(stub: Any, keys: Keys, clock: FakeClock) -> None:
    await governed(stub, keys, changelog="The first.")
    for step in (move(stub, keys, "testing", note="ready"), review(stub, keys, FIRST, note="fine")):
        clock.advance(timedelta(seconds=1))
        await step
    clock.advance(timedelta(seconds=1))
    await move(stub, keys, "active")
    answer = await stub.ListToolAudit(gov.ListToolAuditRequest(name="adder"), metadata=keys.metadata())
    told = [(one.action, one.actor, one.from_state, one.to_state, one.note) for one in answer.entries]
    assert told == [
        ("registered", AUTHOR, "", "draft", "The first."),
        ("state", AUTHOR, "draft", "testing", "ready"),
        ("approved", FIRST, "testing", "approved", "fine"),
        ("state", AUTHOR, "approved", "active", ""),
    ]
    asked = gov.ListToolAuditRequest(name="adder", page_size=3)
    first = await stub.ListToolAudit(asked, metadata=keys.metadata())
    asked.page_token = first.next_page_token
    last = await stub.ListToolAudit(asked, metadata=keys.metadata())
    assert [*first.entries, *last.entries] == list(answer.entries)
    times = [one.create_time.ToDatetime() for one in answer.entries]
    assert times == sorted(set(times))


async def test_another_tenant_governs_nothing_of_ours(stub: Any, keys: Keys) -> None:
    await governed(stub, keys)
    other = keys.metadata("other")
    for asked in (
        stub.SetToolState(gov.SetToolStateRequest(name="adder", state=STATES["testing"]), metadata=other),
        stub.ReviewTool(gov.ReviewToolRequest(name="adder", approve=True), metadata=other),
        stub.ListToolAudit(gov.ListToolAuditRequest(name="adder"), metadata=other),
        stub.GetToolUsage(gov.GetToolUsageRequest(name="adder"), metadata=other),
    ):
        assert said(await refusal(asked)) == (Code.NOT_FOUND, "TOOL_NOT_FOUND")


async def test_a_deprecated_version_still_works_and_says_so(stub: Any, keys: Keys) -> None:
    await register(stub, keys, tool())
    await move(stub, keys, "deprecated")
    assert (await call(stub, keys)).finished.result.number_value == 2
    listed = await stub.ListTools(pb.ListToolsRequest(state=STATES["deprecated"]), metadata=keys.metadata())
    assert [one.name for one in listed.tools] == ["adder"]


async def test_agents_get_the_newest_version_that_is_in_use(stub: Any, keys: Keys) -> None:
    await register(stub, keys, tool("def adder(a, b):\n    return 1\n", version="1.0.0"))
    await register(stub, keys, tool("def adder(a, b):\n    return 2\n", version="2.0.0", governance_level=RESTRICTED))
    assert (await call(stub, keys)).finished.result.number_value == 1
    await move(stub, keys, "testing", name="adder@2.0.0")
    assert (await call(stub, keys, agent="")).finished.result.number_value == 2


@pytest.mark.parametrize(("quota", "left"), [("quota_total", "total"), ("quota_per_day", "day")])
async def test_a_quota_that_is_used_up_refuses(stub: Any, keys: Keys, clock: FakeClock, quota: str, left: str) -> None:
    await register(stub, keys, tool(**{quota: 1}))
    await call(stub, keys)
    error = await refusal(call(stub, keys))
    assert (*said(error), error.facts["quota"]) == (Code.RESOURCE_EXHAUSTED, "TOOL_QUOTA_EXHAUSTED", left)
    clock.advance(timedelta(days=1))
    if left == "day":
        assert (await call(stub, keys)).finished.result.number_value == 2
    else:
        assert said(await refusal(call(stub, keys))) == (Code.RESOURCE_EXHAUSTED, "TOOL_QUOTA_EXHAUSTED")


async def test_usage_is_counted_with_how_calls_ended_and_how_long_they_took(stub: Any, keys: Keys) -> None:
    await register(stub, keys, tool("def adder(a, b):\n    return 1 / b\n"))
    for b in (1, 1, 0):
        request = invocation(arguments={"a": 1, "b": b})
        wanted = stub.InvokeTool(request, metadata=keys.metadata())
        await (wanted if b else refusal(wanted))
    usage = (await stub.GetToolUsage(gov.GetToolUsageRequest(name="adder"), metadata=keys.metadata())).usage
    assert (usage.tool, usage.total, usage.today) == ("adder@1.0.0", 3, 3)
    assert dict(usage.by_status) == {"OK": 2, "USER_ERROR": 1}
    assert timedelta() < usage.p50.ToTimedelta() <= usage.p95.ToTimedelta() <= usage.p99.ToTimedelta()


async def test_a_state_is_required_and_must_be_one(stub: Any, keys: Keys) -> None:
    await register(stub, keys, tool())
    for state, reason in ((0, "FIELD_REQUIRED"), (99, "FIELD_INVALID")):
        request = gov.SetToolStateRequest(name="adder", state=state)  # type: ignore[arg-type] # on purpose
        error = await refusal(stub.SetToolState(request, metadata=keys.metadata()))
        assert (*said(error), error.field) == (Code.INVALID_ARGUMENT, reason, "state")


FINDABLE = {
    "web_search": {"tags": ["internet"], "description": "Finds pages."},
    "page_reader": {"tags": ["internet", "search"], "description": "Reads one page."},
    "adder": {"description": "Adds numbers; never used to search."},
}


async def test_tools_are_found_by_words_the_best_match_first(stub: Any, keys: Keys) -> None:
    for name, given in FINDABLE.items():
        await register(stub, keys, tool(name=name, function={"code": f"def {name}(): pass"}, **given))

    async def found(**asked: Any) -> list[str]:
        answer = await stub.ListTools(pb.ListToolsRequest(**asked), metadata=keys.metadata())
        return [one.name for one in answer.tools]

    assert await found(query="search") == ["web_search", "page_reader", "adder"]
    assert await found(query="numbers") == ["adder"]
    assert await found(tag="internet") == ["page_reader", "web_search"]
    assert await found(query="nothing of the kind") == []


EXAMPLE = {"description": "One and two.", "arguments": {"a": 1, "b": 2}, "result": 3}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a"]}


async def schemas(stub: Any, keys: Keys, **asked: Any) -> dict[str, Any]:
    answer = await stub.GetToolSchemas(gov.GetToolSchemasRequest(**asked), metadata=keys.metadata())
    return json_format.MessageToDict(answer.document)


async def test_a_tool_describes_itself_as_openapi_with_its_examples(stub: Any, keys: Keys) -> None:
    await register(
        stub, keys, tool(input_schema=SCHEMA, output_schema={"type": "integer"}, examples=[EXAMPLE], tags=["sums"])
    )
    document = await schemas(stub, keys)
    operation = document["paths"]["/tools/adder"]["post"]
    body = operation["requestBody"]["content"]["application/json"]
    assert (document["openapi"], operation["operationId"], operation["tags"]) == ("3.1.0", "adder", ["sums"])
    assert (body["schema"], body["examples"]["example1"]["value"]) == (SCHEMA, {"a": 1, "b": 2})
    assert operation["responses"]["200"]["content"]["application/json"]["schema"] == {"type": "integer"}


async def test_a_tool_describes_itself_for_function_calling_and_for_mcp(stub: Any, keys: Keys) -> None:
    await register(stub, keys, tool(input_schema=SCHEMA, description="Adds."))
    (openai,) = (await schemas(stub, keys, format="openai"))["tools"]
    (mcp,) = (await schemas(stub, keys, format="mcp"))["tools"]
    assert openai == {
        "type": "function", "function": {"name": "adder", "description": "Adds.", "parameters": SCHEMA},
    }  # fmt: skip
    assert (mcp["name"], mcp["inputSchema"], mcp["description"]) == ("adder", SCHEMA, "Adds.")


async def test_only_what_an_agent_may_call_is_described_to_it(stub: Any, keys: Keys) -> None:
    await register(stub, keys, tool())
    assert (await schemas(stub, keys, format="mcp", agent="Zeus"))["tools"] == []
    assert len((await schemas(stub, keys, format="mcp", agent="Athena"))["tools"]) == 1
    await move(stub, keys, "retired")
    assert (await schemas(stub, keys, format="mcp"))["tools"] == []


async def test_an_unknown_format_is_refused(stub: Any, keys: Keys) -> None:
    error = await refusal(stub.GetToolSchemas(gov.GetToolSchemasRequest(format="wsdl"), metadata=keys.metadata()))
    assert (*said(error), error.field) == (Code.INVALID_ARGUMENT, "FIELD_INVALID", "format")


async def test_an_example_that_does_not_fit_its_schema_names_the_path(stub: Any, keys: Keys) -> None:
    wrong = EXAMPLE | {"arguments": {"a": "one"}}
    error = await refusal(register(stub, keys, tool(input_schema=SCHEMA, examples=[wrong])))
    assert (*said(error), error.field) == (Code.INVALID_ARGUMENT, "FIELD_INVALID", "tool.examples.0.arguments.a")


async def test_the_pin_of_the_schemas_changes_with_them_alone(stub: Any, keys: Keys) -> None:
    pins = [
        (await register(stub, keys, tool(version=f"1.0.{place}", **changes))).schema_hash
        for place, changes in enumerate(({}, {"description": "x"}, {"input_schema": SCHEMA}))
    ]
    assert pins[0] == pins[1] != pins[2]
    assert len(pins[0]) == 64
