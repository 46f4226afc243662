"""Local servers that speak what the Pinecone and Weaviate adapters are told by those services' published HTTP APIs.

They are strict about the wire: headers, routes, field names and limits as documented; whatever else is sent is refused.
Similarity is computed exactly.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from math import sqrt
from typing import Any

from aiohttp import web

Points = dict[str, tuple[list[float], dict[str, Any]]]
KEY = "pc-local"


@asynccontextmanager
async def served(routes: Sequence[web.RouteDef]) -> AsyncIterator[str]:
    """The address of a server on the loopback."""
    application = web.Application(client_max_size=64 * 1024 * 1024)
    application.add_routes(routes)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    yield f"http://127.0.0.1:{port}"
    await runner.cleanup()


class Pinecone:
    """The data plane of one index (API 2025-01)."""

    def __init__(self) -> None:
        self.namespaces: dict[str, Points] = {}
        self.width = 0

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/vectors/upsert", self.upsert),
            web.post("/vectors/delete", self.delete),
            web.post("/query", self.query),
        ]

    async def upsert(self, request: web.Request) -> web.Response:
        body = await self._body(request, {"namespace", "vectors"})
        if not 0 < len(body["vectors"]) <= 1_000:
            return _refused("Batch size exceeds maximum of 1000")
        mine = self.namespaces.setdefault(body["namespace"], {})
        for one in body["vectors"]:
            self.width = self.width or len(one["values"])
            if len(one["values"]) != self.width:
                return _refused(f"Vector dimension {len(one['values'])} does not match the dimension of the index")
            mine[one["id"]] = (one["values"], one["metadata"])
        return web.json_response({"upsertedCount": len(body["vectors"])})

    async def delete(self, request: web.Request) -> web.Response:
        body = await self._body(request, {"namespace", "ids"})
        if len(body["ids"]) > 1_000:
            return _refused("Too many ids")
        for one in body["ids"]:
            self.namespaces.get(body["namespace"], {}).pop(one, None)
        return web.json_response({})

    async def query(self, request: web.Request) -> web.Response:
        body = await self._body(request, {"namespace", "vector", "topK", "filter"})
        wanted = body["filter"]["place"]["$in"]
        if not 1 <= body["topK"] <= 10_000 or len(wanted) > 10_000:
            return _refused("topK or filter too large")
        mine = self.namespaces.get(body["namespace"], {})
        fitting = [(name, values) for name, (values, data) in mine.items() if data["place"] in set(wanted)]
        scored = sorted(((cosine(values, body["vector"]), name) for name, values in fitting), reverse=True)
        matches = [{"id": name, "score": score} for score, name in scored[: body["topK"]]]
        return web.json_response({"matches": matches, "namespace": body["namespace"], "usage": {"readUnits": 1}})

    async def _body(self, request: web.Request, fields: set[str]) -> dict[str, Any]:
        if request.headers.get("Api-Key") != KEY or request.headers.get("X-Pinecone-API-Version") != "2025-01":
            raise web.HTTPUnauthorized
        body: dict[str, Any] = await request.json()
        if set(body) != fields:
            raise web.HTTPBadRequest(text=f"unexpected fields {set(body) ^ fields}")
        return body


_GET = re.compile(
    r"\{ Get \{ (?P<name>[A-Z]\w*)\(limit: (?P<limit>\d+), nearVector: \{vector: (?P<vector>\[[^\]]*\])\}, "
    r'where: \{path: \["place"\], operator: ContainsAny, valueInt: (?P<places>\[[^\]]*\])\}\) '
    r"\{ place _additional \{ distance \} \} \} \}"
)


class Weaviate:
    """Schema, batches and GraphQL (v1)."""

    def __init__(self) -> None:
        self.classes: dict[str, Points] = {}

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/schema/{name}", self.schema),
            web.post("/v1/schema", self.make),
            web.post("/v1/batch/objects", self.store),
            web.delete("/v1/batch/objects", self.delete),
            web.post("/v1/graphql", self.graphql),
        ]

    async def schema(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        return web.json_response({"class": name}) if name in self.classes else web.Response(status=404)

    async def make(self, request: web.Request) -> web.Response:
        shape = await request.json()
        if not re.fullmatch(r"[A-Z][_0-9A-Za-z]*", shape["class"]) or shape["vectorizer"] != "none":
            return web.json_response({"error": [{"message": "not a valid class name"}]}, status=422)
        if shape["class"] in self.classes:
            return web.json_response({"error": [{"message": "class name already exists"}]}, status=422)
        self.classes[shape["class"]] = {}
        return web.json_response(shape)

    async def store(self, request: web.Request) -> web.Response:
        answers = []
        for one in (await request.json())["objects"]:
            mine = self.classes[one["class"]]
            width = len(next(iter(mine.values()))[0]) if mine else len(one["vector"])
            if len(one["vector"]) != width:
                errors = {"error": [{"message": f"vector lengths don't match: {width} vs {len(one['vector'])}"}]}
                answers.append({**one, "result": {"status": "FAILED", "errors": errors}})
                continue
            mine[one["id"]] = (one["vector"], one["properties"])
            answers.append({**one, "result": {"status": "SUCCESS"}})
        return web.json_response(answers)

    async def delete(self, request: web.Request) -> web.Response:
        match = (await request.json())["match"]
        where = match["where"]
        if where["path"] != ["place"] or where["operator"] != "ContainsAny":
            return web.json_response({"error": [{"message": "invalid where"}]}, status=422)
        mine, wanted = self.classes[match["class"]], set(where["valueIntArray"])
        going = [name for name, (_, data) in mine.items() if data["place"] in wanted]
        for name in going:
            del mine[name]
        return web.json_response({"results": {"matches": len(going), "successful": len(going), "failed": 0}})

    async def graphql(self, request: web.Request) -> web.Response:
        found = _GET.fullmatch((await request.json())["query"])
        if found is None or found["name"] not in self.classes:
            return web.json_response({"errors": [{"message": "Syntax Error GraphQL request"}]})
        wanted, vector = set(json.loads(found["places"])), json.loads(found["vector"])
        mine = [(cosine(one, vector), data["place"]) for one, data in self.classes[found["name"]].values()]
        best = sorted((one for one in mine if one[1] in wanted), reverse=True)[: int(found["limit"])]
        rows = [{"place": place, "_additional": {"distance": 1 - score}} for score, place in best]
        return web.json_response({"data": {"Get": {found["name"]: rows}}})


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return product / ((sqrt(sum(a * a for a in one)) * sqrt(sum(b * b for b in other))) or 1.0)


def _refused(message: str) -> web.Response:
    return web.json_response({"code": 3, "message": message, "details": []}, status=400)
