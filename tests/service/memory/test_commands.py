"""`agentnet memory …` against the memory service itself."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from typer.testing import CliRunner

from agentnet.cli.main import app
from agentnet.client.errors import AgentNetError
from agentnet.client.transport import Transport
from agentnet.memory.v1 import change_pb2
from tests.service.memory.calls import remember_many, say


@pytest.fixture(autouse=True)
def _mesh(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def options(_transport: Transport, *, timeout: float | None = 10.0) -> Any:
        return {"metadata": served.caller(), "timeout": timeout}

    monkeypatch.setattr(Transport, "options", options)
    monkeypatch.setenv("AGENTNET_TOKEN", "a.b.c")
    monkeypatch.setenv("AGENTNET_ADDRESS", served.address)


async def said(*words: str) -> str:
    result = await asyncio.to_thread(CliRunner().invoke, app, ["memory", *words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return "".join(line for line in result.output.splitlines(keepends=True) if "rpc.finished" not in line)


async def test_what_is_stored_is_found_explained_shown_and_forgotten() -> None:
    options = ("--agent", "Athena", "--tag", "launch", "--note", "origin=mail", "--importance", "0.9")
    kept = (await said("store", "The harbour opens in [May].", "--session", "s", *options)).split()[1]
    await said("store", "Nobody met the cat.", "--type", "episodic")

    lines = (await said("search", "harbour", "--explain", "--limit", "1")).splitlines()
    assert lines[0].split()[1:] == [kept, "2026-01-01", "00:00", "Athena", "s", "#launch"]
    assert lines[1].strip() == "The harbour opens in [May]."
    assert "cosine 0." in lines[2]
    assert "words +" in lines[2]
    assert lines[2].endswith("words: harbour")

    assert "cat" in await said("search", "harbour cat", "--type", "episodic")
    assert "cat" not in await said("search", "harbour cat", "--tag", "launch", "--by", "lexical")
    assert await said("search", "harbour", "--as-of", "2025-06-01") == "nothing was found\n"
    shown = await said("get", kept)
    assert '"tags": [\n    "launch"\n  ]' in shown
    assert '"origin": "mail"' in shown
    assert '"create_time": "2026-01-01T00:00:00Z"' in shown

    gone = await said("forget", kept)
    assert gone.startswith(f"{kept} is gone receipt rct_")
    with pytest.raises(AgentNetError) as raised:
        await said("get", kept)
    assert raised.value.suggestion.startswith("`agentnet memory search` finds memories")


async def test_what_is_kept_is_listed_and_changed() -> None:
    assert await said("list") == "nothing is kept\n"
    kept = (await said("store", "The harbour opens.", "--tag", "a", "--note", "origin=mail")).split()[1]
    again = await said("store", "The harbour opens.", "--tag", "b")
    assert again == f"{kept} was there already and stays as it is\n"
    await said("store", "Nobody met the cat.", "--type", "episodic", "--expires", "2027-01-31")
    lines = (await said("list", "--type", "episodic")).splitlines()
    assert lines[0].endswith("2026-01-01 00:00 until 2027-01-31 00:00 ")
    assert [line.strip() for line in lines[1:]] == ["Nobody met the cat."]
    assert "cat" not in await said("list", "--tag", "a")
    assert len((await said("list", "--limit", "1")).splitlines()) == 2

    await said("store", "long " * 100)
    assert (await said("list", "--limit", "1")).splitlines()[1] == f"  {'long ' * 40}…"

    changed = await said("edit", kept, "The harbour closes.", "--tag", "b", "--expires", "2027-02-01")
    assert changed.splitlines()[0].split() == [kept, "2026-01-01", "00:00", "until", "2027-02-01", "00:00", "#b"]
    assert '"origin": "mail"' in await said("get", kept)
    await said("edit", kept, "--note", "origin=call", "--importance", "0.9", "--forever")
    shown = await said("get", kept)
    assert "closes" in shown
    assert '"origin": "call"' in shown
    assert "expire_time" not in shown


async def test_a_search_is_narrowed_by_time_importance_and_notes() -> None:
    await said("store", "The harbour opens.", "--note", "origin=mail", "--importance", "0.2")
    fits = (
        "--since",
        "2026-01-01",
        "--until",
        "2026-01-02",
        "--min-importance",
        "0.1",
        "--where",
        "metadata.origin=mail",
    )
    assert "opens" in await said("search", "harbour", *fits)
    for narrower in (("--since", "2026-01-02"), ("--until", "2026-01-01"), ("--min-importance", "0.3"),
                     ("--where", "metadata.origin=call")):  # fmt: skip
        assert await said("search", "harbour", *narrower) == "nothing was found\n"


async def test_without_an_embedding_words_decide_and_it_is_said(served: Any) -> None:
    await said("store", "The harbour opens in May.")
    served.embedder.away = True
    assert "found by words alone" in await said("search", "harbour")


async def test_receipts_are_listed_the_last_first_and_of_one_thing(served: Any) -> None:
    assert await said("receipts") == "there are no receipts\n"
    kept = [(await said("store", f"harbour {n}")).split()[1] for n in range(3)]
    for one in kept:
        await said("forget", one)
        served.clock.advance(timedelta(days=1))
    assert [line.split()[0] for line in (await said("receipts", "--limit", "2")).splitlines()] == kept[:0:-1]
    (line,) = (await said("receipts", kept[0], "--by", "ada")).splitlines()
    assert line.startswith(f"{kept[0]} is gone receipt rct_")
    assert line.endswith("2026-01-01 00:00 by ada")
    request = change_pb2.GetReceiptRequest(receipt_id=line.split()[4])
    assert (await served.bulk.GetReceipt(request, metadata=served.caller())).receipt.subject_id == kept[0]
    assert await said("receipts", "--by", "retention") == "there are no receipts\n"


async def test_many_are_forgotten_and_only_some_receipts_printed(served: Any) -> None:
    await remember_many(served, [{"content": f"harbour {n}", "session_id": "s"} for n in range(12)])
    lines = (await said("forget", "--session", "s")).splitlines()
    assert len(lines) == 11
    assert lines[-1] == "and 2 more"
    assert await said("forget", "--session", "s") == "there was nothing to forget\n"


async def test_facts_are_recorded_listed_as_of_then_and_forgotten(served: Any) -> None:
    assert await said("facts") == "nothing is known\n"
    await said("facts", "user:ada", "--record", "lives_in=Turin")
    served.clock.advance(timedelta(days=2))
    now = await said("facts", "user:ada", "--record", "lives_in=Milan", "--record", "likes=a=b")
    assert now.splitlines() == [
        "user:ada likes a=b since 2026-01-03 00:00", "user:ada lives_in Milan since 2026-01-03 00:00",
    ]  # fmt: skip
    assert (await said("facts", "user:ada", "--as-of", "2026-01-02T00:00Z")).startswith("user:ada lives_in Turin")
    past = await said("facts", "--relation", "lives_in", "--history")
    assert "Turin since 2026-01-01 00:00 until 2026-01-03 00:00" in past
    assert len((await said("forget", "--facts", "user:ada")).splitlines()) == 3


async def test_memories_of_another_model_are_embedded_anew_and_it_is_told_how_many_remain(served: Any) -> None:
    await remember_many(served, [{"content": f"harbour {n}"} for n in range(250)])
    assert await said("reembed") == "0 done, 0 remain\n"
    served.embedder.model = "newer"
    assert await said("reembed", "--dry-run") == "0 done, 250 remain\n"
    assert await said("reembed") == "200 done, 50 remain\n250 done, 0 remain\n"
    assert await said("reembed", "--dry-run") == "0 done, 0 remain\n"


async def test_the_context_of_an_agent_is_printed(served: Any) -> None:
    await say(served, "s", 1, "ada", "Move the launch to [March].")
    told = await said("context", "s", "Athena", "--handoff-from", "Zeus", "--handoff-note", "She wants March.")
    assert "ada: Move the launch to [March]." in told
    assert "She wants March." in told
    assert await said("context", "none", "Athena", "launch") == "nothing is known\n"


async def test_what_is_kept_is_shown_with_its_bounds(served: Any) -> None:
    await remember_many(served, [{"content": "abc", "memory_type": "MEMORY_TYPE_LONG_TERM"}])
    await say(served, "s", 1, "ada", "Once.")
    served.clock.advance(timedelta(days=3))
    assert await said("retain", "conversation", "--days", "2") == "set; 1 are beyond their bounds now\n"
    assert await said("retain", "long-term", "--at-most", "5000") == "set; 1 are beyond their bounds now\n"
    rows = [line.split() for line in (await said("stats")).splitlines()]
    assert rows[1:] == [
        ["long-term", "1", "2026-01-01", "00:00", "5,000", "-"],
        ["conversation", "1", "2026-01-01", "00:00", "-", "2"],
        ["0.0%", "of", "2,000,000", "memories"],
    ]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("store", "x", "--note", "origin"), "error: --note is origin. Write it as name=value."),
        (("facts", "--record", "a=b"), "error: --record needs a subject. Name it before"),
        (("search", "x", "--as-of", "May"), "error: --as-of is May. Write it as 2026-01-31"),
        (("forget",), "error: name memories, or --session, --agent and --tag, or --facts. See"),
        (("forget", "mem_1", "--tag", "x"), "error: name memories, or --session"),
    ],
)
async def test_what_makes_no_sense_is_told_in_a_sentence_with_a_suggestion(words: tuple[str, ...], told: str) -> None:
    assert (await said(*words)).startswith(told)
