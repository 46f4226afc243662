"""The same vectors in other stores, in this process and without tenants, for comparison. What is not installed is left out."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

_K = 10
Search = Callable[[Any], list[int]]


def measured(
    vectors: Any, asked: Any, wanted: Sequence[set[int]], row: Callable[..., str], overlap: Callable[..., float]
) -> Iterator[str]:
    """One line for each store that is installed."""
    known, queries = vectors.astype(np.float32), asked.astype(np.float32)
    for name, (module, build) in _PEERS.items():
        if importlib.util.find_spec(module) is None:
            continue
        search = build(known)
        for query in queries[:10]:
            search(query)
        spent, found = [], []
        for query in queries:
            began = time.perf_counter()
            found.append(search(query))
            spent.append((time.perf_counter() - began) * 1000)
        yield row(name, len(known), spent, overlap(found, wanted))


def _faiss(vectors: Any) -> Search:
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexHNSWFlat(vectors.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction, index.hnsw.efSearch = 64, 100
    index.add(vectors)
    return lambda query: index.search(query[None], _K)[1][0].tolist()


def _chroma(vectors: Any) -> Search:
    import chromadb

    client = chromadb.EphemeralClient(chromadb.Settings(anonymized_telemetry=False))
    client.reset() if client.get_settings().allow_reset else None
    collection = client.get_or_create_collection(f"bench{len(vectors)}", metadata={"hnsw:space": "cosine"})
    for start in range(0, len(vectors), 5_000):
        part = vectors[start : start + 5_000]
        collection.add(ids=[str(start + at) for at in range(len(part))], embeddings=part)
    return lambda query: [
        int(one) for one in collection.query(query_embeddings=[query], n_results=_K, include=[])["ids"][0]
    ]


def _qdrant(vectors: Any) -> Search:
    from qdrant_client import QdrantClient, models

    client = QdrantClient(":memory:")
    space = models.VectorParams(size=vectors.shape[1], distance=models.Distance.COSINE)
    client.create_collection("bench", vectors_config=space)
    client.upload_collection("bench", vectors=vectors, ids=range(len(vectors)), batch_size=1_000)
    return lambda query: [int(one.id) for one in client.query_points("bench", query=query, limit=_K).points]


_PEERS: dict[str, tuple[str, Callable[[Any], Search]]] = {
    "FAISS HNSW in process, no tenants": ("faiss", _faiss),
    "Chroma in process, no tenants": ("chromadb", _chroma),
    "Qdrant local mode (exact), no tenants": ("qdrant_client", _qdrant),
}
