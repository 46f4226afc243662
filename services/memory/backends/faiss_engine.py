"""FAISS in this process: one flat index a tenant and width, exact."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import faiss
import numpy as np
from numpy.typing import NDArray

from services.memory.store import Vector


class FaissEngine:
    """Gone when the process ends."""

    def __init__(self) -> None:
        self._indexes: dict[tuple[str, int], faiss.IndexIDMap2] = {}

    def put(self, tenant: str, vectors: Sequence[tuple[int, Vector]]) -> None:
        if not vectors:
            return
        places = np.array([place for place, _ in vectors], np.int64)
        values = _unit([vector for _, vector in vectors])
        index = self._indexes.setdefault(
            (tenant, values.shape[1]), faiss.IndexIDMap2(faiss.IndexFlatIP(values.shape[1]))
        )
        index.remove_ids(places)
        index.add_with_ids(values, places)

    def remove(self, tenant: str, places: Sequence[int], width: int) -> None:
        if index := self._indexes.get((tenant, width)):
            index.remove_ids(np.array(places, np.int64))

    def nearest(
        self, tenant: str, vector: Vector, among: Collection[int], *, limit: int
    ) -> Sequence[tuple[int, float]]:
        index = self._indexes.get((tenant, len(vector)))
        if index is None:
            return []
        wanted = faiss.IDSelectorBatch(np.array(list(among), np.int64))
        scores, places = index.search(_unit([vector]), limit, params=faiss.SearchParameters(sel=wanted))
        return [(int(place), float(score)) for place, score in zip(places[0], scores[0], strict=True) if place >= 0]


def _unit(vectors: Sequence[Vector]) -> NDArray[np.float32]:
    values = np.array(vectors, np.float32)
    sizes = np.linalg.norm(values, axis=1, keepdims=True)
    return (values / np.where(sizes == 0, 1, sizes)).astype(np.float32)
