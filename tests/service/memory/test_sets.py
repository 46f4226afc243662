"""Embedding sets over gRPC."""

from __future__ import annotations

from typing import Any

import pytest

from agentnet.memory.v1 import embedding_set_service_pb2 as pb
from tests.service.memory.calls import found, refused, remember

RESTRICTED = ["The merger closes in June", "Salaries of the board"]


async def add(served: Any, name: str, *texts: str) -> int:
    request = pb.AddToEmbeddingSetRequest(name=name, texts=texts)
    added: int = (await served.sets.AddToEmbeddingSet(request, metadata=served.caller())).added
    return added


async def compare(served: Any, name: str, text: str, tenant: str = "acme", limit: int = 0) -> Any:
    request = pb.CompareWithEmbeddingSetRequest(name=name, text=text, limit=limit)
    return await served.sets.CompareWithEmbeddingSet(request, metadata=served.caller(tenant))


async def test_a_text_is_compared_with_a_named_set(served: Any) -> None:
    assert await add(served, "restricted_corpora", *RESTRICTED, RESTRICTED[0]) == 2
    near = await compare(served, "restricted_corpora", "When does the merger close? In June", limit=2)
    far = await compare(served, "restricted_corpora", "A recipe for bread")
    assert near.nearest[0].text == RESTRICTED[0]
    assert near.score == near.nearest[0].score > 0.8 > 0.3 > far.score
    assert len(near.nearest) == 2


async def test_a_set_is_nobodys_memory_and_one_tenants_own(served: Any) -> None:
    await add(served, "ref_doc_12", *RESTRICTED)
    await remember(served, "The merger party")
    assert await found(served, "merger closes in June salaries") == ["The merger party"]
    other = compare(served, "ref_doc_12", "merger", tenant="globex")
    assert await refused(other) == ("NOT_FOUND", "EMBEDDING_SET_NOT_FOUND", None)


async def test_a_deleted_set_is_gone(served: Any) -> None:
    await add(served, "ref", *RESTRICTED)
    request = pb.DeleteEmbeddingSetRequest(name="ref")
    assert (await served.sets.DeleteEmbeddingSet(request, metadata=served.caller())).deleted == 2
    again = served.sets.DeleteEmbeddingSet(request, metadata=served.caller())
    assert await refused(again) == ("NOT_FOUND", "EMBEDDING_SET_NOT_FOUND", None)


@pytest.mark.parametrize(
    ("name", "texts", "said"),
    [
        ("", ["a"], ("INVALID_ARGUMENT", "FIELD_REQUIRED", "name")),
        ("9", ["a"], ("INVALID_ARGUMENT", "FIELD_INVALID", "name")),
        ("n", [], ("INVALID_ARGUMENT", "FIELD_REQUIRED", "texts")),
        ("n", [" "], ("INVALID_ARGUMENT", "FIELD_REQUIRED", "texts[0]")),
        ("n", ["a"] * 501, ("INVALID_ARGUMENT", "FIELD_TOO_LONG", "texts")),
    ],
)
async def test_a_bad_set_names_the_field(served: Any, name: str, texts: list[str], said: Any) -> None:
    assert await refused(add(served, name, *texts)) == said
