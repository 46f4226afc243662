"""Memories as rows of the schema `memory`, and conditions as the parameters of its queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

import numpy as np
from pgvector import HalfVector

from services.memory.errors import EmbeddingWidthInvalid
from services.memory.store import WIDTHS, Filter, Found, Memory, MemoryType, Vector
from shared.postgres import Queries, load_queries

# Widths with a table of their own. All others share one, whose vectors are cast to the width that is asked for.
_TYPES: Final = {kind.value: kind for kind in MemoryType}
_TABLES: Final = {384: "memory_episode_384", 1536: "memory_episode"}
# Columns in the order of the fields, as `:columns` has them: one search makes two hundred memories.
_FIELDS: Final = ["agent_name" if name == "agent" else name for name in Memory._fields]
_TYPE: Final = _FIELDS.index("memory_type")
_TAGS: Final = _FIELDS.index("tags")
_COLUMNS: Final = len(_FIELDS)
_values: Final = itemgetter(*_FIELDS)
# What a walk tells of each memory; the other columns are read once, of those that are wanted.
_NARROW: Final = "place, session_id, created_at"


def queries() -> Queries:
    """Of `queries.sql` and `reembed.sql`, with what they share written out; those about vectors named for a width."""
    here = Path(__file__)
    found = load_queries(here.with_name("queries.sql")) | load_queries(here.with_name("reembed.sql"))
    shared = {f":{name}": found.pop(name) for name in ("every", "all", "columns", "fits")}
    cosine = found.pop("cosine")
    gather, given = found.pop("gather"), found.pop("given")
    found |= {
        "gather": gather.replace(":walked", found["nearest"].rstrip(";").replace(":columns", _NARROW)),
        "gather_given": gather.replace(":walked", given.rstrip(";")),
    }
    made = Queries()
    for name, text in found.items():
        if ":table" in text or ":every" in text:
            made |= {f"{name}_{width}": _written_out(text, shared | _of_width(width, cosine)) for width in WIDTHS}
        else:
            made[name] = _written_out(text, shared)
    return made


def _of_width(width: int, cosine: str) -> dict[str, str]:
    """Vectors are compared in the table of this width alone."""
    mine = width if width in _TABLES else "any"
    others = {f":of_{kind}": "null::float8" for kind in (*_TABLES, "any") if kind != mine}
    if width in _TABLES:
        parts = {":table": _TABLES[width], ":near": "embedding", ":wide": "true"}
    else:
        wide = f"vector_dims(embedding) = {width}"
        parts = {":table": "memory_episode_any", ":near": f"embedding::halfvec({width})", ":wide": wide}
    return {**others, f":of_{mine}": cosine, **parts}


def _written_out(text: str, parts: Mapping[str, str]) -> str:
    for name, part in parts.items():
        text = text.replace(name, part)
    return text


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
    return _memory(_values(row))


def found_of(rows: Sequence[Any]) -> list[Found]:
    """The rows of a search: the columns in their order, then the cosine."""
    if not rows:
        return []
    *columns, cosines = list(zip(*rows, strict=True))[: _COLUMNS + 1]
    columns[_TYPE] = tuple(map(_TYPES.__getitem__, columns[_TYPE]))
    columns[_TAGS] = tuple(map(tuple, columns[_TAGS]))
    return list(map(Found, map(Memory, *columns), [cosine or 0.0 for cosine in cosines]))


def _memory(values: Sequence[Any]) -> Memory:
    made = list(values)
    made[_TYPE], made[_TAGS] = _TYPES[made[_TYPE]], tuple(made[_TAGS])
    return Memory._make(made)
