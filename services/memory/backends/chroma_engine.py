"""Chroma: in memory, in a folder, or a server; one collection a tenant and width."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from chromadb.api import ClientAPI

from services.memory.backends.names import collection
from services.memory.store import Vector


class ChromaEngine:
    """`client` decides where: chromadb.EphemeralClient(), PersistentClient(path) or HttpClient(host)."""

    def __init__(self, client: ClientAPI) -> None:
        self._client = client

    def put(self, tenant: str, vectors: Sequence[tuple[int, Vector]]) -> None:
        if not vectors:
            return
        self._collection(tenant, len(vectors[0][1])).upsert(
            ids=[str(place) for place, _ in vectors],
            embeddings=[list(vector) for _, vector in vectors],
            metadatas=[{"place": place} for place, _ in vectors],
        )

    def remove(self, tenant: str, places: Sequence[int], width: int) -> None:
        self._collection(tenant, width).delete(ids=[str(place) for place in places])

    def nearest(
        self, tenant: str, vector: Vector, among: Collection[int], *, limit: int
    ) -> Sequence[tuple[int, float]]:
        answer = self._collection(tenant, len(vector)).query(
            query_embeddings=[list(vector)], n_results=limit, where={"place": {"$in": list(among)}},
            include=["distances"],
        )  # fmt: skip
        distances = (answer["distances"] or [[]])[0]
        return [(int(place), 1 - distance) for place, distance in zip(answer["ids"][0], distances, strict=True)]

    def _collection(self, tenant: str, width: int) -> Any:
        return self._client.get_or_create_collection(collection(tenant, width), metadata={"hnsw:space": "cosine"})
