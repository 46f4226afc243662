"""Pinecone over its data plane's HTTP API (2025-01): one index a width, one namespace a tenant."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

import httpx

from services.memory.backends.names import collection
from services.memory.store import Vector

_VERSION: Final = "2025-01"
# Of the API: vectors of one upsert, ids of one deletion, values of one $in, matches of one query.
_UPSERT, _DELETE, _AMONG, _MATCHES = 100, 1_000, 10_000, 10_000


class PineconeEngine:
    """`hosts` is the address of the index of each width, which must have the metric "cosine"."""

    def __init__(self, hosts: Mapping[int, str], *, api_key: str, timeout: float = 10) -> None:
        self._hosts = hosts
        headers = {"Api-Key": api_key, "X-Pinecone-API-Version": _VERSION}
        self._client = httpx.Client(headers=headers, timeout=timeout)

    def close(self) -> None:
        """Lets the connections go."""
        self._client.close()

    def put(self, tenant: str, vectors: Sequence[tuple[int, Vector]]) -> None:
        for part in _parts(vectors, _UPSERT):
            points = [
                {"id": str(place), "values": list(vector), "metadata": {"place": place}} for place, vector in part
            ]
            self._ask(len(part[0][1]), "/vectors/upsert", tenant, vectors=points)

    def remove(self, tenant: str, places: Sequence[int], width: int) -> None:
        for part in _parts(places, _DELETE):
            self._ask(width, "/vectors/delete", tenant, ids=[str(place) for place in part])

    def nearest(
        self, tenant: str, vector: Vector, among: Collection[int], *, limit: int
    ) -> Sequence[tuple[int, float]]:
        found: list[tuple[int, float]] = []
        for part in _parts(list(among), _AMONG):
            wanted = {"place": {"$in": part}}
            answer = self._ask(
                len(vector), "/query", tenant, vector=list(vector), topK=min(limit, _MATCHES), filter=wanted
            )
            found += [(int(match["id"]), float(match["score"])) for match in answer["matches"]]
        return sorted(found, key=lambda match: -match[1])[:limit]

    def _ask(self, width: int, path: str, tenant: str, **body: Any) -> dict[str, Any]:
        # A namespace belongs to its index, so its name need not tell the width; it is the same for every engine.
        namespace = collection(tenant, width)
        answer = self._client.post(f"{self._hosts[width]}{path}", json={"namespace": namespace, **body})
        answer.raise_for_status()
        said: dict[str, Any] = answer.json()
        return said


def _parts(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    remaining = iter(items)
    while part := list(islice(remaining, size)):
        yield part
