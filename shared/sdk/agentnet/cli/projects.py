"""The command `agentnet init`: a project of one's own, checked once it is written."""

from __future__ import annotations

import asyncio
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Final

import typer
from grpc import StatusCode
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from agentnet.client import AgentNet, AgentNetError

_AGENTS: Final = "agents.yaml"
out = Console(highlight=False)


def init(
    folder: Annotated[Path, typer.Argument(help="Made if it is not there; no file in it is replaced.")] = Path(),
) -> None:
    """Make a project: agents, a suite that watches them, a program and a test; then check it."""
    template = files("agentnet.cli") / "project"
    wanted = {folder / name: source for name, source in _sources(template)}
    if taken := sorted(str(path) for path in wanted if path.exists()):
        raise _refused(f"{', '.join(taken)} would be replaced; name another folder")
    try:
        for path, source in wanted.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(source.read_bytes())
        missing = [path for path, source in wanted.items() if path.read_bytes() != source.read_bytes()]
    except OSError as error:
        raise _refused(f"{error.filename}: {error.strerror}") from None
    if missing:
        raise _refused(f"{missing[0]} was not written whole; is the disk full?")
    _tell(folder, sorted(wanted))


def _sources(folder: Traversable, prefix: str = "") -> list[tuple[str, Traversable]]:
    found: list[tuple[str, Traversable]] = []
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name != "__pycache__":
            found += _sources(entry, f"{prefix}{entry.name}/")
        elif entry.is_file():
            found.append((prefix + entry.name, entry))
    return found


def _tell(folder: Path, paths: list[Path]) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for path in paths:
        table.add_row(f"[green]made[/] {escape(str(path))}", f"{path.stat().st_size} bytes")
    out.print(table)
    try:
        count = asyncio.run(_checked((folder / _AGENTS).read_text()))
        out.print(f"the mesh would take the {count} agents of {_AGENTS}")
    except AgentNetError as error:
        if error.code is not StatusCode.UNAVAILABLE:
            raise
        out.print(f"[dim]no mesh runs here to check {_AGENTS} with; `agentnet up` starts one[/]")
    out.print(f"next: [bold]cd {escape(str(folder))} && agentnet agent import {_AGENTS}[/]", soft_wrap=True)


async def _checked(document: str) -> int:
    async with AgentNet.connect() as mesh:
        return len((await mesh.agents.import_document(document, dry_run=True)).agents)


def _refused(message: str) -> AgentNetError:
    return AgentNetError(message, code=StatusCode.FAILED_PRECONDITION)
