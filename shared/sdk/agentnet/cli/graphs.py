"""The commands `agentnet graph …`: run a file, plan a goal, show, draw, cancel."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from agentnet.cli.work import do, err
from agentnet.client import AgentNet, InvalidGraph, TaskGraph, TaskResult
from agentnet.orchestrator.v1 import event_pb2, session_pb2, task_graph_pb2

graph = typer.Typer(no_args_is_help=True, help="Plan, run and read task graphs.")

out = Console(highlight=False)

_MICROS: Final = 1_000_000
_SHOWN: Final = 200
_COLOURS: Final = {"completed": "green", "failed": "red", "skipped": "dim", "cancelled": "yellow", "running": "cyan"}

Identifier = Annotated[str, typer.Argument(help="The graph, as `agentnet graph run` prints it.")]


@graph.command("run")
def graph_run(
    file: Annotated[Path | None, typer.Argument(help="A graph as YAML or JSON.", dir_okay=False)] = None,
    resume_from: Annotated[str, typer.Option(help="A checkpoint to go on from.")] = "",
) -> None:
    """Run a graph and watch its tasks start and end."""
    if file is None and not resume_from:
        raise typer.BadParameter("name a file, or a checkpoint with --resume-from")
    do(_run(_read(file) if file else None, resume_from), what="graph")


@graph.command("plan")
def graph_plan(
    goal: Annotated[str, typer.Argument(help="What to reach.")],
    agents: Annotated[str, typer.Option(help="Names by comma; all without.")] = "",
    *,
    run_it: Annotated[bool, typer.Option("--run", help="Run the plan at once.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the planner; the mesh waits 300.")] = 300.0,
) -> None:
    """Let a planner agent make a graph of a goal."""
    names = [name.strip() for name in agents.split(",") if name.strip()]
    do(_plan(goal, names, run_it=run_it, seconds=timeout), what="graph")


@graph.command("show")
def graph_show(
    graph_id: Identifier,
    *,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="As Mermaid text.")] = False,
    svg: Annotated[bool, typer.Option("--svg", help="As an SVG document.")] = False,
) -> None:
    """Show a graph with the states of its tasks."""
    do(_draw(graph_id, svg=svg) if mermaid or svg else _show(graph_id), what="graph")


@graph.command("list")
def graph_list() -> None:
    """List graphs, newest first."""
    do(_list(), what="graph")


@graph.command("cancel")
def graph_cancel(
    graph_id: Identifier, task: Annotated[str, typer.Option(help="Only this task and what depends on it.")] = ""
) -> None:
    """End a graph, or a task and what depends on it."""
    do(_cancel(graph_id, task), what="graph")


def _read(file: Path) -> TaskGraph:
    try:
        found = TaskGraph.from_file(file)
        found.validate()
    except (InvalidGraph, OSError) as error:
        why = f"{file}: {error.strerror}" if isinstance(error, OSError) else str(error)
        err.print(f"[red]error:[/] {escape(why)}", soft_wrap=True)
        raise typer.Exit(1) from None
    return found


async def _run(wanted: TaskGraph | None, resume_from: str) -> None:
    async with AgentNet.connect() as mesh:
        accepted = await mesh.task_graphs.execute(wanted, resume_from=resume_from)
        out.print(f"[dim]graph {accepted.graph.id} · session {accepted.session_id}[/]", soft_wrap=True)
        failed = False
        async for event in mesh.task_graphs.watch(accepted.session_id):
            failed = _tell(event) or failed
    if failed:
        sys.exit(1)


def _tell(event: event_pb2.SessionEvent) -> bool:
    """Shows one event; True when it is the end of a graph that failed."""
    match event.WhichOneof("payload"):
        case "task_started":
            began = event.task_started
            again = f", try {began.attempt}" if began.attempt > 1 else ""
            fallback = ", the fallback" if began.fallback else ""
            out.print(f"[cyan]▶ {began.node_id}[/] [dim]{began.agent}{again}{fallback}[/]", soft_wrap=True)
        case "task_interrupted":
            out.print(f"[yellow]↻ {event.task_interrupted.node_id}[/] {escape(event.task_interrupted.failure.message)}")
        case "input_requested":
            out.print(
                f"[magenta]? {escape(event.input_requested.question)}[/] [dim]agentnet answer {event.session_id}[/]"
            )
        case "task_finished":
            _tell_result(TaskResult.from_proto(event.task_finished.result), event.task_finished.progress)
        case "graph_grown":
            out.print(f"[magenta]+ {event.graph_grown.node_id}[/] grew by {len(event.graph_grown.nodes)} tasks")
        case "checkpoint_saved":
            out.print(f"[dim]checkpoint {event.checkpoint_saved.checkpoint_id}[/]")
        case "session_finished":
            return _tell_end(event.session_finished.session)
        case _:  # of what goes on within a task the session's own watchers are told
            pass
    return False


def _tell_result(result: TaskResult, progress: task_graph_pb2.GraphProgress) -> None:
    colour = _COLOURS[result.status]
    text = " ".join((result.error or result.output).split())[:_SHOWN]
    share = f"{progress.ended}/{progress.total}"
    out.print(f"[{colour}]■ {result.task_id}[/] [dim]{result.status} {result.duration_seconds:.1f} s {share}[/]")
    if text:
        out.print(f"  {text}", markup=False, soft_wrap=True)


def _tell_end(session: session_pb2.Session) -> bool:
    failed = session.status != session_pb2.SESSION_STATUS_COMPLETED
    why = session_pb2.StopReason.Name(session.stop_reason).removeprefix("STOP_REASON_").lower().replace("_", " ")
    colour = "red" if failed else "green"
    out.print(f"[{colour}]ended:[/] {why} · ${session.cost_micros_usd / _MICROS:.6f}")
    if failed and session.failure.message:
        out.print(f"[red]{escape(session.failure.message)}[/]", soft_wrap=True)
    if checkpoint := session.failure.metadata.get("last_checkpoint_id"):
        out.print(f"[dim]go on with: agentnet graph run --resume-from {checkpoint}[/]", soft_wrap=True)
    return failed


async def _plan(goal: str, agents: list[str], *, run_it: bool, seconds: float) -> None:
    async with AgentNet.connect() as mesh:
        with err.status("the planner thinks; a small model may take minutes"):
            planned = await mesh.task_graphs.plan(goal, agents=agents, timeout=seconds)
    for level in planned.topological_sort():
        for name in level:
            task = planned.tasks[name]
            needs = f" [dim]after {', '.join(task.dependencies)}[/]" if task.dependencies else ""
            out.print(f"[bold]{escape(name)}[/] [cyan]{task.agent_name}[/]{needs}", soft_wrap=True)
            out.print(f"  {task.prompt}", markup=False, soft_wrap=True)
    if run_it:
        await _run(planned, "")


async def _show(graph_id: str) -> None:
    async with AgentNet.connect() as mesh:
        found = await mesh.task_graphs.get(graph_id)
    results = {result.node_id: TaskResult.from_proto(result) for result in found.results}
    table = Table("task", "by", "state", "seconds", "retries", "after", box=None)
    for node in found.graph.nodes:
        result = results.get(node.id)
        state = result.status if result else "pending"
        seconds, retries = (f"{result.duration_seconds:.1f}", str(result.retries)) if result else ("", "")
        table.add_row(node.id, node.tool or node.agent, state, seconds, retries, ", ".join(node.depends_on))
    out.print(table)
    progress = found.progress
    out.print(
        f"[dim]{progress.ended} of {progress.total} ended, {progress.failed} failed · session {found.session_id}[/]"
    )


async def _draw(graph_id: str, *, svg: bool) -> None:
    async with AgentNet.connect() as mesh:
        drawn = await mesh.task_graphs.draw(graph_id)
    sys.stdout.write(drawn.svg if svg else drawn.mermaid)


async def _list() -> None:
    table = Table(Column("graph", no_wrap=True, min_width=30), "state", "made", "goal", box=None)
    async with AgentNet.connect() as mesh:
        async for found in mesh.task_graphs.list():
            state = task_graph_pb2.TaskStatus.Name(found.status).removeprefix("TASK_STATUS_").lower()
            table.add_row(found.id, state, found.create_time.ToJsonString(), escape(found.goal))
    out.print(table)


async def _cancel(graph_id: str, task: str) -> None:
    async with AgentNet.connect() as mesh:
        await mesh.task_graphs.cancel(graph_id, task_id=task)
    out.print("told to end")
