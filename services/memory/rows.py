"""Memories as rows of the schema `memory`, and conditions as the parameters of its queries."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
from pgvector import HalfVector

from services.memory.errors import EmbeddingWidthInvalid
from services.memory.store import WIDTHS, Filter, Memory, MemoryType, Vector


def conditions(tenant: str, chosen: Filter, now: datetime) -> tuple[object, ...]:
    """The first fifteen parameters of every query that filters."""
    return (
        tenant, chosen.as_of or now, _agents(chosen), [kind.value for kind in chosen.types], list(chosen.tags),
        chosen.start, chosen.end, chosen.session, chosen.not_session, chosen.as_of, chosen.min_importance, chosen.turn,
        chosen.policy_version, dict(chosen.metadata), chosen.embedding_set,
    )  # fmt: skip


def _agents(chosen: Filter) -> list[str]:
    if not chosen.agent:
        return []
    return [chosen.agent] if chosen.own_only else ["", chosen.agent]


def half(vector: Vector) -> HalfVector:
    """The vector as it is kept."""
    return HalfVector(np.array(vector, np.float16))


def width_of(vector: Vector) -> int:
    """Which table. Raises EmbeddingWidthInvalid when there is none."""
    if len(vector) not in WIDTHS:
        known = ", ".join(map(str, WIDTHS))
        raise EmbeddingWidthInvalid(
            f"no table for embeddings {len(vector)} wide; there are {known}",
            field="embedding", width=str(len(vector)), known=known,
        )  # fmt: skip
    return len(vector)


def memory_of(row: Any) -> Memory:
    """A row of the view or of a table."""
    return Memory(
        id=row["id"],
        content=row["content"],
        content_hash=row["content_hash"],
        memory_type=MemoryType(row["memory_type"]),
        agent=row["agent_name"],
        session_id=row["session_id"],
        turn_id=row["turn_id"],
        tags=tuple(row["tags"]),
        metadata=row["metadata"],
        importance=row["importance"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        updated_at=row["updated_at"],
        policy_version=row["policy_version"],
        embedding_model=row["embedding_model"],
        embedding_set=row["embedding_set"],
        place=row["place"],
    )
