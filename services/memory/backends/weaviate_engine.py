"""Weaviate over its HTTP API (v1): one class a tenant and width, vectors of our own, cosine distance."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Sequence
from typing import Any, Final

import httpx

from services.memory.backends.names import collection
from services.memory.store import Vector

_NOT_FOUND: Final = 404


class WeaviateEngine:
    """`address` is the server's, as `http://127.0.0.1:8080`; an API key goes along as a bearer token."""

    def __init__(self, address: str, *, api_key: str = "", timeout: float = 10) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = httpx.Client(base_url=address, headers=headers, timeout=timeout)

    def close(self) -> None:
        """Lets the connections go."""
        self._client.close()

    def put(self, tenant: str, vectors: Sequence[tuple[int, Vector]]) -> None:
        if not vectors:
            return
        name = _name(tenant, len(vectors[0][1]))
        self._make(name)
        objects = [
            {
                "class": name,
                "id": str(uuid.uuid5(uuid.NAMESPACE_OID, str(place))),
                "properties": {"place": place},
                "vector": list(vector),
            }
            for place, vector in vectors
        ]
        for stored in self._ask("POST", "/v1/batch/objects", {"objects": objects}):
            if problem := (stored.get("result") or {}).get("errors"):
                raise httpx.HTTPError(f"weaviate did not store a vector: {json.dumps(problem)[:200]}")

    def remove(self, tenant: str, places: Sequence[int], width: int) -> None:
        name = _name(tenant, width)
        if not places or not self._known(name):
            return
        match = {"class": name, "where": _among(places)}
        self._ask("DELETE", "/v1/batch/objects", {"match": match, "output": "minimal"})

    def nearest(
        self, tenant: str, vector: Vector, among: Collection[int], *, limit: int
    ) -> Sequence[tuple[int, float]]:
        name = _name(tenant, len(vector))
        # GraphQL writes keys and operators bare; numbers and lists are as in JSON.
        wanted = f'{{path: ["place"], operator: ContainsAny, valueInt: {json.dumps(list(among))}}}'
        near = f"{{vector: {json.dumps(list(vector))}}}"
        asked = f"limit: {limit}, nearVector: {near}, where: {wanted}"
        query = f"{{ Get {{ {name}({asked}) {{ place _additional {{ distance }} }} }} }}"
        answer = self._ask("POST", "/v1/graphql", {"query": query})
        if problem := answer.get("errors"):
            raise httpx.HTTPError(f"weaviate refused the query: {json.dumps(problem)[:200]}")
        return [(int(one["place"]), 1 - one["_additional"]["distance"]) for one in answer["data"]["Get"][name]]

    def _make(self, name: str) -> None:
        if self._known(name):
            return
        shape = {
            "class": name,
            "vectorizer": "none",
            "vectorIndexConfig": {"distance": "cosine"},
            "properties": [{"name": "place", "dataType": ["int"], "indexFilterable": True}],
        }
        self._ask("POST", "/v1/schema", shape)

    def _known(self, name: str) -> bool:
        answer = self._client.get(f"/v1/schema/{name}")
        if answer.status_code != _NOT_FOUND:
            answer.raise_for_status()
        return answer.status_code != _NOT_FOUND

    def _ask(self, method: str, path: str, body: Any) -> Any:
        answer = self._client.request(method, path, json=body)
        answer.raise_for_status()
        return answer.json()


def _name(tenant: str, width: int) -> str:
    """A class begins with a capital and has letters, digits and underscores."""
    return collection(tenant, width).replace("-", "_").capitalize()


def _among(places: Collection[int]) -> dict[str, Any]:
    return {"path": ["place"], "operator": "ContainsAny", "valueIntArray": list(places)}
