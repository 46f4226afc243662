"""The commands `agentnet memory list` and `edit`: what is kept, without search, and changes to it."""

from __future__ import annotations

from typing import Annotated, Final

import typer
from rich.markup import escape

from agentnet.cli.memories import (
    TYPES,
    Expires,
    Identifier,
    Notes,
    Tags,
    Type,
    day,
    memory,
    moment_of,
    out,
    pair,
    refuse,
)
from agentnet.cli.work import do
from agentnet.client import AgentNet
from agentnet.memory.v1 import memory_pb2

__all__ = ["memory"]

_SHOWN: Final = 200


@memory.command("list")
def memory_list(
    *,
    agent: Annotated[str, typer.Option(help="Only this agent's and every agent's.")] = "",
    kind: Annotated[Type | None, typer.Option("--type", help="Only this type.")] = None,
    tag: Tags = None,
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 20,
) -> None:
    """List memories, those stored last first."""

    async def work() -> None:
        asked = TYPES[kind] if kind else memory_pb2.MEMORY_TYPE_UNSPECIFIED
        async with AgentNet.connect() as mesh:
            left = limit
            async for found in mesh.memories.every(agent=agent, tags=tag or (), memory_type=asked):
                _tell(found)
                if not (left := left - 1):
                    return
            if left == limit:
                out.print("nothing is kept")

    do(work(), what="list")


@memory.command("edit")
def memory_edit(
    memory_id: Identifier,
    content: Annotated[str | None, typer.Argument(help="What is known now; without, that stays.")] = None,
    *,
    tag: Tags = None,
    importance: Annotated[float | None, typer.Option(min=0, max=1, help="How much it matters.")] = None,
    note: Notes = None,
    expires: Expires = "",
    forever: Annotated[bool, typer.Option("--forever", help="It no longer ends by itself.")] = False,
) -> None:
    """Change what is named of a memory: its tags, all of its notes, its end. The rest stays."""
    moment = moment_of(expires, "--expires")
    if content is None and importance is None and not (tag or note or moment or forever):
        refuse("nothing is to be changed", "See `agentnet memory edit --help`.")
    if moment and forever:
        refuse("--expires and --forever exclude each other", "Give one of them.")
    notes = dict(pair(one, "--note") for one in note) if note else None

    async def work() -> None:
        async with AgentNet.connect() as mesh:
            changed = await mesh.memories.update(
                memory_id, content=content, tags=tag, importance=importance, metadata=notes, expire_time=moment,
                forever=forever,
            )  # fmt: skip
        _tell(changed)

    do(work(), what="change")


def _tell(found: memory_pb2.Memory) -> None:
    where = " ".join(filter(None, (found.agent, found.session_id, *(f"#{tag}" for tag in found.tags))))
    until = f" until {day(found.expire_time)}" if found.HasField("expire_time") else ""
    out.print(f"{found.id} [dim]{day(found.create_time)}{until} {escape(where)}[/]", soft_wrap=True)
    out.print(f"  {escape(_clipped(found.content) or '(withheld)')}", soft_wrap=True)


def _clipped(content: str) -> str:
    """On one line; `agentnet memory get` shows the whole."""
    line = " ".join(content.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"
