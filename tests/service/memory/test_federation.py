"""Recalling from several clusters: three real services, one of which is gone when it is asked."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from services.memory.settings import MemorySettings
from tests.service.memory.calls import recall, refused, remember, say
from tests.service.memory.conftest import Served, serve
from tests.support.identity import make_keys


@pytest.fixture
async def clusters(tmp_path: Path) -> AsyncIterator[dict[str, Served]]:
    """`home` knows `eu` and `us`, and `gone`, where nobody answers."""
    keys = make_keys(tmp_path)
    async with AsyncExitStack() as stack:
        eu, us = [await stack.enter_async_context(serve(keys, {})) for _ in range(2)]
        with silent() as gone:
            named = f"eu={eu.address},us={us.address},gone={gone}"
            home = await stack.enter_async_context(serve(keys, {"clusters": named, "cluster_patience": 3}))
            yield {"home": home, "eu": eu, "us": us}


def silent() -> Any:
    """An address that takes connections and says nothing."""

    @contextmanager
    def listening() -> Any:
        with socket.create_server(("127.0.0.1", 0)) as server:
            yield f"127.0.0.1:{server.getsockname()[1]}"

    return listening()


def found(answer: Any) -> list[tuple[str, str]]:
    return [(match.memory.cluster, match.memory.content) for match in answer.matches]


async def test_the_best_of_all_clusters_come_in_one_order(clusters: dict[str, Served]) -> None:
    await remember(clusters["home"], "The launch of the rocket is in March.")
    await remember(clusters["eu"], "The rocket launch in March was moved to April.")
    await remember(clusters["us"], "Bananas are yellow.")
    answer = await recall(clusters["home"], "When is the rocket launch in March?", clusters=["eu", "us"])
    assert {place for place, _ in found(answer)[:2]} == {"", "eu"}
    relevances = [match.relevance for match in answer.matches]
    assert relevances == sorted(relevances, reverse=True)
    assert list(answer.coverage.missing_clusters) == []


async def test_without_being_named_no_cluster_is_asked(clusters: dict[str, Served]) -> None:
    await remember(clusters["eu"], "The rocket launch is in April.")
    assert found(await recall(clusters["home"], "rocket launch")) == []


async def test_a_cluster_that_does_not_answer_is_named_and_the_others_answer(clusters: dict[str, Served]) -> None:
    await remember(clusters["us"], "The rocket launch is in May.")
    answer = await recall(clusters["home"], "rocket launch", clusters=["*"])
    assert found(answer) == [("us", "The rocket launch is in May.")]
    assert list(answer.coverage.missing_clusters) == ["gone"]


async def test_what_two_clusters_keep_is_there_once_and_the_limit_holds(clusters: dict[str, Served]) -> None:
    for place in ("home", "eu", "us"):
        await remember(clusters[place], "The rocket launch is in June.")
    await remember(clusters["eu"], "The rocket has two launch towers.")
    answer = await recall(clusters["home"], "rocket launch", clusters=["eu", "us"], limit=2)
    assert sorted(text for _, text in found(answer)) == [
        "The rocket has two launch towers.",
        "The rocket launch is in June.",
    ]


async def test_another_cluster_shows_a_tenant_its_own_memories_alone(clusters: dict[str, Served]) -> None:
    await remember(clusters["eu"], "The rocket launch is in July.", tenant="globex")
    assert found(await recall(clusters["home"], "rocket launch", clusters=["eu"])) == []
    theirs = await recall(clusters["home"], "rocket launch", tenant="globex", clusters=["eu"])
    assert found(theirs) == [("eu", "The rocket launch is in July.")]


async def test_a_filter_holds_in_every_cluster(clusters: dict[str, Served]) -> None:
    await remember(clusters["eu"], "The rocket launch is in August.", tags=["plan"])
    await remember(clusters["us"], "The rocket launch was a success.", tags=["report"])
    answer = await recall(clusters["home"], "rocket launch", clusters=["eu", "us"], tags=["report"])
    assert [place for place, _ in found(answer)] == ["us"]


async def test_what_other_clusters_let_through_passes_the_policy_of_this_one(tmp_path: Path) -> None:
    keys = make_keys(tmp_path)
    forbidden = {
        "name": "not_in_prompts", "type": "keyword", "severity": "SEVERITY_SEVERE", "action": "RULE_ACTION_BLOCK",
        "target": "RULE_TARGET_PROMPT", "keywords": ["salary"],
    }  # fmt: skip
    redacted = {
        "name": "no_ssn", "type": "regex", "severity": "SEVERITY_SEVERE", "target": "RULE_TARGET_PROMPT",
        "pattern": r"\d{3}-\d{2}-\d{4}", "action": "RULE_ACTION_REDACT",
    }  # fmt: skip
    async with (
        serve(keys, {}) as eu,
        serve(keys, {"clusters": f"eu={eu.address}", "cluster_patience": 3}, forbidden, redacted) as home,
    ):
        for number, text in enumerate(("The salary of Ada is high.", "Ada has 123-45-6789.", "Ada is in Turin.")):
            await say(eu, "s", number, "ada", text, remember=True)
        answer = await recall(home, "Where is Ada?", clusters=["eu"], neighbours=2, limit=9)
        told = str(answer)
        assert answer.coverage.withheld == 1
        assert "Turin" in told
        assert "Ada has " in told
        assert "salary of" not in told
        assert "123-45" not in told
        assert [len(match.neighbours) for match in answer.matches] == [1, 1]
        noted = {"phone": "987-65-4321", "salary": "much", "room": "7"}
        await remember(eu, "Grace is in Rome.", tags=["salary", "rome"], metadata=noted)
        (match,) = (await recall(home, "Where is Grace?", clusters=["eu"], limit=1)).matches
        assert list(match.memory.tags) == ["rome"]
        assert match.memory.metadata["room"] == "7"
        assert "987-65" not in str(match.memory)
        assert "much" in match.memory.metadata.values()
        assert "salary" not in match.memory.metadata


async def test_a_cluster_nobody_named_is_refused(clusters: dict[str, Served]) -> None:
    code, reason, field = await refused(recall(clusters["home"], "rocket", clusters=["mars"]))
    assert (code, reason, field) == ("INVALID_ARGUMENT", "FIELD_INVALID", "clusters")


def test_a_cluster_without_an_address_stops_the_start() -> None:
    with pytest.raises(ValueError, match="eu is not name=host:port"):
        MemorySettings.model_validate({"postgres_dsn": "postgres://x", "identity_keys": "k", "clusters": "eu"})
