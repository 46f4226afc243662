"""Postgres's own full text search over conversations: any of the question's words, by ts_rank."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import asyncpg

_RANKED: Final = """
with turn as materialized (
    select id, place, to_tsvector('english', content) as words
    from unnest($1::text[], $2::text[]) with ordinality as told (id, content, place)),
  question as materialized (
    select text, replace(plainto_tsquery('english', text)::text, '&', '|')::tsquery as query from unnest($3::text[]) as text)
select text, id from question join turn on words @@ query
order by text, ts_rank(words, query) desc, place
"""


async def orders(dsn: str, turns: Sequence[tuple[str, str]], questions: Sequence[str]) -> dict[str, list[str]]:
    """By question the ids of the turns that hold a word of it, best first. A turn is its id and its text."""
    connection = await asyncpg.connect(dsn)
    try:
        ids, contents = zip(*turns, strict=True)
        rows = await connection.fetch(_RANKED, list(ids), list(contents), list(dict.fromkeys(questions)))
    finally:
        await connection.close()
    found: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        found[row["text"]].append(row["id"])
    return found
