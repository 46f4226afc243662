"""A server that speaks Langfuse's public API as its definition says, with the faults it is told to have."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from aiohttp import web

PUBLIC, SECRET = "pk-lf-1", "sk-lf-1"
MAX_BATCH = 3_500_000
_ALLOWED = {
    "trace-create": {
        "id", "timestamp", "name", "userId", "input", "output", "sessionId", "release", "version", "metadata", "tags",
        "environment", "public",
    },
    "generation-create": {
        "id", "traceId", "name", "startTime", "endTime", "completionStartTime", "metadata", "input", "output", "level",
        "statusMessage", "parentObservationId", "version", "environment", "model", "modelParameters", "usage",
        "usageDetails", "costDetails", "promptName", "promptVersion",
    },
}  # fmt: skip


@dataclass(slots=True)
class LangfuseServer:
    """What it was sent, and what it does next instead of answering: a status, headers, or `hang` and `cut`."""

    url: str = ""
    secret: str = SECRET
    faults: list[int | str | tuple[int, dict[str, str]]] = field(default_factory=list)
    refuse: dict[str, list[int]] = field(default_factory=dict)  # statuses by event type, one an answer
    batches: list[list[str]] = field(default_factory=list)
    events: dict[str, dict[str, Any]] = field(default_factory=dict)  # by event id: the same id is one event
    prompts: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)
    largest: int = MAX_BATCH

    def bodies(self, kind: str) -> list[dict[str, Any]]:
        return [event["body"] for event in self.events.values() if event["type"] == kind]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(f"{request.method} {request.rel_url.raw_path}")
        data = await request.read()
        if self.faults:
            return await self._fault(request, self.faults.pop(0))
        return self._refusal(request, data) or await self._answer(request)

    def _refusal(self, request: web.Request, data: bytes) -> web.Response | None:
        credentials = base64.b64encode(f"{PUBLIC}:{self.secret}".encode()).decode()
        if request.headers.get("authorization") != f"Basic {credentials}":
            return web.json_response({"error": "UnauthorizedError", "message": "Invalid credentials"}, status=401)
        if len(data) > self.largest:
            return web.Response(status=413, text="Body exceeded limit")
        return None

    async def _answer(self, request: web.Request) -> web.Response:
        match request.method, request.path.removeprefix("/api/public"):
            case "POST", "/ingestion":
                return self._ingest(await request.json())
            case "POST", "/v2/prompts":
                return self._create(await request.json())
            case "GET", "/v2/prompts":
                return self._list(request.query["name"])
            case "GET", path:
                return self._get(path.removeprefix("/v2/prompts/"), int(request.query["version"]))
        return web.Response(status=405)

    async def _fault(self, request: web.Request, fault: int | str | tuple[int, dict[str, str]]) -> web.StreamResponse:
        match fault:
            case int(status):
                return web.json_response({"message": "no"}, status=status)
            case (int(status), dict(headers)):
                return web.json_response({"message": "no"}, status=status, headers=headers)
            case "garbage":
                return web.Response(text="<html>a proxy's page</html>")
            case "cut":
                assert request.transport
                request.transport.close()
            case _:
                while request.transport and not request.transport.is_closing():
                    await asyncio.sleep(0.005)
        return web.Response()

    def _ingest(self, sent: dict[str, Any]) -> web.Response:
        successes, errors = [], []
        self.batches.append([event["type"] for event in sent["batch"]])
        for event in sent["batch"]:
            told = self.refuse.get(event["type"])
            status = told.pop(0) if told else 400 if _faulty(event) else 201
            if status == 201:
                self.events[event["id"]] = event
                successes.append({"id": event["id"], "status": 201})
            else:
                errors.append({"id": event["id"], "status": status, "message": "no", "error": None})
        return web.json_response({"successes": successes, "errors": errors}, status=207)

    def _create(self, sent: dict[str, Any]) -> web.Response:
        versions = self.prompts.setdefault(sent["name"], [])
        versions.append(sent | {"version": len(versions) + 1})
        return web.json_response(versions[-1], status=201)

    def _list(self, name: str) -> web.Response:
        versions = [one["version"] for one in self.prompts.get(name, [])]
        data = [{"name": name, "versions": versions, "labels": [], "tags": []}] if versions else []
        return web.json_response({"data": data, "meta": {"page": 1, "limit": 1}})

    def _get(self, name: str, version: int) -> web.Response:
        found = [one for one in self.prompts.get(name, []) if one["version"] == version]
        return web.json_response(found[0]) if found else web.json_response({"message": "not found"}, status=404)


def _faulty(event: dict[str, Any]) -> bool:
    """Whether Langfuse's schema would refuse the event."""
    body = event["body"]
    if not set(body) <= _ALLOWED.get(event["type"], set()):
        return True
    for name in ("timestamp", "startTime", "endTime", "completionStartTime"):
        if name in body and datetime.fromisoformat(body[name]).tzinfo is None:
            return True
    usage, cost = body.get("usageDetails", {}), body.get("costDetails", {})
    return not (
        all(type(value) is int for value in usage.values())
        and all(isinstance(value, float) for value in cost.values())
        and type(body.get("promptVersion", 1)) is int
        and body.get("level", "DEFAULT") in ("DEBUG", "DEFAULT", "WARNING", "ERROR")
        and isinstance(event["id"], str)
        and datetime.fromisoformat(event["timestamp"]).tzinfo
    )


@asynccontextmanager
async def langfuse_server() -> AsyncIterator[LangfuseServer]:
    """A server in the block."""
    server = LangfuseServer()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_route("*", "/api/public/{rest:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield server
    finally:
        await runner.cleanup()
