"""The commands `agentnet cost …`: where money went, how much may go, what things cost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from agentnet.cli.work import do, err
from agentnet.client import AgentNet
from agentnet.cost.v1 import cost_pb2

cost = typer.Typer(no_args_is_help=True, help="See where money went, limit it, price models.")

out = Console(highlight=False)

_MICROS: Final = 1_000_000
_MOST: Final = 10**15  # micro-USD; what a budget may be
_SHOWN: Final = 50


class Level(StrEnum):
    """Whose spending."""

    TENANT = "tenant"
    TEAM = "team"
    USER = "user"
    AGENT = "agent"
    SESSION = "session"
    SUB_AGENT = "sub-agent"


class Window(StrEnum):
    """When it counts anew."""

    TOTAL = "total"
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


class Action(StrEnum):
    """What happens beyond a soft limit."""

    ALERT = "alert"
    DOWNGRADE = "downgrade"
    ASK = "ask"


Days = Annotated[int, typer.Option("--days", min=1, max=366, help="Of so many days back.")]


@cost.command("summary")
def cost_summary(
    by: Annotated[
        str, typer.Option(help="provider, model, agent, session, team, user, hour or day; up to 3.")
    ] = "model",
    session: Annotated[str, typer.Option(help="Only of this session.")] = "",
    days: Days = 31,
) -> None:
    """Sum what was spent, dearest first."""

    async def work() -> None:
        async with AgentNet.connect() as mesh:
            found = await mesh.costs.summary(group_by=by, session_id=session, since=_ago(days))
        table = Table(Column(by, no_wrap=True), "spent", "calls", "read", "produced", box=None)
        names = [name.strip() for name in by.split(",") if name.strip()]
        for one in found:
            group = " ".join(one.group[name] or "-" for name in names)
            tokens = f"{one.input_tokens:,}", f"{one.output_tokens:,}"
            table.add_row(escape(group), _dollars(one.micros_usd), f"{one.generations:,}", *tokens)
        out.print(table if found else "nothing was spent")

    do(work(), what="sum")


@cost.command("budgets")
def cost_budgets() -> None:
    """List budgets with what is spent and set aside of them now."""

    async def work() -> None:
        shown = 0
        async with AgentNet.connect() as mesh:
            async for found in mesh.costs.budgets():
                out.print(_line(found), soft_wrap=True)
                shown += 1
        if not shown:
            out.print("no budget is set; spending is not limited")

    do(work(), what="list")


@cost.command("limit")
def cost_limit(
    dollars: Annotated[str, typer.Argument(help="How much may be spent in a window, for example 12.50.")],
    *,
    level: Annotated[Level, typer.Option(help="Whose spending.")] = Level.TENANT,
    name: Annotated[str, typer.Option(help="Which of the level, such as Athena@1.0.0; * is each.")] = "",
    window: Annotated[Window, typer.Option(help="When it counts anew, in UTC.")] = Window.TOTAL,
    soft: Annotated[str, typer.Option(help="From so many dollars on the action is taken.")] = "0",
    action: Annotated[Action, typer.Option(help="What happens beyond the soft limit.")] = Action.ALERT,
) -> None:
    """Set a budget; the next call sees it."""
    limits = _micros(dollars), _micros(soft)

    async def work() -> None:
        async with AgentNet.connect() as mesh:
            made = await mesh.costs.set_budget(
                limits[0],
                level=cost_pb2.BudgetLevel.Value(f"BUDGET_LEVEL_{level.name}"),
                name=name,
                window=cost_pb2.BudgetWindow.Value(f"BUDGET_WINDOW_{window.name}"),
                soft_limit_micros_usd=limits[1],
                soft_action=cost_pb2.SoftAction.Value(f"SOFT_ACTION_{action.name}"),
            )
        spent = made.settled_micros_usd + made.leased_micros_usd
        out.print(f"{made.id}: {_dollars(spent)} of {_dollars(made.limit_micros_usd)} are spent or set aside")

    do(work(), what="setting")


@cost.command("approve")
def cost_approve(
    budget: Annotated[str, typer.Argument(help="Its id.")],
    name: Annotated[str, typer.Option(help="Which one, of a budget for each of a level.")] = "",
) -> None:
    """Let generations start beyond a soft limit that asks, until its window ends."""

    async def work() -> None:
        async with AgentNet.connect() as mesh:
            await mesh.costs.approve_budget(budget, name=name)
        out.print("approved")

    do(work(), what="approval")


@cost.command("unlimit")
def cost_unlimit(budget: Annotated[str, typer.Argument(help="Its id.")]) -> None:
    """Take a budget away."""

    async def work() -> None:
        async with AgentNet.connect() as mesh:
            await mesh.costs.delete_budget(budget)
        out.print("gone")

    do(work(), what="deletion")


@cost.command("prices")
def cost_prices(version: Annotated[str, typer.Argument(help="Its hash; the one in force without.")] = "") -> None:
    """Print a price book, as JSON."""

    async def work() -> None:
        async with AgentNet.connect() as mesh:
            typer.echo((await mesh.costs.price_book(version)).document)

    do(work(), what="reading")


@cost.command("import")
def cost_import(
    file: Annotated[Path, typer.Argument(help="A price book in JSON.")],
    *,
    check: Annotated[bool, typer.Option("--check", help="Only check it.")] = False,
) -> None:
    """Make a price book the tenant's own; it goes before the mesh's, price by price."""
    try:
        document = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        _refuse(f"{file} cannot be read: {error}")

    async def work() -> None:
        async with AgentNet.connect() as mesh:
            made = await mesh.costs.import_prices(document, validate_only=check)
        out.print(f"{'valid' if check else 'imported'}: {made.prices} prices, version {made.version}", soft_wrap=True)

    do(work(), what="import")


@cost.command("alerts")
def cost_alerts(limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = _SHOWN) -> None:
    """List what needs a look, newest first."""

    async def work() -> None:
        shown = 0
        async with AgentNet.connect() as mesh:
            async for found in mesh.costs.alerts():
                when = found.create_time.ToDatetime(UTC).strftime("%Y-%m-%d %H:%M")
                out.print(f"[dim]{when}[/] [yellow]{found.kind}[/] {escape(found.explanation)}", soft_wrap=True)
                if (shown := shown + 1) == limit:
                    return
        if not shown:
            out.print("nothing needs a look")

    do(work(), what="list")


@cost.command("forecast")
def cost_forecast(*, day: Annotated[bool, typer.Option("--day", help="Of today, not of the month.")] = False) -> None:
    """Tell what will have been spent at the end of the month."""

    async def work() -> None:
        window = cost_pb2.BUDGET_WINDOW_DAY if day else cost_pb2.BUDGET_WINDOW_MONTH
        async with AgentNet.connect() as mesh:
            found = await mesh.costs.forecast(window)
        ends = f"{found.end_time.ToDatetime(UTC):%Y-%m-%d}"
        band = f"{_dollars(found.low_micros_usd)} to {_dollars(found.high_micros_usd)}"
        out.print(
            f"{_dollars(found.spent_micros_usd)} so far, {_dollars(found.expected_micros_usd)} by {ends} ({band}, "
            f"four times in five)"
        )
        if found.HasField("exhaustion_time"):
            out.print(f"the budget is spent by {found.exhaustion_time.ToDatetime(UTC):%Y-%m-%d %H:%M} UTC")

    do(work(), what="forecast")


@cost.command("export")
def cost_export(
    file: Annotated[Path, typer.Argument(help="Ends with .csv, .jsonl or .parquet.")], days: Days = 31
) -> None:
    """Write the ledger's entries to a file, oldest first."""

    async def work() -> None:
        part = file.with_name(f"{file.name}.part")
        async with AgentNet.connect() as mesh:
            try:
                with part.open("wb") as target:
                    async for piece in mesh.costs.export(form=file.suffix.removeprefix("."), since=_ago(days)):
                        target.write(piece)
                part.replace(file)
            except OSError as error:
                _refuse(f"{file} cannot be written: {error}")
            finally:
                part.unlink(missing_ok=True)
        out.print(f"wrote {file}", soft_wrap=True)

    do(work(), what="export")


def _micros(dollars: str) -> int:
    try:
        micros = Decimal(dollars.removeprefix("$").replace(",", "")) * _MICROS
        told = micros == int(micros) and 0 <= micros <= _MOST
    except (InvalidOperation, ValueError, OverflowError):
        told = False
    if not told:
        _refuse(f"{dollars} is no amount; say for example 12.50, up to 1,000,000,000 and six decimal places")
    return int(micros)


def _line(found: cost_pb2.Budget) -> str:
    whose = f"{_word(cost_pb2.BudgetLevel, found.level)} {escape(found.name)}".strip()
    line = (
        f"{found.id} {whose} ({_word(cost_pb2.BudgetWindow, found.window)}): {_dollars(found.settled_micros_usd)} of "
        f"{_dollars(found.limit_micros_usd)} spent, {_dollars(found.leased_micros_usd)} set aside"
    )
    if not found.soft_limit_micros_usd:
        return line
    action = _word(cost_pb2.SoftAction, found.soft_action)
    return f"{line}; beyond {_dollars(found.soft_limit_micros_usd)} {action}"


def _refuse(message: str) -> NoReturn:
    err.print(f"[red]error:[/] {escape(message)}", soft_wrap=True)
    raise typer.Exit(1)


def _dollars(micros: int) -> str:
    text = f"{micros // _MICROS:,}.{micros % _MICROS:06}".rstrip("0")
    places = len(text.partition(".")[2])
    return f"${text}{'0' * max(0, 2 - places)}"


def _ago(days: int) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)


def _word(enum: Any, value: int) -> str:
    return str(enum.Name(value).rpartition("_")[2].lower())
