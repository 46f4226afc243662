"""Whether a memory fits a filter: the same answer Postgres gives."""

from __future__ import annotations

from collections.abc import Mapping

from services.memory.store import Filter, Memory


def fits(memory: Memory, chosen: Filter) -> bool:
    """All conditions hold. Whether the memory has ended is not asked here."""
    return (
        (not chosen.agent or memory.agent == chosen.agent or (not memory.agent and not chosen.own_only))
        and (not chosen.types or memory.memory_type in chosen.types)
        and (not chosen.tags or set(chosen.tags) <= set(memory.tags))
        and _in_time(memory, chosen)
        and (not chosen.session or memory.session_id == chosen.session)
        and (not chosen.not_session or memory.session_id != chosen.not_session)
        and memory.importance >= chosen.min_importance
        and (not chosen.turn or memory.turn_id == chosen.turn)
        and (not chosen.policy_version or memory.policy_version == chosen.policy_version)
        and (not chosen.metadata or _has(memory, chosen.metadata))
        and memory.embedding_set == chosen.embedding_set
    )


def _has(memory: Memory, wanted: Mapping[str, str]) -> bool:
    return all(_text(memory.metadata.get(key)) == value for key, value in wanted.items())


def _in_time(memory: Memory, chosen: Filter) -> bool:
    return (
        (chosen.start is None or memory.created_at >= chosen.start)
        and (chosen.end is None or memory.created_at < chosen.end)
        and (chosen.as_of is None or memory.created_at <= chosen.as_of)
    )


def _text(value: object) -> str | None:
    """A JSON value as Postgres writes it with ->>."""
    match value:
        case None:
            return None
        case bool():
            return str(value).lower()
        case str() | int() | float():
            return str(value)
        case _:
            return None
