"""The commands on logs of sessions: replay, fork, diff, audit, export, import."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from agentnet.cli.work import do, err
from agentnet.client import AgentNet
from agentnet.orchestrator.v1 import history_pb2, session_pb2

history = typer.Typer()

out = Console(highlight=False)

_MICROS: Final = 1_000_000

Identifier = Annotated[str, typer.Argument(help="The session, as `agentnet run` prints it.")]


@history.command("replay")
def replay(session_id: Identifier) -> None:
    """Run a session again from its log alone; 1 when it comes out otherwise."""
    do(_replay(session_id), what="replay")


@history.command("fork")
def fork(
    session_id: Identifier,
    *,
    at: Annotated[int, typer.Option(min=0, help="The last event to keep; 0 keeps all.")] = 0,
    model: Annotated[str, typer.Option(help="The model of every agent.")] = "",
    agent: Annotated[list[str] | None, typer.Option(help="Athena=Zeus@2.0.0: who takes whose place.")] = None,
    prompt: Annotated[list[str] | None, typer.Option(help="Athena=You are …: a system prompt; *=… for all.")] = None,
    bundle: Annotated[list[str] | None, typer.Option(help="A policy bundle, instead of the agents' own.")] = None,
    max_rounds: Annotated[int, typer.Option(min=0, max=50, help="0 keeps the number.")] = 0,
    side_effects: Annotated[bool, typer.Option("--side-effects", help="Let tools act on the world.")] = False,
) -> None:
    """Go on from any place in a session's log, otherwise than it did."""
    how = session_pb2.SessionOverrides(
        model=model,
        bundles=bundle or [],
        system_prompts=_pairs(prompt, "--prompt"),
        agents=_pairs(agent, "--agent"),
        max_rounds=max_rounds,
    )
    do(_fork(session_id, at, how, side_effects=side_effects), what="fork")


@history.command("diff")
def diff(session_id: Identifier, other: Annotated[str, typer.Argument(help="The other session.")]) -> None:
    """Compare two sessions turn by turn."""
    do(_diff(session_id, other), what="session")


@history.command("export")
def export(
    session_id: Identifier,
    file: Annotated[Path | None, typer.Argument(help="Where to; the terminal without.", dir_okay=False)] = None,
) -> None:
    """Write a session as a JSON document."""
    found: list[str] = []
    do(_export(session_id, found), what="session")
    if file is None:
        sys.stdout.write(found[0] + "\n")
    else:
        file.write_text(found[0] + "\n")


@history.command("import")
def take_in(file: Annotated[Path, typer.Argument(help="A document that `export` wrote.", exists=True)]) -> None:
    """Take an exported session in, under an id of its own."""
    do(_import(file.read_text()), what="session")


async def _replay(session_id: str) -> None:
    async with AgentNet.connect() as mesh:
        found = await mesh.histories.replay(session_id)
    if found.identical:
        out.print(f"[green]identical[/] {found.events} events, {found.turns} turns, hash {found.log_hash}")
        return
    _print_difference(found.difference)
    sys.exit(1)


def _print_difference(found: history_pb2.Difference) -> None:
    what = (
        found.logged
        if found.logged == found.replayed
        else f"{found.logged or 'nothing'}, now {found.replayed or 'nothing'}"
    )
    err.print(f"[red]different[/] at event {found.sequence}: {escape(what)} {escape(found.field)}")
    if found.diff:
        err.print(escape(found.diff))


async def _fork(session_id: str, at: int, how: session_pb2.SessionOverrides, *, side_effects: bool) -> None:
    async with AgentNet.connect() as mesh:
        made = await mesh.histories.fork(session_id, sequence=at, overrides=how, side_effects=side_effects)
    out.print(f"forked [bold]{made.id}[/] after event {made.origin.sequence}; see agentnet watch {made.id}")


async def _diff(session_id: str, other: str) -> None:
    async with AgentNet.connect() as mesh:
        found = await mesh.histories.diff(session_id, other)
    out.print(f"{found.common_turns} turns in common")
    for turn in found.turns:
        agents = " / ".join(side.agent or "nobody" for side in (turn.left, turn.right))
        out.print(f"[bold]turn {turn.place}[/] {escape(agents)}, {turn.similarity:.0%} alike")
        out.print(escape(turn.diff))
    table = Table("session", "ended with", "turns", "tokens out", "USD", "verdicts", box=None)
    for side in (found.left, found.right):
        tokens, money = str(side.usage.output_tokens), f"{side.cost_micros_usd / _MICROS:.6f}"
        table.add_row(side.session_id, reason(side.stop_reason), str(side.turns), tokens, money, str(side.verdicts))
    out.print(table)


async def _export(session_id: str, found: list[str]) -> None:
    async with AgentNet.connect() as mesh:
        found.append(await mesh.histories.export(session_id))


async def _import(document: str) -> None:
    async with AgentNet.connect() as mesh:
        try:
            made = await mesh.histories.take_in(document)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
    out.print(f"taken in as [bold]{made.id}[/]")


def _pairs(given: list[str] | None, option: str) -> dict[str, str]:
    pairs = [entry.partition("=") for entry in given or []]
    if wrong := [name for name, sign, value in pairs if not (name and sign and value)]:
        raise typer.BadParameter(f"{option} takes NAME=…, not {wrong[0]}")
    return {name: value for name, _, value in pairs}


def reason(reason: session_pb2.StopReason.ValueType) -> str:
    return session_pb2.StopReason.Name(reason).removeprefix("STOP_REASON_").lower()
