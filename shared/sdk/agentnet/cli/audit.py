"""The commands `agentnet audit …`: what happened, and whether what is written down is still what was written."""

from __future__ import annotations

import sys
from typing import Annotated, Final

import typer
from rich.markup import escape
from rich.table import Table

from agentnet.cli.histories import Identifier, out, reason
from agentnet.cli.local import local_token
from agentnet.cli.work import do, err
from agentnet.client import AgentNet

audit = typer.Typer(no_args_is_help=True, help="Show what happened, check that it is as it was written.")

_MICROS: Final = 1_000_000
_TTL_SECONDS: Final = 3600


@audit.command("verify")
def audit_verify(
    session_id: Annotated[
        str, typer.Argument(help="A session's log; without, the trail of acts that matter to security.")
    ] = "",
    *,
    tenant: Annotated[str, typer.Option(help="Of a local mesh: whose trail or session; your token's without.")] = "",
) -> None:
    """Check every seal of a session's log, or of the trail of security, archive and all; 1 when it is broken."""
    token = local_token(tenant, "local-admin", ("admin",), _TTL_SECONDS) if tenant else None
    if session_id:
        do(_verify_session(session_id, token), what="session")
    else:
        do(_verify_trail(token), what="check")


@audit.command("show")
def audit_show(session_id: Identifier) -> None:
    """Show who said what, what policy did, what it cost and what went wrong."""
    do(_show(session_id), what="session")


async def _verify_trail(token: str | None) -> None:
    async with AgentNet.connect(credential=token) as mesh:
        found = await mesh.policies.verify_audit()
    if found.broken_at:
        out.print(
            f"[red]broken[/] at entry {found.broken_at}: {found.entries} entries before it are as they were sealed"
        )
        sys.exit(1)
    out.print(f"[green]whole[/]: {found.entries} entries are as they were sealed")


async def _verify_session(session_id: str, token: str | None) -> None:
    async with AgentNet.connect(credential=token) as mesh:
        chain = (await mesh.histories.audit(session_id)).chain
    if chain.intact:
        out.print(f"[green]intact[/] {chain.events} events, each as it was written")
        return
    err.print(f"[red]{chain.fault}[/] at event {chain.sequence}; the {chain.events} before it are as they were written")
    sys.exit(1)


async def _show(session_id: str) -> None:
    async with AgentNet.connect() as mesh:
        found = await mesh.histories.audit(session_id)
    out.print(f"[bold]{escape(found.session.topic_start)}[/] ended with {reason(found.session.stop_reason)}")
    for turn in found.turns:
        out.print(f"[bold]round {turn.round} {escape(turn.agent)}[/] {escape(turn.content)}")
    for one in found.violations:
        out.print(
            f"event {one.sequence}: {one.verdict.action} by {one.verdict.rule} of {one.verdict.bundle}, {one.agent}"
        )
    for event in found.incidents:
        out.print(f"event {event.sequence}: {event.WhichOneof('payload')} by {escape(event.actor)}")
    table = Table("agent", "provider", "model", "turns", "tokens out", "USD", box=None)
    for line in found.costs:
        money = f"{line.micros_usd / _MICROS:.6f}"
        table.add_row(line.agent, line.provider, line.model, str(line.turns), str(line.usage.output_tokens), money)
    out.print(table)
    out.print("the log is intact" if found.chain.intact else f"[red]the log is not intact: {found.chain.fault}[/]")
