"""Between the contract and embedding sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agentnet.memory.v1 import embedding_set_service_pb2 as pb
from services.memory.convert import CONTENT
from services.memory.store import Found
from shared import fields
from shared.errors import FieldRequired

_AT_ONCE: Final = 500
_LIMIT: Final = 20


@dataclass(frozen=True, slots=True)
class Comparison:
    """A parsed request to compare."""

    name: str
    text: str
    limit: int


def name(value: str) -> str:
    return fields.matching(
        value, "name", fields.NAME, form="letters, digits, _ and -, beginning with a letter, at most 64"
    )


def texts(given: Sequence[str]) -> list[str]:
    if not given:
        raise FieldRequired("texts")
    fields.at_most(len(given), "texts", limit=_AT_ONCE)
    return [fields.required(text, f"texts[{at}]", limit=CONTENT) for at, text in enumerate(given)]


def comparison(request: pb.CompareWithEmbeddingSetRequest) -> Comparison:
    return Comparison(
        name=name(request.name),
        text=fields.required(request.text, "text", limit=CONTENT),
        limit=int(fields.within(request.limit or 1, "limit", low=1, high=_LIMIT)),
    )


def compared(found: Sequence[Found]) -> pb.CompareWithEmbeddingSetResponse:
    nearest = [pb.ComparedText(text=one.memory.content, score=min(max(one.cosine, 0.0), 1.0)) for one in found]
    return pb.CompareWithEmbeddingSetResponse(score=nearest[0].score, nearest=nearest)
