"""What an agent is given to know: tail, summary, facts and memories within a budget."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from agentnet.memory.v1 import conversation_service_pb2 as talk
from services.memory.tokens import estimate
from shared.errors import from_status
from tests.service.memory.calls import context, record, refused, remember, say, say_many


async def conversation(served: Any, session: str) -> Any:
    request = talk.GetConversationRequest(session_id=session)
    return await served.conversations.GetConversation(request, metadata=served.caller())


async def compact(served: Any, session: str, **more: Any) -> Any:
    request = talk.CompactConversationRequest(session_id=session, **more)
    return await served.conversations.CompactConversation(request, metadata=served.caller())


async def test_the_orchestrators_way_of_asking_works_as_ever(served: Any) -> None:
    await say(served, "old", 1, "Athena", "We chose Postgres for the ledger.", remember=True)
    await say(served, "new", 1, "Apollo", "Hello.", remember=True)
    answer = await context(served, "new", query="Which database for the ledger?")
    assert [turn.content for turn in answer.short_term] == ["Hello."]
    assert [match.memory.content for match in answer.semantic] == ["We chose Postgres for the ledger."]
    assert answer.semantic[0].score > 0.25
    assert (answer.degraded, answer.HasField("assembled")) == (False, False)


async def test_without_embeddings_the_tail_still_comes(served: Any) -> None:
    await say(served, "s", 1, "Athena", "Only this.")
    served.embedder.away = True
    answer = await context(served, "s", query="What?")
    assert [turn.content for turn in answer.short_term] == ["Only this."]
    assert answer.degraded


async def test_everything_known_comes_in_one_text_under_its_headings(served: Any) -> None:
    await remember(served, "The launch is planned for March.", agent="Athena")
    await remember(served, "Customers like blue.", tags=["launch"], memory_type="MEMORY_TYPE_EPISODIC")
    await record(served, ("user:ada", "prefers language", "German"))
    for number in range(12):
        await say(served, "s", number, "Apollo", f"Point number {number} about the launch.")
    answer = await context(
        served, "s", query="When is the launch planned?", max_turns=3,
        options={
            "tags": ["launch"], "subjects": ["user:ada"], "handoff_from": "Apollo", "handoff_note": "Ask about the budget.",
        },
    )  # fmt: skip
    text = answer.assembled.text
    order = [
        "Handed over to you:\nApollo hands over to you.\nAsk about the budget.", "Earlier in this conversation:\nApollo: Point",
        "What is so:\n- user:ada prefers language: German", "The launch is planned for March.", "Customers like blue.",
        "The last turns:\nApollo: Point number 9", "Apollo: Point number 11",
    ]  # fmt: skip
    assert [text.find(part) for part in order] == sorted(text.find(part) for part in order)
    assert -1 not in [text.find(part) for part in order]
    assert answer.assembled.token_count == estimate(text) <= 2_000
    assert [fact.object for fact in answer.assembled.facts] == ["German"]
    assert [one.content for one in answer.assembled.episodes] == ["Customers like blue."]
    assert answer.assembled.left_out == 0


@pytest.mark.parametrize("budget", [1, 20, 60, 150, 400])
async def test_the_budget_holds_whatever_there_is_to_say(served: Any, budget: int) -> None:
    for number in range(30):
        await remember(served, f"Long memory {number}: " + "the project moved on, and on, again. " * 8)
        await say(served, "s", number, "Apollo", f"Turn {number}: " + "a lot was said about the project. " * 6)
    await record(served, *[("user:ada", f"likes {n}", "many things, of many kinds") for n in range(10)])
    options = {"max_tokens": budget, "subjects": ["user:ada"], "handoff_from": "Apollo", "handoff_note": "note " * 200}
    answer = await context(served, "s", query="the project", max_matches=20, options=options)
    text = answer.assembled.text
    assert budget * 0.7 - 15 <= estimate(text) <= budget
    assert answer.assembled.left_out > 0
    assert all(part in text for part in ("note note", "Turn 29", "Long memory")) or budget < 150
    assert "user:ada likes" in text or budget < 400


async def test_what_one_part_leaves_of_the_budget_is_the_others(served: Any) -> None:
    await record(served, ("user:ada", "likes", "tea"))
    for number in range(10):
        await remember(served, f"The launch was moved for the {number}. time.")
    options = {"max_tokens": 130, "subjects": ["user:ada"], "handoff_from": "Apollo", "handoff_note": "Ask Ada. " * 8}
    answer = await context(served, "s", query="the launch", max_matches=20, options=options)
    assert answer.assembled.text.count("Ask Ada.") == 8
    assert "likes: tea" in answer.assembled.text
    assert answer.assembled.text.count("The launch was moved") >= 3
    assert estimate(answer.assembled.text) > 100


async def test_the_newest_turn_is_the_last_to_go(served: Any) -> None:
    for number in range(10):
        await say(served, "s", number, "Apollo", f"turn {number} " + "word " * 20)
    answer = await context(served, "s", options={"max_tokens": 120})
    assert "turn 9" in answer.assembled.text
    assert "The last turns:\nApollo: turn 0" not in answer.assembled.text


async def test_the_ring_is_bounded_and_what_leaves_it_is_summarised(served: Any) -> None:
    for number in range(60):
        held = await say(served, "s", number, "Athena", f"Decision {number}: we must ship module {number}.")
    answer = await conversation(served, "s")
    assert held == 50
    assert [turn.content for turn in answer.turns][:1] == ["Decision 10: we must ship module 10."]
    assert answer.conversation.summarized_turns == 10
    assert "Decision 0: we must ship module 0." in answer.conversation.summary
    assert await say(served, "s", 59, "Athena", "again") == 50


async def test_compaction_keeps_the_newest_word_for_word(served: Any) -> None:
    for number in range(20):
        await say(served, "s", number, "Athena", f"Turn {number} says that {number} is decided. " * 5)
    answer = await compact(served, "s", keep_turns=4, max_summary_tokens=120)
    kept = await conversation(served, "s")
    assert answer.folded_turns == 16
    assert [turn.turn_id for turn in kept.turns] == ["s-16", "s-17", "s-18", "s-19"]
    assert kept.turns[0].content == "Turn 16 says that 16 is decided. " * 5
    assert 0 < estimate(kept.conversation.summary) <= 120
    assert kept.conversation.token_count == estimate(kept.conversation.summary) + sum(
        turn.token_count + 1 + estimate("Athena") for turn in kept.turns
    )
    assert (await compact(served, "s", keep_turns=4)).folded_turns == 0
    shorter = await compact(served, "s", keep_turns=4, max_summary_tokens=40)
    assert (shorter.folded_turns, shorter.conversation.summarized_turns) == (0, 16)
    assert 0 < estimate(shorter.conversation.summary) <= 40
    bad = compact(served, "s", keep_turns=51)
    assert await refused(bad) == ("INVALID_ARGUMENT", "FIELD_INVALID", "keep_turns")


async def test_a_session_without_turns_has_an_empty_conversation(served: Any) -> None:
    answer = await conversation(served, "nothing")
    assert (list(answer.turns), answer.conversation.token_count) == ([], 0)
    assert await refused(conversation(served, "")) == ("INVALID_ARGUMENT", "FIELD_REQUIRED", "session_id")


async def test_a_turn_of_an_earlier_session_influences_a_later_one(served: Any) -> None:
    await record(served, ("user:ada", "prefers tone", "dry"))
    await say(served, "monday", 1, "Athena", "Ada decided to drop the mobile app.", remember=True)
    answer = await context(served, "friday", query="What about the mobile app?", options={"subjects": ["user:ada"]})
    assert "Ada decided to drop the mobile app." in answer.assembled.text
    assert "prefers tone: dry" in answer.assembled.text


@pytest.mark.parametrize("settings", [{"automatic_context": False, "automatic_episodes": False}])
async def test_storing_and_injecting_can_be_switched_off(served: Any) -> None:
    await say(served, "old", 1, "Athena", "Something worth keeping.", remember=True)
    answer = await context(served, "new", query="Something worth keeping")
    assert (list(answer.semantic), answer.unsearched) == ([], True)
    assert served.embedder.calls == []


async def test_matches_can_be_asked_for_alone(served: Any) -> None:
    await say(served, "old", 1, "Athena", "We chose Postgres.", remember=True)
    await say(served, "new", 1, "Apollo", "Hello.")
    answer = await context(served, "new", query="Postgres", max_turns=-1)
    assert [match.memory.content for match in answer.semantic] == ["We chose Postgres."]
    assert (list(answer.short_term), answer.unsearched) == ([], False)
    both = context(served, "new", max_turns=-1, options={"max_tokens": 9})
    assert await refused(both) == ("INVALID_ARGUMENT", "FIELD_INVALID", "max_turns")
    assert await refused(context(served, "new", max_turns=-2)) == ("INVALID_ARGUMENT", "FIELD_INVALID", "max_turns")


async def test_turns_of_many_sessions_come_in_one_call(served: Any) -> None:
    answer = await say_many(
        served, ("a", 1, "Athena", "Blue."), ("b", 1, "Apollo", "Red."), ("a", 2, "Athena", "Green.")
    )
    assert list(answer.refused) == []
    assert [turn.content for turn in (await conversation(served, "a")).turns] == ["Blue.", "Green."]
    assert [turn.content for turn in (await conversation(served, "b")).turns] == ["Red."]
    assert len(served.embedder.calls) == 3
    await say_many(served, ("a", 1, "Athena", "Blue."), ("a", 3, "Athena", "Black."))
    assert [turn.content for turn in (await conversation(served, "a")).turns] == ["Blue.", "Green.", "Black."]
    found = await context(served, "c", query="Blue. Green. Black.", max_matches=20)
    assert sorted(match.memory.content for match in found.semantic) == ["Black.", "Blue.", "Green."]


async def test_a_turn_that_is_wrong_is_no_harm_to_the_others(served: Any) -> None:
    answer = await say_many(
        served, ("a", 1, "", "Nobody."), ("a", 2, "Athena", "Somebody."), ("", 3, "Athena", "Nowhere.")
    )
    reasons = [(one.turn_id, from_status(one.status).reason_name) for one in answer.refused]
    assert reasons == [("a-1", "FIELD_REQUIRED"), ("-3", "FIELD_REQUIRED")]
    assert [turn.content for turn in (await conversation(served, "a")).turns] == ["Somebody."]


async def test_at_most_256_turns_come_in_one_call(served: Any) -> None:
    many = [("a", number, "Athena", "x") for number in range(257)]
    assert await refused(say_many(served, *many)) == ("INVALID_ARGUMENT", "FIELD_TOO_LONG", "turns")


async def test_many_turns_of_a_session_are_folded(served: Any) -> None:
    await say_many(served, *[("a", number, "Athena", f"Point {number}.") for number in range(70)])
    found = await conversation(served, "a")
    assert (len(found.turns), found.conversation.summarized_turns) == (50, 20)


async def test_a_very_long_turn_becomes_several_episodes(served: Any) -> None:
    await say(served, "old", 1, "Athena", "word " * 20_000, remember=True)
    answer = await context(served, "new", query="word", max_matches=20)
    lengths = sorted(len(match.memory.content) for match in answer.semantic)
    assert lengths == [100_000 - 3 * 32_768, 32_768, 32_768, 32_768]


async def test_a_context_of_then_has_what_was_said_until_then(served: Any) -> None:
    for number in range(4):
        await say(served, "s", number, "Athena", f"Point {number}.")
        served.clock.advance(timedelta(hours=1))
    answer = await context(served, "s", max_turns=1, options={"as_of": "2026-01-01T01:30:00Z"})
    assert [turn.content for turn in answer.short_term] == ["Point 1."]
    assert (
        answer.assembled.text == "Earlier in this conversation:\nAthena: Point 0.\n\nThe last turns:\nAthena: Point 1."
    )
    await compact(served, "s", keep_turns=1)
    answer = await context(served, "s", options={"as_of": "2026-01-01T01:30:00Z"})
    assert answer.assembled.text == ""
