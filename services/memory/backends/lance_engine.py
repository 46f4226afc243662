"""LanceDB in a folder: one table a tenant and width, exact until its owner makes an index."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

import lancedb
import pyarrow as pa

from services.memory.backends.names import collection
from services.memory.store import Vector


class LanceEngine:
    """Vectors outlive the process in the folder."""

    def __init__(self, folder: Path) -> None:
        self._database = lancedb.connect(folder)

    def put(self, tenant: str, vectors: Sequence[tuple[int, Vector]]) -> None:
        if not vectors:
            return
        width = len(vectors[0][1])
        schema = pa.schema([("place", pa.int64()), ("vector", pa.list_(pa.float32(), width))])
        table = self._database.create_table(collection(tenant, width), schema=schema, exist_ok=True)
        rows = [{"place": place, "vector": list(vector)} for place, vector in vectors]
        table.merge_insert("place").when_matched_update_all().when_not_matched_insert_all().execute(rows)

    def remove(self, tenant: str, places: Sequence[int], width: int) -> None:
        with suppress(ValueError):  # there is no such table, so nothing to delete
            self._database.open_table(collection(tenant, width)).delete(_among(places))

    def nearest(
        self, tenant: str, vector: Vector, among: Collection[int], *, limit: int
    ) -> Sequence[tuple[int, float]]:
        table = self._database.open_table(collection(tenant, len(vector)))
        query = table.search(list(vector), query_type="vector").distance_type("cosine")
        rows = query.where(_among(among), prefilter=True).select(["place", "_distance"]).limit(limit).to_list()
        return [(row["place"], 1 - row["_distance"]) for row in rows]


def _among(places: Collection[int]) -> str:
    return f"place in ({', '.join(str(int(place)) for place in places)})"
