"""The commands `agentnet audit …`: whether what is written down is still what was written."""

from __future__ import annotations

import sys

import typer
from rich.console import Console

from agentnet.cli.work import do
from agentnet.client import AgentNet

audit = typer.Typer(no_args_is_help=True, help="Check what is written down.")

out = Console(highlight=False)


@audit.callback()
def _audit() -> None:
    """Check what is written down."""


@audit.command("verify")
def audit_verify() -> None:
    """Check every seal of the trail of acts that matter to security, archive and all; 1 when it is broken."""
    do(_verify(), what="check")


async def _verify() -> None:
    async with AgentNet.connect() as mesh:
        found = await mesh.policies.verify_audit()
    if found.broken_at:
        out.print(
            f"[red]broken[/] at entry {found.broken_at}: {found.entries} entries before it are as they were sealed"
        )
        sys.exit(1)
    out.print(f"[green]whole[/]: {found.entries} entries are as they were sealed")
