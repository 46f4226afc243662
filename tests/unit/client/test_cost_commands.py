"""`agentnet cost …` against the cost service itself."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agentnet.cli.main import app
from agentnet.client.errors import AgentNetError
from agentnet.client.transport import Transport
from services.cost.errors import BudgetApprovalRequired
from services.cost.prices import Usage
from tests.service.cost.conftest import Served, keys, served
from tests.support.cost import call, document
from tests.support.identity import Keys

__all__ = ("keys", "served")


@pytest.fixture(autouse=True)
def _mesh(served: Served, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    def options(_transport: Transport, *, timeout: float | None = 10.0) -> Any:
        return {"metadata": keys.metadata(), "timeout": timeout}

    monkeypatch.setattr(Transport, "options", options)
    monkeypatch.setenv("AGENTNET_TOKEN", "a.b.c")
    monkeypatch.setenv("AGENTNET_ADDRESS", served.address)


async def said(*words: str) -> str:
    result = await asyncio.to_thread(CliRunner().invoke, app, ["cost", *words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return "".join(line for line in result.output.splitlines(keepends=True) if "rpc.finished" not in line)


async def test_a_budget_is_set_listed_approved_and_taken_away(served: Served) -> None:
    assert "spending is not limited" in await said("budgets")
    limits = ("--level", "agent", "--name", "A@1", "--window", "day", "--soft", "$0.00001", "--action", "ask")
    made = await said("limit", "0.000100", *limits)
    budget = made.partition(":")[0]
    assert made == f"{budget}: $0.00 of $0.0001 are spent or set aside\n"
    with pytest.raises(BudgetApprovalRequired):
        await served.replica.reserve("acme", call(agent="A@1"), 6)
    assert await said("approve", budget) == "approved\n"
    await served.replica.reserve("acme", call(agent="A@1"), 6)
    assert await said("budgets") == (
        f"{budget} agent A@1 (day): $0.00 of $0.0001 spent, $0.000012 set aside; beyond $0.00001 ask\n"
    )
    assert await said("unlimit", budget) == "gone\n"
    with pytest.raises(AgentNetError, match="no budget") as raised:
        await said("unlimit", budget)
    assert raised.value.suggestion == "`agentnet cost budgets` shows the budgets there are."


@pytest.mark.parametrize("amount", ["ten", "1e", "nan", "inf", "0.0000001", "1000000001"])
async def test_what_is_no_amount_is_told_before_anything_is_asked(amount: str) -> None:
    assert f"error: {amount} is no amount; say for example 12.50" in await said("limit", amount)
    assert "spending is not limited" in await said("budgets")


async def test_a_price_book_is_checked_imported_and_printed(tmp_path: Path) -> None:
    file = tmp_path / "prices.json"
    file.write_text(document({"output": 5_000_000}))
    assert "valid: 1 prices" in await said("import", str(file), "--check")
    assert "5000000" not in await said("prices")
    assert "imported: 1 prices" in await said("import", str(file))
    assert '"output":5000000' in await said("prices")
    file.write_text(document({"output": -1}))
    with pytest.raises(AgentNetError, match=r"prices\.0\.output: .* \(the price of p/m\)"):
        await said("import", str(file))
    assert "cannot be read" in await said("import", str(tmp_path / "none"))


async def test_what_was_spent_is_summed_forecast_and_written_to_a_file(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentnet.cli.costs._ago", lambda days: served.clock.now() - timedelta(days=days))
    assert await said("summary") == "nothing was spent\n"
    await served.replica.ledger.settle("acme", call(agent="A@1"), Usage(0, 750_000))
    served.clock.advance(timedelta(seconds=1))
    assert (await said("forecast", "--day")).startswith("$1.50 so far")
    await served.replica.lookout.look("acme")
    assert "velocity agent:A@1 took $1.50 in five minutes" in await said("alerts")
    (row,) = (await said("summary", "--by", "agent,model")).splitlines()[1:]
    assert row.split() == ["A@1", "m", "$1.50", "1", "0", "750,000"]
    file = tmp_path / "ledger.csv"
    assert "wrote" in await said("export", str(file))
    assert file.read_bytes().startswith(b"id,time,")


async def test_a_file_is_kept_when_an_export_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "ledger.pdf"
    file.write_text("precious")
    with pytest.raises(AgentNetError, match="csv, jsonl, parquet"):
        await said("export", str(file))
    assert [one.read_text() for one in tmp_path.glob("ledger*")] == ["precious"]
    assert "cannot be written" in await said("export", str(tmp_path / "none" / "ledger.csv"))
