"""Milvus: Milvus Lite in a file, or a server; one collection a tenant and width."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from pymilvus import MilvusClient

from services.memory.backends.names import collection
from services.memory.store import Vector


class MilvusEngine:
    """`client` decides where: MilvusClient("vectors.db") or MilvusClient(uri="http://…", token=…)."""

    def __init__(self, client: MilvusClient) -> None:
        self._client = client

    def put(self, tenant: str, vectors: Sequence[tuple[int, Vector]]) -> None:
        if not vectors:
            return
        name = _name(tenant, len(vectors[0][1]))
        if not self._client.has_collection(name):
            self._client.create_collection(
                name, dimension=len(vectors[0][1]), primary_field_name="place", metric_type="COSINE",
                consistency_level="Strong",
            )  # fmt: skip
        self._client.upsert(name, [{"place": place, "vector": list(vector)} for place, vector in vectors])

    def remove(self, tenant: str, places: Sequence[int], width: int) -> None:
        name = _name(tenant, width)
        if self._client.has_collection(name):
            self._client.delete(name, ids=list(places))

    def nearest(
        self, tenant: str, vector: Vector, among: Collection[int], *, limit: int
    ) -> Sequence[tuple[int, float]]:
        wanted = f"place in [{', '.join(str(int(place)) for place in among)}]"
        name = _name(tenant, len(vector))
        (found,) = self._client.search(name, data=[list(vector)], filter=wanted, limit=limit, output_fields=["place"])
        return [(int(hit["place"]), float(hit["distance"])) for hit in found]


def _name(tenant: str, width: int) -> str:
    """Milvus takes letters, digits and underscores."""
    return collection(tenant, width).replace("-", "_")
