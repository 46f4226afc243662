"""exec_mode "external_api": one request to an HTTP API."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final
from urllib.parse import quote

import httpx2

from services.tools import answer, egress
from services.tools.answer import Outcome, Printed, Status
from services.tools.errors import ToolModeUnavailable
from services.tools.executor import Isolation, Work
from services.tools.secrets import Secrets

_MAX_ANSWER: Final = 1024 * 1024
_SHOWN: Final = 500
_PLACE: Final = re.compile(r"\{(\w+)\}")
_IN_QUERY: Final = frozenset({"GET", "DELETE"})
_TRANSIENT: Final = frozenset({408, 425, 429})
_SERVER_ERROR: Final = 500
_REDIRECT: Final = 300


class HttpExecutor:
    """Calls HTTP APIs on the allow-list."""

    isolation = Isolation.VM
    reaches_out = True

    def __init__(self, allowed: egress.Egress, secrets: Secrets) -> None:
        self._allowed = allowed
        self._secrets = secrets

    def check_room(self) -> None:
        """A request needs no place of its own."""

    async def execute(self, work: Work, printed: Printed) -> Outcome:
        target = target_of(work)
        began = time.monotonic()
        outcome = await self._asked(work, target)
        elapsed = timedelta(seconds=time.monotonic() - began)
        return Outcome(outcome.status, outcome.result, outcome.message, elapsed=elapsed, isolation="none")

    async def _asked(self, work: Work, target: Mapping[str, Any]) -> Outcome:
        async with egress.client(self._allowed, timeout=target["timeout"]) as client:
            request = self._request(client, work, target)
            try:
                async with stream(client, request) as response:
                    return _read(response, await _body(response))
            except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
                return Outcome(
                    Status.UNREACHABLE, message=f"{request.url.host} does not answer: {type(error).__name__}"
                )
            except httpx2.HTTPError as error:
                said = f"{request.url.host} took the request and gave no whole answer: {type(error).__name__}"
                safe = request.method == "GET" or work.tool.idempotent
                return Outcome(Status.UPSTREAM_ERROR if safe else Status.UNKNOWN, message=said)

    def _request(self, client: httpx2.AsyncClient, work: Work, target: Mapping[str, Any]) -> httpx2.Request:
        arguments, method = dict(work.arguments), target["method"]
        named = {match[1] for match in _PLACE.finditer(target["url"])}
        url = _PLACE.sub(lambda match: quote(_plain(arguments.get(match[1], "")), safe=""), target["url"])
        rest = {name: value for name, value in sorted(arguments.items()) if name not in named}
        headers = dict(target["headers"]) | self._credentials(work, target)
        if target["idempotency_header"] and work.request_id:
            headers[target["idempotency_header"]] = work.request_id
        if method in _IN_QUERY:
            query = {name: _plain(value) for name, value in rest.items()}
            return client.build_request(method, httpx2.URL(url).copy_merge_params(query), headers=headers)
        return client.build_request(method, url, json=rest, headers=headers)

    def _credentials(self, work: Work, target: Mapping[str, Any]) -> dict[str, str]:
        if not work.tool.auth:
            return {}
        secret = self._secrets.use(work, work.tool.auth["key_id"])
        name = target["auth_header"]
        return {name: secret} if name else {"Authorization": f"Bearer {secret}"}


def target_of(work: Work) -> Mapping[str, Any]:
    """What the tool calls. Raises ToolModeUnavailable when it was registered without."""
    if work.tool.target is None:
        mode = work.tool.exec_mode
        raise ToolModeUnavailable(
            f"{work.tool.reference} does not say what it calls; register a version that does", exec_mode=mode, known=""
        )
    return work.tool.target


def stream(client: httpx2.AsyncClient, request: httpx2.Request) -> Any:
    """The response as it comes, closed in the end."""
    return _Streamed(client, request)


class _Streamed:
    def __init__(self, client: httpx2.AsyncClient, request: httpx2.Request) -> None:
        self._client = client
        self._request = request

    async def __aenter__(self) -> httpx2.Response:
        self._response = await self._client.send(self._request, stream=True)
        return self._response

    async def __aexit__(self, *_: object) -> None:
        await self._response.aclose()


async def _body(response: httpx2.Response) -> bytes | None:
    """None when it is too much."""
    found = bytearray()
    async for part in response.aiter_bytes():
        found += part
        if len(found) > _MAX_ANSWER:
            return None
    return bytes(found)


def _read(response: httpx2.Response, body: bytes | None) -> Outcome:
    if body is None:
        return Outcome(Status.OUTPUT_LIMIT, message=f"the answer has more than {_MAX_ANSWER} bytes")
    status = response.status_code
    if status >= _REDIRECT:
        transient = status >= _SERVER_ERROR or status in _TRANSIENT
        kind = Status.UPSTREAM_ERROR if transient else Status.UPSTREAM_REFUSED
        shown = body.decode(errors="replace")[:_SHOWN]
        return Outcome(kind, message=f"the API answered {status}: {shown}")
    return _data(response, body)


def _data(response: httpx2.Response, body: bytes) -> Outcome:
    """JSON where it says so, otherwise text."""
    if "json" not in response.headers.get("content-type", ""):
        return Outcome(Status.OK, result=body.decode(errors="replace"))
    try:
        found = json.loads(body or b"null")
    except (ValueError, RecursionError):
        return Outcome(Status.UPSTREAM_REFUSED, message="the API's answer is not the JSON it says it is")
    if problem := answer.flaw(found):
        return Outcome(Status.UPSTREAM_REFUSED, message=f"the API's answer {problem}")
    return Outcome(Status.OK, result=found)


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
