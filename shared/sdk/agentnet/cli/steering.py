"""The commands that find sessions and steer them: sessions, advance, pause, resume, cancel."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape

from agentnet.cli.work import do
from agentnet.client import AgentNet
from agentnet.orchestrator.v1 import session_pb2

steering = typer.Typer()

out = Console(highlight=False)

_MICROS: Final = 1_000_000
_TOPIC: Final = 60
_STATUS: Final = "SESSION_STATUS_"

Identifier = Annotated[str, typer.Argument(help="The session, as `agentnet run` prints it.")]
Signal = Callable[[AgentNet], Awaitable[session_pb2.Session]]


@steering.command("sessions")
def sessions(
    status: Annotated[str, typer.Option(help="running, waiting, awaiting_input, completed, …")] = "",
    mode: Annotated[str, typer.Option(help="Only this mode.")] = "",
    agent: Annotated[str, typer.Option(help="Only those this agent takes part in.")] = "",
    *,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    oldest: Annotated[bool, typer.Option("--oldest", help="The oldest first.")] = False,
) -> None:
    """List sessions, the newest first."""
    names = {name.removeprefix(_STATUS).lower(): number for name, number in session_pb2.SessionStatus.items()}
    if status and status.lower() not in names:
        raise typer.BadParameter(f"one of {', '.join(sorted(names))}", param_hint="--status")
    wanted = names[status.lower()] if status else session_pb2.SESSION_STATUS_UNSPECIFIED
    do(_sessions(wanted, mode, agent, limit=limit, oldest=oldest), what="session")


@steering.command("advance")
def advance(session_id: Identifier) -> None:
    """Let a session that waits after each round run one more."""
    do(_signalled(lambda mesh: mesh.sessions.advance(session_id), "advances"), what="session")


@steering.command("pause")
def pause(session_id: Identifier) -> None:
    """Pause a session after its current turn."""
    do(_signalled(lambda mesh: mesh.sessions.pause(session_id), "pauses after its current turn"), what="session")


@steering.command("resume")
def resume(session_id: Identifier) -> None:
    """Let a paused session go on."""
    do(_signalled(lambda mesh: mesh.sessions.resume(session_id), "goes on"), what="session")


@steering.command("cancel")
def cancel(session_id: Identifier) -> None:
    """End a session now; what it spent is settled."""
    do(_signalled(lambda mesh: mesh.sessions.cancel(session_id), "is cancelled"), what="session")


async def _sessions(
    status: session_pb2.SessionStatus.ValueType, mode: str, agent: str, *, limit: int, oldest: bool
) -> None:
    order, shown = "start_time" if oldest else "", 0
    async with AgentNet.connect() as mesh:
        async for found in mesh.sessions.list(status=status, mode=mode, agent=agent, order_by=order):
            out.print(_line(found), soft_wrap=True)
            shown += 1
            if shown >= limit:
                break
    if not shown:
        out.print("there are no such sessions")


def _line(session: session_pb2.Session) -> str:
    since = session.start_time.ToDatetime(UTC).strftime("%Y-%m-%d %H:%M")
    status = session_pb2.SessionStatus.Name(session.status).removeprefix(_STATUS).lower()
    why = session_pb2.StopReason.Name(session.stop_reason).removeprefix("STOP_REASON_").lower().replace("_", " ")
    ended = f": {why}" if session.HasField("end_time") else ""
    topic = escape(session.topic_start.replace("\n", " ")[:_TOPIC])
    cost = f"${session.cost_micros_usd / _MICROS:.6f}"
    return f"{session.id} [dim]{since}[/] {session.mode} [yellow]{status}{ended}[/] {cost} {topic}"


async def _signalled(signal: Signal, what: str) -> None:
    async with AgentNet.connect() as mesh:
        session = await signal(mesh)
    out.print(f"{session.id} {what}")
