"""Functions in the sandbox reach what they were granted, by way of the mesh, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from google.protobuf import json_format

from services.tools.egress import Egress
from services.tools.executor import Executor
from services.tools.fetching import Fetching
from services.tools.functions import FunctionExecutor
from services.tools.sandbox import Sandbox
from services.tools.secrets import Secrets
from tests.service.tools.api import SECRET, Api, bomb
from tests.service.tools.attacking import LITTLE, resident
from tests.service.tools.calls import Code, invocation, refusal, register, said, tool
from tests.support.identity import Keys


@pytest.fixture
def executors(sandbox: Sandbox, secrets: Secrets) -> dict[str, Executor]:
    async def resolve(host: str, _port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    allowed = Egress(["127.0.0.1/32", "api.test", "open.test"], resolve=resolve)
    return {"python": FunctionExecutor(sandbox, Fetching(allowed, secrets))}


async def ran(stub: Any, keys: Keys, body: str, *, network: Sequence[str] = ("api.test",), **changes: Any) -> Any:
    code = f"def adder(**given):\n    {body}\n"
    await register(stub, keys, tool(code) if not network else granted(code, network, **changes))
    call = stub.InvokeTool(invocation(), metadata=keys.metadata())
    return json_format.MessageToDict((await call).finished.result)


def granted(code: str, network: Sequence[str], **changes: Any) -> Any:
    return tool(code, function={"code": code, "network": list(network)}, **changes)


async def test_a_granted_host_is_reached_with_what_the_function_says(stub: Any, keys: Keys, api: Api) -> None:
    ask = f"fetch('http://api.test:{api.port}/a?b=1', method='POST', headers={{'X-Kind': 'q'}}, body='{{\"n\": 1}}')"
    reply = await ran(stub, keys, f"return {ask}")
    method, path, body, headers = api.asked[0]
    assert (method, path, body, headers["X-Kind"]) == ("POST", "/a?b=1", {"n": 1}, "q")
    assert (reply["status"], reply["body"]) == (200.0, '{"ok": true}')


async def test_several_requests_are_answered_in_their_order(stub: Any, keys: Keys, api: Api) -> None:
    api.statuses = [200, 404, 500]
    body = f"return [fetch('http://api.test:{api.port}/' + str(n))['status'] for n in range(3)]"
    assert await ran(stub, keys, body) == [200, 404, 500]
    assert [path for _, path, _, _ in api.asked] == ["/0", "/1", "/2"]


async def test_the_secret_goes_with_the_request_and_the_function_never_sees_it(stub: Any, keys: Keys, api: Api) -> None:
    api.answer = {"you_said": f"Bearer {SECRET}"}
    auth = {"type": "api_key_ref", "key_id": "serpapi_key"}
    body = (
        f"return fetch('http://api.test:{api.port}/', headers={{'Authorization': 'mine', 'Host': 'x'}})['body'][::-1]"
    )
    reply = await ran(stub, keys, body, auth=auth)
    assert api.asked[0][3]["Authorization"] == f"Bearer {SECRET}"
    assert reply[::-1] == '{"you_said": "Bearer [secret]"}'


@pytest.mark.parametrize(
    ("address", "network", "why"),
    [
        ("http://open.test/", ["api.test"], "not among the tool's hosts"),
        ("http://other.test/", ["other.test"], "may not be reached"),
        ("http://169.254.169.254/latest", ["169.254.169.254"], "may not be reached"),
        ("file:///etc/passwd", ["api.test"], "http or https"),
        ("http://user:word@api.test/", ["api.test"], "http or https"),
        ("http://api.test.evil.test/", ["api.test"], "not among the tool's hosts"),
    ],
)
async def test_every_other_place_is_refused(
    stub: Any, keys: Keys, api: Api, address: str, network: list[str], why: str
) -> None:
    body = f"\n    try:\n        fetch('{address}')\n    except ConnectionError as error:\n        return str(error)"
    assert why in await ran(stub, keys, body, network=network)
    assert api.asked == []


async def test_without_a_grant_there_is_no_fetch(stub: Any, keys: Keys) -> None:
    await register(stub, keys, tool("def adder():\n    return fetch('http://api.test/')\n"))
    failed = await refusal(stub.InvokeTool(invocation(), metadata=keys.metadata()))
    assert "NameError" in failed.message


async def test_a_host_that_never_answers_ends_with_the_function(stub: Any, keys: Keys, api: Api) -> None:
    api.stall = True
    code = f"def adder():\n    return fetch('http://api.test:{api.port}/')\n"
    found = granted(code, ["api.test"])
    found.function.timeout.FromMilliseconds(600)
    await register(stub, keys, found)
    failed = await refusal(stub.InvokeTool(invocation(), metadata=keys.metadata()))
    assert failed.facts["status"] in ("TIMEOUT", "USER_ERROR")


async def test_a_thirty_third_request_is_not_made(stub: Any, keys: Keys, api: Api) -> None:
    await register(stub, keys, granted(
        f"def adder():\n    for _ in range(40):\n        fetch('http://api.test:{api.port}/')\n", ["api.test"]
    ))  # fmt: skip
    failed = await refusal(stub.InvokeTool(invocation(), metadata=keys.metadata()))
    assert "at most 32 times" in failed.message
    assert len(api.asked) == 32


async def test_what_is_no_host_is_refused_at_registration(stub: Any, keys: Keys) -> None:
    bad = granted("def adder():\n    return 1\n", ["bad host"])
    refused = await refusal(register(stub, keys, bad))
    assert (said(refused), refused.field) == ((Code.INVALID_ARGUMENT, "FIELD_INVALID"), "tool.function.network")


async def test_an_answer_that_inflates_without_end_is_cut(stub: Any, keys: Keys, api: Api) -> None:
    api.coded = ("gzip", bomb(256))
    before = resident()
    body = f"try: fetch('http://api.test:{api.port}/')\n    except ConnectionError as error: return str(error)"
    assert await ran(stub, keys, body) == "the answer has more than 262144 bytes"
    assert resident() - before < LITTLE
