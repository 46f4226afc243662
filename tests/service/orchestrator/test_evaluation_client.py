"""The Python client, the helpers for users' own tests and the gate of the command line, against a served orchestrator."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agentnet.cli import evaluations as cli
from agentnet.cli.main import app
from agentnet.client import AgentNet, AgentNetError
from agentnet.client.transport import Transport
from agentnet.testing import AgentsUnderTest
from tests.service.orchestrator.conftest import Mesh
from tests.service.orchestrator.test_evaluations import GOOD, SEED
from tests.service.orchestrator.test_graph_client import Admitted


@pytest.fixture
async def client(mesh: Mesh) -> AsyncIterator[AgentNet]:
    async with AgentNet(Transport(Admitted(mesh.address, mesh.me()[0][1]))) as connected:
        yield connected


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    file = tmp_path / "suite.yaml"
    file.write_text(SEED)
    return file


def say(mesh: Mesh, text: str) -> None:
    mesh.world.inference.reply = lambda utterance: text


async def gate(mesh: Mesh, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str]:
    """The command's exit status and what it printed, in a thread: it has a loop of its own."""

    def connect(*_: Any) -> AgentNet:
        return AgentNet(Transport(Admitted(mesh.address, mesh.me()[0][1])))

    monkeypatch.setattr(cli.AgentNet, "connect", connect)
    done = await asyncio.to_thread(CliRunner().invoke, app, ["eval", *arguments])
    return done.exit_code, done.output


async def test_a_suite_is_run_listed_compared_and_cancelled(client: AgentNet, mesh: Mesh, suite: Path) -> None:
    say(mesh, GOOD)
    seen: list[int] = []
    first = await client.evaluations.run(suite)
    second = await client.evaluations.start(SEED, agents={"Hermes": "Apollo"}, baseline_id=first.id)
    second = await client.evaluations.wait(second.id, seen=lambda found: seen.append(found.cases_finished))
    kept = await client.evaluations.compare(second.id, first)
    named = await client.evaluations.compare(second.id, first.id)

    assert seen[-1] == 2
    assert kept == named == second.comparison
    assert second.scores[1].agents == ["Athena@1.0.0", "Apollo@1.0.0"]
    assert {found.id async for found in client.evaluations.list(suite="baseline_design_eval")} == {first.id, second.id}
    assert (await client.evaluations.cancel(first.id)).status == first.status, "an end is an end"
    with pytest.raises(AgentNetError, match="no evaluation evl_none") as refused:
        await client.evaluations.get("evl_none")
    assert "agentnet eval list" in refused.value.suggestion


async def test_the_gate_lets_what_is_as_good_pass_and_stops_what_got_worse(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch, suite: Path, tmp_path: Path
) -> None:
    mesh.laboratory.meaning.sets["ref_doc_12"] = [GOOD]
    baseline = tmp_path / "baseline.json"
    say(mesh, GOOD)
    made = await gate(mesh, monkeypatch, "run", str(suite), "--save", str(baseline))
    again = await gate(mesh, monkeypatch, "run", str(suite), "--baseline", str(baseline), "--max-regression", "0")
    say(mesh, "Redundancy alone.")
    worse = await gate(mesh, monkeypatch, "run", str(suite), "--baseline", str(baseline), "--max-regression", "0.1")
    lenient = await gate(mesh, monkeypatch, "run", str(suite), "--baseline", str(baseline), "--max-regression", "1")
    alone = await gate(mesh, monkeypatch, "run", str(suite), "--min-success", "0.5")
    failed = await gate(mesh, monkeypatch, "run", str(suite), "--json")

    assert [made[0], again[0], worse[0], lenient[0], alone[0], failed[0]] == [0, 0, 5, 0, 0, 4]
    assert "worse than the baseline" in worse[1]
    assert "success 1.00 → 0.00" in worse[1]
    assert "-Athena: Redundancy and failover" in worse[1]
    assert json.loads(failed[1][failed[1].index("{\n") : failed[1].index("\n}\n") + 2])["scores"][0]["passed"] is False
    assert json.loads(baseline.read_text())["success"]["passed"] == 2


async def test_a_scenario_that_was_dropped_does_not_pass_the_gate(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch, suite: Path, tmp_path: Path
) -> None:
    baseline, less = tmp_path / "baseline.json", tmp_path / "less.yaml"
    less.write_text(SEED[: SEED.index('  - name: "ethical_debate"')])
    await gate(mesh, monkeypatch, "run", str(suite), "--save", str(baseline))
    status, told = await gate(mesh, monkeypatch, "run", str(less), "--baseline", str(baseline), "--max-regression", "1")

    assert status == 5
    assert "ethical_debate is gone" in told


async def test_what_the_gate_cannot_read_is_an_error_and_no_verdict(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, suite: Path
) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    assert (await gate(mesh, monkeypatch, "run", str(tmp_path / "none.yaml")))[0] == 1
    assert (await gate(mesh, monkeypatch, "run", str(suite), "--baseline", str(broken)))[0] == 1
    assert (await gate(mesh, monkeypatch, "run", str(suite), "--agent", "Athena"))[0] == 2
    assert (await gate(mesh, monkeypatch, "list"))[0] == 0


@contextmanager
def fails(part: str) -> Any:
    with pytest.raises(AssertionError, match=part):
        yield


async def test_users_say_in_their_own_tests_what_must_hold(client: AgentNet, mesh: Mesh) -> None:
    agents = AgentsUnderTest(client)
    say(mesh, GOOD)
    heard = await agents.hear("Edge networks", agents=["Athena", "Apollo"], max_rounds=2)

    heard.should_include("failover", "edge network").should_exclude("blockchain").should_break_no_rule()
    heard.should_cost_at_most(micros_usd=28).should_end_within(seconds=60).should_end_by("max_rounds", "converged")
    heard.should_be_heard_from("Athena", "Apollo@1.0.0")
    with fails("nobody said \\['quorum'\\]"):
        heard.should_include("quorum")
    with fails("somebody said"):
        heard.should_exclude("FAILOVER")
    with fails("more than 27"):
        heard.should_cost_at_most(micros_usd=27)
    with fails("longer than"):
        heard.should_end_within(seconds=-1)
    with fails("did not act"):
        heard.should_be_stopped_by("no_pii")
    with fails("nothing was heard from"):
        heard.should_be_heard_from("Hermes")
    with fails("it ended by"):
        heard.should_end_by("policy_blocked")


async def test_users_gate_their_tests_on_a_suite_and_a_baseline(client: AgentNet, mesh: Mesh, suite: Path) -> None:
    agents = AgentsUnderTest(client)
    mesh.laboratory.meaning.sets["ref_doc_12"] = [GOOD]
    say(mesh, GOOD)
    baseline = await agents.should_pass(suite)
    say(mesh, "Redundancy alone.")

    with fails("1 of 2 runs passed\n.*missing: failover"):
        await agents.should_pass(suite)
    with fails("worse than the baseline: \\['resilience_planning'"):
        await agents.should_pass(suite, min_success=0, baseline=baseline)
    async with agents.draft("Draft", prompt="You are new.") as reference:
        heard = await agents.hear("Anything", agents=[reference])
    heard.should_be_heard_from(reference)
    with pytest.raises(AgentNetError, match="archived"):
        await agents.hear("Anything", agents=[reference])
