"""The engines memory has an adapter for, built in process, where they are installed: `make test-backends` has them all."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final


def _faiss(folder: Path) -> Any:
    from services.memory.backends.faiss_engine import FaissEngine

    return FaissEngine()


def _qdrant(folder: Path) -> Any:
    from qdrant_client import QdrantClient

    from services.memory.backends.qdrant_engine import QdrantEngine

    return QdrantEngine(QdrantClient(":memory:"))


def _chroma(folder: Path) -> Any:
    import chromadb

    from services.memory.backends.chroma_engine import ChromaEngine

    return ChromaEngine(chromadb.EphemeralClient(chromadb.Settings(anonymized_telemetry=False)))


def _lance(folder: Path) -> Any:
    from services.memory.backends.lance_engine import LanceEngine

    return LanceEngine(folder)


def _milvus(folder: Path) -> Any:
    from pymilvus import MilvusClient

    from services.memory.backends.milvus_engine import MilvusEngine

    return MilvusEngine(MilvusClient(str(folder / "vectors.db")))


# By name: the packages it needs, and how it is built.
ENGINES: Final[Mapping[str, tuple[tuple[str, ...], Callable[[Path], Any]]]] = {
    "faiss": (("faiss",), _faiss),
    "qdrant": (("qdrant_client",), _qdrant),
    "chroma": (("chromadb",), _chroma),
    "lancedb": (("lancedb",), _lance),
    "milvus": (("pymilvus", "milvus_lite"), _milvus),
}


def installed(name: str) -> bool:
    """Whether all the engine needs is there."""
    return all(importlib.util.find_spec(package) for package in ENGINES[name][0])
