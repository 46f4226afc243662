"""`agentnet policy …` against the policy service itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from typer.testing import CliRunner

from agentnet.cli.main import app
from agentnet.client.errors import AgentNetError
from agentnet.client.governance import Policies
from agentnet.client.transport import Transport
from services.policy.store import Violation
from shared.monitors.rules import Severity
from tests.support.identity import make_keys
from tests.support.policy import PolicyParts, served_at

WORDS = "rules:\n  - {name: words, type: keyword, severity: severe, keywords: [mesh]}\n"


@pytest.fixture
async def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PolicyParts]:
    keys = make_keys(tmp_path, "policy")

    def options(_transport: Transport, *, timeout: float | None = 10.0) -> Any:
        return {"metadata": keys.metadata(), "timeout": timeout}

    monkeypatch.setattr(Transport, "options", options)
    monkeypatch.setenv("AGENTNET_TOKEN", "a.b.c")
    parts = PolicyParts(keys)
    async with served_at(parts) as address:
        monkeypatch.setenv("AGENTNET_ADDRESS", address)
        yield parts


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    file = tmp_path / "words.yaml"
    file.write_text(WORDS)
    return file


async def said(*words: str) -> str:
    result = await asyncio.to_thread(CliRunner().invoke, app, ["policy", *words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return "".join(line for line in result.output.splitlines(keepends=True) if "rpc.finished" not in line)


async def test_profiles_come_from_agents_yaml(parts: PolicyParts, bundle: Path, tmp_path: Path) -> None:
    bundle.write_text(WORDS + "  - {name: more, type: keyword, severity: minor, keywords: [x]}\n"
                      "profiles: {finance: {rules: [more]}}\n")  # fmt: skip
    agents = tmp_path / "agents.yaml"
    agents.write_text("agents:\n  - {name: Midas, version: 1.0.0, system_prompt: You count., profile: finance}\n")
    assert "stored" in await said("upload", str(bundle), "--agents", str(agents), "--label", "production")
    ((stored, *_), *_) = (await parts.store.enforced()).tenants.values()
    assert [rule.name for rule in stored.judged_by.for_agent("Midas").rules] == ["more"]
    assert [rule.name for rule in stored.judged_by.for_agent("Zeus").rules] == ["words", "more"]


async def test_a_file_is_stored_under_its_name_labelled_and_listed(parts: PolicyParts, bundle: Path) -> None:
    assert "stored words@1.0.0, 1 rule, labelled shadow" in await said("upload", str(bundle), "--label", "shadow")
    parts.clock.advance(timedelta(minutes=1))
    assert "words@1.0.1" in await said("upload", str(bundle))

    assert "words@1.0.1, 1 rule, labelled production" in await said("label", "words", "production")
    listed = await said("list")
    assert sorted(line.split()[:2] for line in listed.splitlines()[1:]) == [
        ["default@1.0.0", "built"],
        ["words@1.0.0", "shadow"],
        ["words@1.0.1", "production"],
    ]
    assert "labelled" not in await said("label", "words@1.0.0", "shadow", "--remove")


async def test_a_bundle_is_validated_and_nothing_is_stored(parts: PolicyParts, bundle: Path) -> None:
    assert "valid; of 0 recorded decisions" in await said("validate", str(bundle))

    bundle.write_text("rules:\n  - {name: words, type: nonsense, severity: severe}\n")
    with pytest.raises(AgentNetError, match="line 2"):
        await said("validate", str(bundle))
    assert "cannot be read" in await said("validate", str(bundle.with_name("none")))
    assert "words@" not in await said("list")


async def test_who_may_not_store_a_bundle_may_have_it_validated(
    parts: PolicyParts, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def simulate(_policies: Policies, _document: str) -> None:
        raise AgentNetError(
            "none of the caller's roles may", code=grpc.StatusCode.PERMISSION_DENIED, reason="ROLE_INSUFFICIENT"
        )

    monkeypatch.setattr(Policies, "simulate", simulate)  # as the edge refuses it
    assert "valid; 1 rule" in await said("validate", str(bundle))
    bundle.write_text("rules:\n  - {name: words, type: nonsense, severity: severe}\n")
    with pytest.raises(AgentNetError, match="line 2"):
        await said("validate", str(bundle))


async def test_what_was_caught_is_listed_with_its_turn_and_session(parts: PolicyParts) -> None:
    when = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)
    caught = [
        Violation(
            f"v-{place}", "ses_1", f"turn_{place}", "Athena", "words", Severity.SEVERE, "keyword", "a word", {}, when
        )
        for place in range(3)
    ]
    await parts.store.record("acme", caught)

    lines = (await said("violations", "--session", "ses_1", "--limit", "2")).splitlines()

    assert len(lines) == 2
    assert all(line.startswith("2026-01-01 12:30:00 words severe ses_1 turn_") for line in lines)
    assert all(line.endswith("Athena a word") for line in lines)
    assert "nothing was caught" in await said("violations", "--rule", "other")
