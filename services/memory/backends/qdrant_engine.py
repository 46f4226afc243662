"""Qdrant: a server, or its local mode in a folder or in memory; one collection a tenant and width."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from qdrant_client import QdrantClient, models

from services.memory.backends.names import collection
from services.memory.store import Vector


class QdrantEngine:
    """`client` decides where: QdrantClient(":memory:"), QdrantClient(path=…) or QdrantClient(url=…)."""

    def __init__(self, client: QdrantClient) -> None:
        self._client = client

    def put(self, tenant: str, vectors: Sequence[tuple[int, Vector]]) -> None:
        if not vectors:
            return
        name = collection(tenant, len(vectors[0][1]))
        if not self._client.collection_exists(name):
            space = models.VectorParams(size=len(vectors[0][1]), distance=models.Distance.COSINE)
            self._client.create_collection(name, vectors_config=space)
        points = [models.PointStruct(id=place, vector=list(vector)) for place, vector in vectors]
        self._client.upsert(name, points=points, wait=True)

    def remove(self, tenant: str, places: Sequence[int], width: int) -> None:
        name = collection(tenant, width)
        if self._client.collection_exists(name):
            self._client.delete(name, points_selector=models.PointIdsList(points=list(places)), wait=True)

    def nearest(
        self, tenant: str, vector: Vector, among: Collection[int], *, limit: int
    ) -> Sequence[tuple[int, float]]:
        wanted = models.Filter(must=[models.HasIdCondition(has_id=list(among))])
        name = collection(tenant, len(vector))
        answer = self._client.query_points(name, query=list(vector), query_filter=wanted, limit=limit)
        return [(int(point.id), point.score) for point in answer.points]
