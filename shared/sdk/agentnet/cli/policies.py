"""The commands `agentnet policy …`: upload a bundle, try it before, list, label, and what rules caught."""

from __future__ import annotations

from datetime import UTC
from itertools import count
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from agentnet.cli.work import do, err
from agentnet.client import AgentNet
from agentnet.client.errors import AgentNetError
from agentnet.policy.v1 import bundle_pb2, simulation_service_pb2, violation_pb2

policy = typer.Typer(no_args_is_help=True, help="Upload and try bundles of rules, read what they caught.")

out = Console(highlight=False)

_SHOWN: Final = 50

File = Annotated[Path, typer.Argument(help="A bundle in YAML or JSON.")]
Name = Annotated[str, typer.Argument(help="words, the newest version, or words@1.0.0.")]


@policy.command("upload")
def policy_upload(
    file: File,
    name: Annotated[str, typer.Option(help="The bundle's name; the file's without.")] = "",
    version: Annotated[str, typer.Option(help="Versions never change; the next one without.")] = "",
    label: Annotated[
        list[str] | None, typer.Option(help="production enforces it, shadow tries it. More than once.")
    ] = None,
    agents: Annotated[
        Path | None, typer.Option(help="agents.yaml, whose profiles are to hold; it and the bundle are YAML.")
    ] = None,
) -> None:
    """Store a version of a bundle."""
    document = _read(file) if agents is None else f"{_read(file)}\n{_read(agents)}"

    async def work() -> None:
        async with AgentNet.connect() as mesh:
            made = await mesh.policies.create(name or file.stem, document, version=version, labels=label or ())
        out.print(f"stored {_told(made)}")

    do(work(), what="upload")


@policy.command("validate")
def policy_validate(file: File) -> None:
    """Check a bundle, and tell operators what it would have done to the last day's decisions. Nothing is stored."""
    document = _read(file)

    async def work() -> None:
        async with AgentNet.connect() as mesh:
            valid = await mesh.policies.validate(document)
            try:
                tried = _tried(await mesh.policies.simulate(document))
            except AgentNetError as error:
                if error.reason != "ROLE_INSUFFICIENT":
                    raise
                tried = f"{valid.rules} rule{'s' if valid.rules > 1 else ''}"
        out.print(f"[green]valid[/]; {tried}", soft_wrap=True)

    do(work(), what="check")


@policy.command("list")
def policy_list(name: Annotated[str, typer.Option(help="Only versions of this bundle.")] = "") -> None:
    """List bundles, one line a version."""

    async def work() -> None:
        table = Table(Column("bundle", no_wrap=True), "labels", "rules", "made", box=None)
        async with AgentNet.connect() as mesh:
            async for found in mesh.policies.list(name=name):
                labels = "built in" if found.built_in else ", ".join(found.labels)
                made = found.create_time.ToDatetime(UTC).strftime("%Y-%m-%d %H:%M")
                table.add_row(f"{found.name}@{found.version}", labels, str(len(found.rules)), made)
        out.print(table)

    do(work(), what="list")


@policy.command("label")
def policy_label(
    name: Name,
    label: Annotated[str, typer.Argument(help="production enforces it, shadow tries it.")],
    *,
    remove: Annotated[bool, typer.Option("--remove", help="Take it off.")] = False,
) -> None:
    """Move a label to a version; every enforcement point follows within a second."""

    async def work() -> None:
        async with AgentNet.connect() as mesh:
            out.print(_told(await mesh.policies.label(name, label, remove=remove)))

    do(work(), what="label")


@policy.command("violations")
def policy_violations(
    session: Annotated[str, typer.Option(help="Only of this session.")] = "",
    rule: Annotated[str, typer.Option(help="Only of this rule.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = _SHOWN,
    *,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="What bundles that are only tried would have caught.")
    ] = False,
) -> None:
    """List what rules caught, newest first."""

    async def work() -> None:
        places = count(1)
        async with AgentNet.connect() as mesh:
            async for found in mesh.policies.violations(session_id=session, rule=rule, shadow=shadow):
                out.print(_line(found), soft_wrap=True)
                if next(places) == limit:
                    return
        if next(places) == 1:
            out.print("nothing was caught")

    do(work(), what="list")


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        err.print(f"[red]error:[/] {escape(str(file))} cannot be read: {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from None


def _tried(found: simulation_service_pb2.SimulateBundleResponse) -> str:
    left_out = f"; not tried: {', '.join(found.left_out)}" if found.left_out else ""
    return (
        f"of {found.decisions} recorded decisions it would newly stop {found.newly_blocked}, "
        f"newly let through {found.newly_allowed}, change {found.newly_changed}{left_out}"
    )


def _told(found: bundle_pb2.Bundle) -> str:
    labels = f", labelled {', '.join(found.labels)}" if found.labels else ""
    rules = f"{len(found.rules)} rule{'s' if len(found.rules) > 1 else ''}"
    return f"{found.name}@{found.version}, {rules}{labels}"


def _line(found: violation_pb2.Violation) -> str:
    when = found.create_time.ToDatetime(UTC).strftime("%Y-%m-%d %H:%M:%S")
    severity = bundle_pb2.Severity.Name(found.severity).removeprefix("SEVERITY_").lower()
    where = " ".join(filter(None, (found.session_id, found.turn_id, escape(found.agent))))
    return f"[dim]{when}[/] [yellow]{escape(found.monitor_name)}[/] {severity} {where} {escape(found.rationale)}"
