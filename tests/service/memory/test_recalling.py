"""Finding again over gRPC: strategies, filters, scores and what they are made of."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest

from agentnet.memory.v1 import memory_service_pb2 as pb
from tests.service.memory.calls import found, recall, refused, remember, remember_many


async def test_meaning_and_words_decide_together_and_the_score_is_told(served: Any) -> None:
    await remember_many(served, [{"content": text} for text in ("Paris is in France", "Bananas are yellow", "Go home")])
    answer = await recall(served, "Where is Paris?", explain=True)
    best = answer.matches[0]
    assert best.memory.content == "Paris is in France"
    assert 0 < best.relevance <= 1
    assert best.explanation.matched_terms == ["pari"]
    assert best.explanation.bm25 > 0
    assert best.explanation.cosine == pytest.approx(best.score)
    odds = sum(best.explanation.parts.values())
    assert best.relevance == pytest.approx(1 / (1 + math.exp(-odds)), abs=1e-3)
    assert [match.relevance for match in answer.matches] == sorted((m.relevance for m in answer.matches), reverse=True)


async def test_the_strategies_search_as_they_say(served: Any) -> None:
    await remember(served, "Ticket ABC-123 is open")
    asked = len(served.embedder.calls)
    assert await found(served, "abc", strategy="SEARCH_STRATEGY_LEXICAL") == ["Ticket ABC-123 is open"]
    assert len(served.embedder.calls) == asked
    assert await found(served, "abc ticket", strategy="SEARCH_STRATEGY_DENSE") == ["Ticket ABC-123 is open"]
    assert len(served.embedder.calls) == asked + 1
    assert await found(served, "abc", embedding=[0.0] * 383 + [1.0], min_score=0.9) == []


async def test_without_embeddings_words_alone_decide_and_the_answer_says_so(served: Any) -> None:
    await remember(served, "The printer is on floor three")
    served.embedder.away = True
    answer = await recall(served, "printer floor")
    assert (answer.degraded, [one.memory.content for one in answer.matches]) == (
        True,
        ["The printer is on floor three"],
    )
    dense = recall(served, "printer", strategy="SEARCH_STRATEGY_DENSE")
    assert await refused(dense) == ("UNAVAILABLE", "DEPENDENCY_UNAVAILABLE", None)


async def test_a_slip_of_the_fingers_still_finds(served: Any) -> None:
    await remember_many(served, [{"content": "Kubernetes upgrade went well"}, {"content": "Kudos to the team"}])
    assert (await found(served, "kubrenetes", strategy="SEARCH_STRATEGY_LEXICAL"))[:1] == [
        "Kubernetes upgrade went well"
    ]
    assert await found(served, "zzzzzz", strategy="SEARCH_STRATEGY_LEXICAL") == []


async def test_a_slip_of_the_fingers_is_no_word_of_its_own(served: Any) -> None:
    many = [
        {"content": "Ada Lovelace lives in Turin"},
        {"content": "The launch moved to March"},
        {"content": "Go home"},
    ]
    await remember_many(served, many)
    assert (await found(served, "Lovlace"))[:1] == ["Ada Lovelace lives in Turin"]
    assert (await found(served, "lanch?"))[:1] == ["The launch moved to March"]


async def test_filters_hold_for_every_match(served: Any) -> None:
    await remember_many(
        served,
        [
            {"content": "plan a", "agent": "Athena", "session_id": "s", "metadata": {"stage": "draft"}, "importance": 0.9},
            {"content": "plan b", "agent": "Apollo", "session_id": "s", "metadata": {"stage": "final"}},
            {"content": "plan c", "memory_type": "MEMORY_TYPE_LONG_TERM", "tags": ["x"], "turn_id": "t9"},
        ],
    )  # fmt: skip
    assert await found(served, "plan", filters={"metadata.stage": "draft"}) == ["plan a"]
    assert await found(served, "plan", filters={"turn_id": "t9"}) == ["plan c"]
    assert await found(served, "plan", memory_types=["MEMORY_TYPE_LONG_TERM"]) == ["plan c"]
    assert await found(served, "plan", agent="Apollo", session_id="s") == ["plan b"]
    assert await found(served, "plan", min_importance=0.8) == ["plan a"]
    assert await found(served, "plan", tags=["x"]) == ["plan c"]
    assert await found(served, "plan", filters={"policy_version": "p@1"}) == []


BAD = [
    ({"filters": {"colour": "red"}}, "FILTER_UNKNOWN", "filters"),
    ({"filters": {"metadata.": "red"}}, "FILTER_UNKNOWN", "filters"),
    ({"filters": {f"metadata.{n}": "" for n in range(17)}}, "FIELD_TOO_LONG", "filters"),
    ({"limit": 101}, "FIELD_INVALID", "limit"),
    ({"min_score": 2}, "FIELD_INVALID", "min_score"),
    ({"diversity": -1}, "FIELD_INVALID", "diversity"),
    ({"half_life": "-1s"}, "FIELD_INVALID", "half_life"),
    ({"neighbours": 6}, "FIELD_INVALID", "neighbours"),
    ({"strategy": 9}, "FIELD_INVALID", "strategy"),
    ({"memory_types": ["MEMORY_TYPE_SHORT_TERM"]}, "FIELD_INVALID", "memory_types"),
    ({"embedding": [1.0]}, "EMBEDDING_WIDTH_INVALID", "embedding"),
    ({"half_life": "0s"}, "FIELD_INVALID", "half_life"),
    ({"start_time": "2026-01-01T00:00:00Z", "end_time": "2026-01-01T00:00:00Z"}, "FIELD_INVALID", "end_time"),
]


@pytest.mark.parametrize(("given", "reason", "field"), BAD)
async def test_a_bad_question_names_the_field(served: Any, given: dict[str, Any], reason: str, field: str) -> None:
    assert await refused(recall(served, "plan", **given)) == ("INVALID_ARGUMENT", reason, field)


async def test_time_filters_and_as_of(served: Any) -> None:
    for day in (1, 2, 3):
        await remember(served, f"report of day {day}", create_time=f"2025-12-0{day}T00:00:00Z")
    window = {"start_time": "2025-12-02T00:00:00Z", "end_time": "2025-12-03T00:00:00Z"}
    assert await found(served, "report", **window) == ["report of day 2"]
    assert sorted(await found(served, "report", as_of="2025-12-02T00:00:00Z")) == ["report of day 1", "report of day 2"]


async def test_age_and_importance_weigh_as_told(served: Any) -> None:
    await remember(served, "coffee machine broke again", create_time="2025-06-01T00:00:00Z", importance=1.0)
    await remember(served, "coffee machine broke anew", importance=0.0)
    fresh = await recall(served, "coffee machine broke", half_life="2592000s", explain=True)
    weighty = await recall(served, "coffee machine broke", importance_weight=1.0)
    assert fresh.matches[0].memory.content == "coffee machine broke anew"
    assert fresh.matches[0].explanation.recency == 1.0
    assert fresh.matches[1].explanation.recency == pytest.approx(0.5 ** (214 / 30))
    assert weighty.matches[0].memory.content == "coffee machine broke again"


async def test_diversity_puts_something_else_second(served: Any) -> None:
    await remember_many(
        served, [{"content": text} for text in ("lunch at noon today", "lunch at noon today ok", "noon train leaves")]
    )  # fmt: skip
    plain = await found(served, "noon lunch today")
    diverse = await found(served, "noon lunch today", diversity=0.9)
    assert plain[:2] == ["lunch at noon today", "lunch at noon today ok"]
    assert diverse[:2] == ["lunch at noon today", "noon train leaves"]


@pytest.mark.parametrize("settings", [{"reranker": "brief"}])
async def test_a_reranker_of_the_settings_has_the_last_word_and_says_so(served: Any) -> None:
    await remember_many(served, [{"content": "lunch at noon"}, {"content": "lunch at noon " + "and nothing else " * 9}])
    answer = await recall(served, "noon lunch", explain=True)
    parts = [match.explanation.parts["reranker"] for match in answer.matches]
    assert parts[0] > 0 > parts[1]
    assert len((await recall(served, "noon lunch", limit=1, diversity=0.5)).matches) == 1
    assert await found(served, "zzz", strategy="SEARCH_STRATEGY_LEXICAL") == []


async def test_neighbours_come_in_their_order(served: Any) -> None:
    for number, text in enumerate(("Hello there", "Where were you born?", "In Quito", "Nice", "Bye")):
        await remember(served, text, session_id="s", agent="Ada")
        served.clock.advance(timedelta(seconds=number + 1))
    answer = await recall(served, "Quito", neighbours=1, limit=1)
    assert [one.content for one in answer.matches[0].neighbours] == ["Where were you born?", "Nice"]


async def test_every_match_has_all_its_own_neighbours(served: Any) -> None:
    for session in "ab":
        for text in ("Where were you?", "In Quito", "In old Quito", "Nice"):
            await remember(served, f"{text} {session}", session_id=session)
            served.clock.advance(timedelta(seconds=1))
    answer = await recall(served, "Quito", neighbours=1, limit=4, strategy="SEARCH_STRATEGY_LEXICAL")
    around = {match.memory.content: [one.content for one in match.neighbours] for match in answer.matches}
    assert around == {
        f"{text} {session}": [f"{one} {session}" for one in near]
        for session in "ab"
        for text, near in (("In Quito", ("Where were you?", "In old Quito")), ("In old Quito", ("In Quito", "Nice")))
    }


async def test_a_neighbour_never_slips_through_a_filter(served: Any) -> None:
    await remember(served, "Where were you born?", session_id="s", agent="Ada", tags=["ask"])
    served.clock.advance(timedelta(seconds=1))
    await remember(served, "In Quito", session_id="s", agent="Bob", tags=["tell"])
    served.clock.advance(timedelta(seconds=1))
    assert await found(served, "Where were you born?", tags=["ask"]) == ["Where were you born?"]
    assert await found(served, "born", agent="Ada", limit=5) == ["Where were you born?"]


async def test_what_was_found_is_noted_for_pruning(served: Any) -> None:
    await remember(served, "asked for")
    await found(served, "asked for")
    await served.chores[0].used.write()
    await served.chores[0].used.write()
    assert await found(served, "asked for") == ["asked for"]


async def test_an_instant_outside_the_calendar_is_refused(served: Any) -> None:
    request = pb.RecallRequest(query="plan")
    request.as_of.seconds = 10**15
    call = served.memories.Recall(request, metadata=served.caller())
    assert await refused(call) == ("INVALID_ARGUMENT", "FIELD_INVALID", "as_of")


async def test_a_half_life_no_duration_can_be_is_refused(served: Any) -> None:
    request = pb.RecallRequest(query="plan")
    request.half_life.seconds = 10**18
    call = served.memories.Recall(request, metadata=served.caller())
    assert await refused(call) == ("INVALID_ARGUMENT", "FIELD_INVALID", "half_life")


async def test_a_match_that_belongs_to_no_session_has_no_neighbours(served: Any) -> None:
    await remember(served, "Where were you born?", session_id="s")
    await remember(served, "born in Quito")
    answer = await recall(served, "born Quito", neighbours=2)
    assert [list(match.neighbours) for match in answer.matches] == [[], []]
