"""The export to Langfuse against a server that speaks its public API: what arrives, what is retried, what never waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from services.inference.langfuse.contract import ExportedGeneration, Said, Spent
from services.inference.langfuse.exporter import LangfuseExporter, Pace, exporting
from services.inference.langfuse.links import PromptLinks
from services.inference.langfuse.main import langfuse
from services.inference.langfuse.server import LangfuseServer as Server
from services.inference.langfuse.server import Project
from services.inference.langfuse.settings import LangfuseSettings
from services.inference.prompts.content import Content, Template, Variable, VariableType, digest
from services.inference.prompts.store import PromptVersion
from services.inference.providers.contract import Role
from shared.clock import FakeClock
from tests.service.inference.calls import until
from tests.support.langfuse_server import PUBLIC, LangfuseServer, langfuse_server
from tests.support.valkey import free_port

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
CONTENT = Content(
    (Template(Role.SYSTEM, "Be kind."), Template(Role.USER, "About {{topic}}?")),
    (Variable("topic", VariableType.STRING),), {"temperature": 0.2},
)  # fmt: skip
PROMPT = PromptVersion("greeting", digest(CONTENT), CONTENT, "why", "ada", NOON, 3)
ONE = ExportedGeneration(
    tenant_id="acme",
    id="gen_1",
    provider="openai",
    model="gpt-4o",
    messages=(Said("system", "Be kind."), Said("user", "About tea?", "Athena")),
    output="Tea is fine 💡.",
    spent=Spent(90, 40, cached_input_tokens=10, reasoning_tokens=2, micros_usd=1_234_567),
    started_at=NOON,
    first_token_at=NOON + timedelta(milliseconds=300),
    ended_at=NOON + timedelta(seconds=2),
    outcome="STOP",
    session_id="ses_1",
    agent="Athena@1.0.0",
    parameters={"temperature": 0.2, "max_tokens": 512},
    prompt=PROMPT,
    prompt_label="production",
)
BARE = replace(ONE, prompt=None, prompt_label="")
PACE = Pace(gather=timedelta(milliseconds=10), first_pause=timedelta(milliseconds=2), attempts=4)


@pytest.fixture
async def server() -> AsyncIterator[LangfuseServer]:
    async with langfuse_server() as running:
        yield running


@asynccontextmanager
async def exporter_to(
    server: LangfuseServer,
    pace: Pace = PACE,
    *,
    content: bool = True,
    secret: str = "",
    timeout: float = 5,
    clock: FakeClock | None = None,
) -> AsyncIterator[LangfuseExporter]:
    async with aiohttp.ClientSession() as session:
        key = secret or server.secret
        project = Project(server.url, PUBLIC, lambda: key, timedelta(seconds=timeout))
        api = Server(project, session)
        made = LangfuseExporter(
            api, PromptLinks(api, clock or FakeClock()), pace=pace, content=content, environment="dev"
        )
        async with exporting(made, grace=timedelta(seconds=3)) as exporter:
            yield exporter


async def test_a_generation_arrives_whole_with_its_trace_and_its_session(server: LangfuseServer) -> None:
    async with exporter_to(server) as exporter:
        assert exporter.offer(ONE)
    (trace,), (generation,) = server.bodies("trace-create"), server.bodies("generation-create")
    assert (trace["sessionId"], trace["name"], trace["userId"]) == ("ses_1", "Athena@1.0.0", "acme")
    assert generation["traceId"] == trace["id"]
    assert generation["input"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "About tea?", "name": "Athena"},
    ]
    assert generation["output"] == "Tea is fine 💡."
    assert (generation["model"], generation["modelParameters"]) == ("gpt-4o", {"temperature": 0.2, "max_tokens": 512})
    assert generation["usageDetails"] == {
        "input": 90, "input_cached_tokens": 10, "output": 40, "output_reasoning_tokens": 2, "total": 142,
    }  # fmt: skip
    assert generation["costDetails"] == {"total": 1.234567}
    assert (generation["startTime"], generation["completionStartTime"], generation["endTime"]) == (
        "2026-01-01T12:00:00.000Z", "2026-01-01T12:00:00.300Z", "2026-01-01T12:00:02.000Z",
    )  # fmt: skip
    assert generation["level"] == "DEFAULT"


async def test_a_generation_is_linked_to_its_prompt_version(server: LangfuseServer) -> None:
    async with exporter_to(server) as exporter:
        exporter.offer(ONE)
        exporter.offer(replace(ONE, id="gen_2"))
    ((published,),) = server.prompts.values()
    assert [(one["role"], one["content"]) for one in published["prompt"]] == [
        ("system", "Be kind."),
        ("user", "About {{topic}}?"),
    ]
    assert published["config"] == {"temperature": 0.2, "agentnet_digest": PROMPT.digest}
    assert published["labels"] == []
    for generation in server.bodies("generation-create"):
        assert (generation["promptName"], generation["promptVersion"]) == ("acme/greeting", 1)
        assert generation["metadata"]["prompt"] == PROMPT.reference
        assert (generation["metadata"]["prompt_number"], generation["metadata"]["prompt_label"]) == (3, "production")


async def test_a_version_published_before_is_found_by_its_digest_and_tenants_stay_apart(server: LangfuseServer) -> None:
    content = Content((Template(Role.USER, "Another"),))
    other = PromptVersion("greeting", digest(content), content, "", "ada", NOON, 4)
    async with exporter_to(server) as exporter:
        exporter.offer(replace(ONE, id="gen_1"))
        exporter.offer(replace(ONE, id="gen_2", prompt=other))
    async with exporter_to(server) as restarted:
        restarted.offer(replace(ONE, id="gen_3"))
        restarted.offer(replace(ONE, id="gen_4", tenant_id="other"))
    assert [len(versions) for versions in server.prompts.values()] == [2, 1]
    links = {
        one["metadata"]["generation_id"]: (one["promptName"], one["promptVersion"])
        for one in server.bodies("generation-create")
    }
    assert links == {
        "gen_1": ("acme/greeting", 1), "gen_2": ("acme/greeting", 2), "gen_3": ("acme/greeting", 1),
        "gen_4": ("other/greeting", 1),
    }  # fmt: skip


@pytest.mark.parametrize("fault", [403, 404, "garbage"])
async def test_a_prompt_langfuse_refuses_costs_the_link_and_not_the_generation(
    server: LangfuseServer, fault: int | str
) -> None:
    server.faults = [fault]
    async with exporter_to(server) as exporter:
        exporter.offer(ONE)
    (generation,) = server.bodies("generation-create")
    assert "promptName" not in generation
    assert generation["metadata"]["prompt"] == PROMPT.reference


async def test_a_refused_prompt_is_asked_for_again_after_minutes_and_not_at_every_generation(
    server: LangfuseServer,
) -> None:
    server.faults = [401]
    clock = FakeClock()
    async with exporter_to(server, replace(PACE, together=1), clock=clock) as exporter:
        for number in range(3):
            exporter.offer(replace(ONE, id=f"gen_{number}"))
        await until(lambda: len(server.events) == 6)
        assert server.prompts == {}
        clock.advance(timedelta(minutes=5))
        exporter.offer(replace(ONE, id="gen_3"))
    assert [one.get("promptVersion") for one in server.bodies("generation-create")] == [None, None, None, 1]
    assert sum("prompts" in path for path in server.paths) == 3  # refused once, then looked for and published


async def test_a_failed_generation_says_so(server: LangfuseServer) -> None:
    async with exporter_to(server) as exporter:
        exporter.offer(replace(BARE, failed=True, outcome="PROVIDER_TIMEOUT", output="half", first_token_at=None))
    (generation,) = server.bodies("generation-create")
    assert (generation["level"], generation["statusMessage"]) == ("ERROR", "PROVIDER_TIMEOUT")
    assert "completionStartTime" not in generation


async def test_without_content_no_text_leaves(server: LangfuseServer) -> None:
    async with exporter_to(server, content=False) as exporter:
        exporter.offer(BARE)
    assert "tea" not in str(server.events).lower()
    assert server.bodies("generation-create")[0]["usageDetails"]["total"] == 142


async def test_generations_go_together(server: LangfuseServer) -> None:
    async with exporter_to(server, replace(PACE, gather=timedelta(seconds=30), together=20)) as exporter:
        for number in range(20):
            exporter.offer(replace(BARE, id=f"gen_{number}"))
        await until(lambda: len(server.events) == 40)
    assert [len(batch) for batch in server.batches] == [40]


async def test_long_texts_are_cut_and_batches_stay_under_the_limit(server: LangfuseServer) -> None:
    long = replace(BARE, output="人" * 1_000_000, messages=(Said("user", "人" * 300_000), Said("user", "人" * 300_000)))
    async with exporter_to(server) as exporter:
        for number in range(3):
            exporter.offer(replace(long, id=f"gen_{number}"))
    assert len(server.batches) == 3
    for one in server.bodies("generation-create"):
        assert len(one["output"]) == 400_000
        assert [len(message["content"]) for message in one["input"]] == [300_000, 100_000]


PASSING: dict[str, list[Any]] = {
    "overloaded": [503, 500],
    "too many": [429, (429, {"retry-after": "0.01"})],
    "gateway timeout": [504, 408],
    "cut": ["cut", "cut"],
    "a proxy's page": ["garbage"],
}


@pytest.mark.parametrize("faults", PASSING.values(), ids=PASSING.keys())
async def test_what_passes_is_tried_again_until_it_is_in(server: LangfuseServer, faults: list[Any]) -> None:
    server.faults = list(faults)
    async with exporter_to(server) as exporter:
        exporter.offer(BARE)
    assert len(server.events) == 2


async def test_a_wait_that_is_asked_for_is_kept(server: LangfuseServer) -> None:
    server.faults = [(429, {"retry-after": "0.3"})]
    began = time.perf_counter()
    async with exporter_to(server) as exporter:
        exporter.offer(BARE)
        await until(lambda: len(server.events) == 2)
    assert time.perf_counter() - began >= 0.3


async def test_a_stalled_server_is_given_up_for_the_moment(server: LangfuseServer) -> None:
    server.faults = ["hang"]
    async with exporter_to(server, timeout=0.05) as exporter:
        exporter.offer(BARE)
        await until(lambda: len(server.events) == 2)


async def test_only_the_part_that_failed_in_passing_goes_again(server: LangfuseServer) -> None:
    server.refuse = {"generation-create": [500, 429]}
    async with exporter_to(server) as exporter:
        exporter.offer(BARE)
    assert server.batches == [["trace-create", "generation-create"], ["generation-create"], ["generation-create"]]
    assert len(server.events) == 2


async def test_a_part_that_is_refused_is_dropped_and_the_rest_is_in(server: LangfuseServer) -> None:
    server.refuse = {"generation-create": [400]}
    async with exporter_to(server) as exporter:
        exporter.offer(BARE)
        await until(lambda: len(server.events) == 1)
        exporter.offer(replace(BARE, id="gen_2"))
    assert [event["type"] for event in server.events.values()] == ["trace-create", "trace-create", "generation-create"]
    assert len(server.batches) == 2


async def test_an_answer_lost_on_the_way_makes_no_second_event(server: LangfuseServer) -> None:
    async with exporter_to(server) as exporter:
        exporter.offer(BARE)
    async with exporter_to(server) as exporter:
        exporter.offer(BARE)
    assert len(server.batches) == 2
    assert len(server.events) == 2


async def test_a_batch_too_large_for_the_server_is_halved(server: LangfuseServer) -> None:
    server.largest = 4000
    async with exporter_to(server) as exporter:
        for number in range(8):
            exporter.offer(replace(BARE, id=f"gen_{number}"))
    assert len(server.events) == 16


@pytest.mark.parametrize("status", [400, 401, 404])
async def test_a_request_refused_for_good_is_dropped_at_once(server: LangfuseServer, status: int) -> None:
    server.faults = [status]
    async with exporter_to(server) as exporter:
        exporter.offer(BARE)
        await until(lambda: len(server.paths) == 1)
        exporter.offer(replace(BARE, id="gen_2"))
    assert len(server.paths) == 2
    assert len(server.events) == 2


async def test_a_wrong_secret_is_refused_and_stops_nothing(server: LangfuseServer) -> None:
    async with exporter_to(server, secret="wrong") as exporter:
        assert exporter.offer(BARE)
    assert server.events == {}
    assert server.paths == ["POST /api/public/ingestion"]


async def test_a_generation_never_waits_and_a_full_queue_drops_the_newest(server: LangfuseServer) -> None:
    server.faults = ["hang"]
    async with exporter_to(server, replace(PACE, waiting=5, together=1), timeout=0.2) as exporter:
        exporter.offer(replace(BARE, id="gen_first"))
        await until(lambda: len(server.paths) == 1)
        began = time.perf_counter()
        taken = [exporter.offer(replace(BARE, id=f"gen_{number}")) for number in range(50)]
        assert time.perf_counter() - began < 0.05
        assert taken == [True] * 5 + [False] * 45
    assert len(server.bodies("generation-create")) == 6


async def test_the_queue_is_bounded_by_its_texts_too(server: LangfuseServer) -> None:
    async with exporter_to(server, replace(PACE, waiting_characters=1000)) as exporter:
        assert exporter.offer(BARE)
        assert not exporter.offer(replace(BARE, id="gen_2", output="x" * 1000))


async def test_a_server_that_is_gone_holds_the_end_up_no_longer_than_its_grace(server: LangfuseServer) -> None:
    gone = replace(server, url=f"http://127.0.0.1:{free_port()}")
    began = time.perf_counter()
    async with exporter_to(gone, replace(PACE, attempts=1000)) as exporter:
        exporter.offer(BARE)
        await asyncio.sleep(0)
    assert 2.5 < time.perf_counter() - began < 6


def settings(tmp_path: Path, **changes: Any) -> LangfuseSettings:
    base = {"listen": "127.0.0.1:0", "postgres_dsn": "postgres://nowhere", "identity_keys": tmp_path}
    return LangfuseSettings.model_validate(base | changes)


async def test_it_is_off_without_a_url_and_on_with_a_secret_by_reference(
    server: LangfuseServer, tmp_path: Path
) -> None:
    async with aiohttp.ClientSession() as session:
        async with langfuse(settings(tmp_path), session, FakeClock()) as nothing:
            assert nothing is None
        secret = tmp_path / "secret"
        secret.write_text(f"{server.secret}\n")
        chosen = settings(
            tmp_path, langfuse_url=server.url, langfuse_public_key=PUBLIC, langfuse_secret_key=f"file:{secret}"
        )
        async with langfuse(chosen, session, FakeClock()) as exporter:
            assert exporter
            exporter.offer(BARE)
    assert len(server.events) == 2
    assert server.secret not in repr(chosen)


@pytest.mark.parametrize(
    "changes",
    [
        {"langfuse_public_key": ""},
        {"langfuse_secret_key": "file:/nowhere/at/all"},
        {"langfuse_secret_key": "env:NOT_SET_ANYWHERE"},
        {"langfuse_secret_key": "sk-lf-the-secret-itself"},
        {"langfuse_url": "langfuse.example"},
    ],
)
def test_a_bad_setting_stops_the_start(tmp_path: Path, changes: dict[str, str]) -> None:
    good = {"langfuse_url": "http://langfuse.example", "langfuse_public_key": PUBLIC}
    with pytest.raises(ValueError, match="langfuse"):
        settings(tmp_path, **good | changes)
