"""Tools that leave the mesh, against real servers on the loopback that the list allows."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf import json_format

from agentnet.tools.v1 import tool_pb2
from services.tools.egress import Egress
from services.tools.executor import Executor
from services.tools.http_api import HttpExecutor
from services.tools.secrets import Secrets
from services.tools.store_memory import MemoryToolStore
from shared.clock import FakeClock
from tests.service.tools.api import SECRET, Api, bomb
from tests.service.tools.attacking import LITTLE, resident
from tests.service.tools.calls import Code, invocation, refusal, register, said
from tests.support.identity import Keys


@pytest.fixture
def executors(secrets: Secrets) -> dict[str, Executor]:
    async def resolve(host: str, _port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    allowed = Egress(["127.0.0.1/32", "api.test", "*.public.test"], resolve=resolve)
    return {"external_api": HttpExecutor(allowed, secrets)}


def tool(api: Api, path: str = "/search", **changes: Any) -> tool_pb2.Tool:
    http = {"url": f"http://127.0.0.1:{api.port}{path}", "timeout": "2s"} | changes.pop("http", {})
    given = {"name": "web_search", "exec_mode": "external_api", "allowed_agents": ["*"], "http": http}
    return json_format.ParseDict(given | changes, tool_pb2.Tool())


def call(stub: Any, keys: Keys, **asked: Any) -> Any:
    return stub.InvokeTool(invocation(**({"name": "web_search"} | asked)), metadata=keys.metadata())


async def test_an_api_is_asked_and_its_json_comes_back(stub: Any, keys: Keys, api: Api) -> None:
    api.answer = {"hits": [1, 2.5, None, "x"]}
    await register(stub, keys, tool(api, "/find/{topic}?lang=en"))
    answer = await call(stub, keys, arguments={"topic": "a b/c?", "page": 2, "deep": True})
    assert json_format.MessageToDict(answer.finished.result) == api.answer
    method, path, body, _ = api.asked[0]
    assert (method, path, body) == ("GET", "/find/a%20b%2Fc%3F?lang=en&deep=true&page=2", None)


async def test_what_is_not_in_the_address_goes_into_the_body(stub: Any, keys: Keys, api: Api) -> None:
    await register(
        stub,
        keys,
        tool(api, "/items/{id}", http={"method": "POST", "url": f"http://127.0.0.1:{api.port}/items/{{id}}"}),
    )
    await call(stub, keys, arguments={"id": "7", "tags": ["a"], "count": 1})
    assert api.asked[0][:3] == ("POST", "/items/7", {"tags": ["a"], "count": 1})


@pytest.mark.parametrize(
    ("header", "sent"), [("", ("Authorization", f"Bearer {SECRET}")), ("X-Key", ("X-Key", SECRET))]
)
async def test_a_secret_is_used_by_reference_and_never_shown(
    stub: Any, keys: Keys, api: Api, header: str, sent: tuple[str, str]
) -> None:
    api.answer = {"you sent": [SECRET]}
    auth = {"type": "api_key_ref", "key_id": "serpapi_key"}
    wanted = tool(api, auth=auth, http={"auth_header": header, "url": f"http://127.0.0.1:{api.port}/"})
    registered = await register(stub, keys, wanted)
    answer = await call(stub, keys)
    assert api.asked[0][3][sent[0]] == sent[1]
    assert json_format.MessageToDict(answer.finished.result) == {"you sent": ["[secret]"]}
    assert SECRET not in str(registered)
    api.statuses = [403]
    assert SECRET not in (await refusal(call(stub, keys))).message


@pytest.mark.parametrize("key", ["mine", "nothing", "../other/mine"])
async def test_a_secret_that_is_not_ours_is_not_found(stub: Any, keys: Keys, api: Api, key: str) -> None:
    await register(stub, keys, tool(api, auth={"type": "api_key_ref", "key_id": key}))
    error = await refusal(call(stub, keys))
    assert (*said(error), error.facts["key_id"]) == (Code.FAILED_PRECONDITION, "SECRET_NOT_FOUND", key)
    assert not api.asked


REFUSED = [
    "http://10.0.0.1/",
    "http://169.254.169.254/latest/",
    "http://[::1]:1/",
    "http://x.public.test/",
    "http://x.org/",
]


@pytest.mark.parametrize("url", REFUSED)
async def test_an_address_that_may_not_be_reached_is_refused(stub: Any, keys: Keys, api: Api, url: str) -> None:
    """`*.public.test` is allowed by name and resolves to the loopback, which is: so that one alone is reached for."""
    await register(stub, keys, tool(api, http={"url": url.replace("x.public.test", f"x.org:{api.port}")}))
    error = await refusal(call(stub, keys))
    assert said(error) == (Code.FAILED_PRECONDITION, "EGRESS_REFUSED")
    assert not api.asked


async def test_a_redirect_is_not_followed(stub: Any, keys: Keys, api: Api) -> None:
    api.statuses = [302]
    await register(stub, keys, tool(api))
    assert said(await refusal(call(stub, keys))) == (Code.FAILED_PRECONDITION, "TOOL_FAILED")
    assert len(api.asked) == 1


async def test_a_name_is_resolved_once_and_what_was_checked_is_used(
    stub: Any, keys: Keys, api: Api, executors: dict[str, Executor], secrets: Secrets
) -> None:
    answers = [["127.0.0.1"], ["169.254.169.254"]]

    async def rebinding(_host: str, _port: int) -> Sequence[str]:
        return answers.pop(0)

    executors["external_api"] = HttpExecutor(Egress(["127.0.0.1/32", "api.test"], resolve=rebinding), secrets)
    await register(stub, keys, tool(api, http={"url": f"http://api.test:{api.port}/x"}))
    assert (await call(stub, keys)).finished.HasField("result")
    assert api.asked[0][3]["Host"] == f"api.test:{api.port}"
    assert said(await refusal(call(stub, keys))) == (Code.FAILED_PRECONDITION, "EGRESS_REFUSED")


async def test_a_refusal_of_the_api_is_an_error_that_says_so(stub: Any, keys: Keys, api: Api) -> None:
    api.statuses, api.answer = [404], {"error": "no such thing"}
    await register(stub, keys, tool(api))
    error = await refusal(call(stub, keys))
    assert (*said(error), error.facts["status"]) == (Code.FAILED_PRECONDITION, "TOOL_FAILED", "UPSTREAM_REFUSED")
    assert "404" in error.message
    assert "no such thing" in error.message
    assert len(api.asked) == 1


async def test_what_may_be_repeated_is_tried_again(stub: Any, keys: Keys, api: Api) -> None:
    api.statuses = [503, 429]
    await register(stub, keys, tool(api, idempotent=True))
    assert (await call(stub, keys)).finished.HasField("result")
    assert len(api.asked) == 3


async def test_what_may_not_be_repeated_is_not(stub: Any, keys: Keys, api: Api) -> None:
    api.statuses = [503]
    await register(stub, keys, tool(api, http={"method": "POST", "url": f"http://127.0.0.1:{api.port}/"}))
    assert said(await refusal(call(stub, keys))) == (Code.FAILED_PRECONDITION, "TOOL_FAILED")
    assert len(api.asked) == 1


async def test_a_tool_that_fails_again_and_again_is_left_alone_and_tried_later(
    stub: Any, keys: Keys, api: Api, clock: FakeClock
) -> None:
    api.statuses = [500] * 5
    await register(stub, keys, tool(api))
    for _ in range(5):
        await refusal(call(stub, keys))
    error = await refusal(call(stub, keys))
    assert said(error) == (Code.UNAVAILABLE, "TOOL_CIRCUIT_OPEN")
    assert error.retry_after == timedelta(seconds=30)
    assert len(api.asked) == 5
    clock.advance(timedelta(seconds=30))
    assert (await call(stub, keys)).finished.HasField("result")


async def test_an_effect_without_an_answer_is_unknown_and_never_repeated(
    stub: Any, keys: Keys, api: Api, store: MemoryToolStore
) -> None:
    api.stall = True
    http = {"method": "POST", "timeout": "0.3s", "url": f"http://127.0.0.1:{api.port}/"}
    await register(stub, keys, tool(api, http=http))
    for _ in range(2):
        error = await refusal(call(stub, keys, request_id="req_1"))
        assert said(error) == (Code.FAILED_PRECONDITION, "TOOL_OUTCOME_UNKNOWN")
    assert len(api.asked) == 1
    assert {one.status for one in await store.invocations("acme", "web_search@1.0.0")} == {"UNKNOWN"}


async def test_an_api_that_knows_keys_is_asked_again_with_the_same(stub: Any, keys: Keys, api: Api) -> None:
    api.statuses = [503]
    http = {"method": "POST", "idempotency_header": "Idempotency-Key", "url": f"http://127.0.0.1:{api.port}/"}
    await register(stub, keys, tool(api, http=http))
    assert (await call(stub, keys, request_id="req_1")).finished.HasField("result")
    assert [headers["Idempotency-Key"] for _, _, _, headers in api.asked] == ["req_1", "req_1"]


async def test_a_server_that_is_not_there_is_unreachable(stub: Any, keys: Keys, api: Api) -> None:
    await register(stub, keys, tool(api, http={"url": "http://127.0.0.1:1/"}))
    error = await refusal(call(stub, keys))
    assert (*said(error), error.facts["status"]) == (Code.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE", "UNREACHABLE")


async def test_text_comes_back_as_text_and_too_much_is_refused(stub: Any, keys: Keys, api: Api) -> None:
    api.text = "plain"
    await register(stub, keys, tool(api))
    assert (await call(stub, keys)).finished.result.string_value == "plain"
    api.text = "x" * (1024 * 1024 + 1)
    assert (await refusal(call(stub, keys))).facts["status"] == "OUTPUT_LIMIT"


async def test_the_seeds_tool_says_that_it_names_no_address(stub: Any, keys: Keys) -> None:
    seed = {"name": "web_search", "exec_mode": "external_api", "allowed_agents": ["*"]}
    await register(stub, keys, json_format.ParseDict(seed, tool_pb2.Tool()))
    assert said(await refusal(call(stub, keys))) == (Code.FAILED_PRECONDITION, "TOOL_MODE_UNAVAILABLE")


WRONG = {
    "no scheme": ({"http": {"url": "example.com"}}, "tool.http.url"),
    "a file": ({"http": {"url": "file:///etc/passwd"}}, "tool.http.url"),
    "a host from an argument": ({"http": {"url": "http://{host}/"}}, "tool.http.url"),
    "a password": ({"http": {"url": "http://u:p@example.com/"}}, "tool.http.url"),
    "a method": ({"http": {"url": "http://example.com", "method": "TRACE"}}, "tool.http.method"),
    "a header": ({"http": {"url": "http://example.com", "headers": {"a\r\nb": "x"}}}, "tool.http.headers"),
    "a long time": ({"http": {"url": "http://example.com", "timeout": "301s"}}, "tool.http.timeout"),
    "another mode's": ({"sql": {"query": "select 1"}}, "tool.sql"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "field"), WRONG.values(), ids=WRONG.keys())
async def test_a_target_at_fault_is_refused_with_its_field(
    stub: Any, keys: Keys, api: Api, changes: dict[str, Any], field: str
) -> None:
    error = await refusal(register(stub, keys, tool(api, **changes)))
    assert (error.code, error.field) == (Code.INVALID_ARGUMENT, field)


@pytest.mark.parametrize("coding", ["gzip", "gzip, gzip"])
async def test_an_answer_that_inflates_without_end_is_cut(stub: Any, keys: Keys, api: Api, coding: str) -> None:
    api.coded = (coding, bomb(256) if coding == "gzip" else gzip.compress(bomb(256)))
    await register(stub, keys, tool(api))
    before = resident()
    error = await refusal(call(stub, keys))
    assert resident() - before < LITTLE
    assert error.facts["status"] == ("OUTPUT_LIMIT" if coding == "gzip" else "UPSTREAM_ERROR")
