"""The commands of `agentnet`. Every error is one sentence and, where there is one, a suggestion."""

from __future__ import annotations

import json
import sys
from datetime import UTC
from importlib.metadata import version as installed
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from agentnet.cli.agents import add_to as add_agent_commands
from agentnet.cli.audit import audit
from agentnet.cli.costs import cost
from agentnet.cli.evaluations import evaluation
from agentnet.cli.graphs import graph
from agentnet.cli.histories import history
from agentnet.cli.keeping import memory
from agentnet.cli.local import detach, down_mesh, local_status, local_token, up_mesh
from agentnet.cli.policies import policy
from agentnet.cli.projects import init
from agentnet.cli.show import Story
from agentnet.cli.steering import steering
from agentnet.cli.work import do, err
from agentnet.client import AgentNet, AgentNetError
from agentnet.orchestrator.v1 import agent_pb2, session_pb2

app = typer.Typer(no_args_is_help=True, help="agentnet: teams of agents, governed, over gRPC.")
agent = typer.Typer(no_args_is_help=True, help="Make and read agents.")
add_agent_commands(agent)
app.add_typer(agent, name="agent")
app.add_typer(graph, name="graph")
app.add_typer(audit, name="audit")
app.add_typer(policy, name="policy")
app.add_typer(cost, name="cost")
app.add_typer(evaluation, name="eval")
app.add_typer(memory, name="memory")
app.add_typer(history)
app.add_typer(steering)
app.command()(init)

out = Console(highlight=False)


DEFAULT_TOPIC = "Designing resilient edge network"
DEFAULT_AGENTS = "Athena,Apollo"
_LONG_MILLISECONDS = 100


@app.command()
def up(
    *,
    detached: Annotated[bool, typer.Option("--detach", help="Run in the background.")] = False,
    demo: Annotated[bool, typer.Option("--demo", help="Run the main job once, then stop.")] = False,
    main_job: Annotated[bool, typer.Option("--run", help="Run the main job, then serve until Ctrl-C.")] = False,
    tls: Annotated[
        bool, typer.Option("--tls", envvar="AGENTNET_TLS", help="TLS at the edge, mutual TLS behind it.")
    ] = False,
) -> None:
    """Start the local mesh and serve until Ctrl-C."""
    if detached:
        detach(out, tls=tls)
        return
    job = _demo if demo or main_job else None
    sys.exit(up_mesh(out, job=job, serve=not demo, tls=tls))


@app.command()
def down() -> None:
    """Stop the local mesh."""
    down_mesh(out)


@app.command()
def status(*, as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Show every address, process and health of the local mesh."""
    found = local_status()
    if as_json:
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
    elif not found.get("running"):
        out.print("no mesh is running here; start one with [bold]agentnet up[/]")
    else:
        _print_status(found)
    if not found.get("running"):
        raise typer.Exit(3)


@app.command()
def token(
    tenant: Annotated[str, typer.Option(help="The tenant to act for.")] = "default",
    subject: Annotated[str, typer.Option(help="Who acts.")] = "local-admin",
    role: Annotated[list[str] | None, typer.Option(help="May be given more than once; admin without.")] = None,
    ttl_seconds: Annotated[int, typer.Option(min=-86400, help="How long it holds.")] = 3600,
) -> None:
    """Print a token for the local mesh."""
    sys.stdout.write(local_token(tenant, subject, tuple(role or ("admin",)), ttl_seconds) + "\n")


@app.command()
def run(
    topic: Annotated[str, typer.Argument(help="What to talk about.")],
    mode: Annotated[
        str, typer.Option(help="single, brainstorm, debate, consensus, workflow, …; by the agents without.")
    ] = "",
    agents: Annotated[str, typer.Option(help="Names by comma, such as Athena,Apollo@1.0.0.")] = DEFAULT_AGENTS,
    *,
    max_rounds: Annotated[int, typer.Option(min=0, max=50, help="0 leaves it to the mesh.")] = 0,
    strategy: Annotated[str, typer.Option(help="round_robin, parallel, priority, moderator or adaptive.")] = "",
    judge: Annotated[str, typer.Option(help="Who judges, one of the agents.")] = "",
    moderator: Annotated[str, typer.Option(help="Who names the next speaker, one of the agents.")] = "",
    team: Annotated[str, typer.Option(help="Whose budgets it spends from too.")] = "",
    manual: Annotated[bool, typer.Option("--manual", help="Wait for `agentnet advance` after each round.")] = False,
) -> None:
    """Run a session and watch it think, token by token."""
    how = {
        "options": session_pb2.SessionOptions(judge=judge, moderator=moderator),
        "max_rounds": max_rounds,
        "strategy": strategy,
        "team": team,
        "manual_advance": manual,
    }
    do(_run(topic, mode, agents, **how), what="session")


@app.command()
def watch(
    session_id: Annotated[str, typer.Argument(help="The session, as `agentnet run` prints it.")],
    after: Annotated[int, typer.Option(min=0, help="The last sequence already seen.")] = 0,
) -> None:
    """Watch a session from any place in its log, live to its end."""
    do(_watch(session_id, after), what="session")


@app.command()
def answer(
    session_id: Annotated[str, typer.Argument(help="The session that waits.")],
    text: Annotated[str, typer.Argument(help="The answer; to an approval, a word to the agent.")] = "",
    *,
    input_id: Annotated[str, typer.Option("--input", help="Which question; the oldest without.")] = "",
    approve: Annotated[bool, typer.Option("--approve", help="To an approval: it may be done.")] = False,
) -> None:
    """Answer what a session asks. An approval is refused without --approve."""
    do(_answer(session_id, input_id, text, approve=approve), what="session")


@app.command()
def inbox(
    agent: Annotated[str, typer.Option(help="Only what this agent asks.")] = "",
) -> None:
    """List what all sessions ask people."""
    do(_inbox(agent), what="session")


@app.command()
def inject(
    session_id: Annotated[str, typer.Argument(help="A session that runs or waits.")],
    text: Annotated[str, typer.Argument(help="What to say.")],
) -> None:
    """Say something to the agents of a session; they read it from their next turn on."""
    do(_inject(session_id, text), what="session")


@app.command()
def version() -> None:
    """Print the version."""
    sys.stdout.write(f"agentnet {installed('agentnet')}\n")


@agent.command("list")
def agent_list() -> None:
    """List agents, one line a version."""
    do(_list_agents(), what="agents")


@agent.command("show")
def agent_show(name: Annotated[str, typer.Argument(help="Athena or Athena@1.0.0.")]) -> None:
    """Show one version."""
    do(_show_agent(name), what="agents")


@agent.command("create")
def agent_create(
    name: Annotated[str, typer.Argument(help="A letter, then letters, digits, _ or -.")],
    prompt: Annotated[str, typer.Option(help="Who it is and how it works.")],
    agent_version: Annotated[str, typer.Option("--version", help="Versions never change.")] = "1.0.0",
    description: Annotated[str, typer.Option(help="One sentence.")] = "",
    capability: Annotated[list[str] | None, typer.Option(help="May be given more than once.")] = None,
) -> None:
    """Make a version of an agent."""
    made = agent_pb2.Agent(
        name=name,
        version=agent_version,
        description=description,
        system_prompt=prompt,
        capabilities=capability or [],
    )
    do(_create_agent(made), what="agents")


def main() -> None:
    """The entry point: never a traceback for what a user can cause."""
    try:
        app()
    except AgentNetError as error:
        field = f" ({error.field})" if error.field and error.field not in error.message else ""
        err.print(f"[red]error:[/] {escape(error.message)}{field}. {escape(error.suggestion)}".strip(), soft_wrap=True)
        sys.exit(1)


async def _run(topic: str, mode: str, agents: str, **parts: Any) -> None:
    names = [name.strip() for name in agents.split(",") if name.strip()]
    async with AgentNet.connect() as mesh:
        session = await mesh.sessions.start(topic, agents=names, mode=mode, **parts)
        await _tell(mesh, session.id, 0)


async def _answer(session_id: str, input_id: str, text: str, *, approve: bool) -> None:
    async with AgentNet.connect() as mesh:
        waiting = await mesh.sessions.inputs(session_id)
        if not waiting:
            out.print("the session asks nothing")
            return
        given = await mesh.sessions.answer(session_id, input_id or waiting[0].id, text, approved=approve)
    out.print(f"answered: {escape(given.question)}", soft_wrap=True)


async def _inbox(agent: str) -> None:
    async with AgentNet.connect() as mesh:
        waiting = await mesh.sessions.inbox(agent=agent)
    for asked in waiting:
        since = asked.request_time.ToDatetime(UTC).strftime("%Y-%m-%d %H:%M")
        who = f"[dim]{since}[/] {asked.session_id} {asked.id} [yellow]{escape(asked.agent or 'the graph')}:[/]"
        out.print(f"{who} {escape(asked.question)}", soft_wrap=True)
    if not waiting:
        out.print("nobody asks anything")


async def _inject(session_id: str, text: str) -> None:
    async with AgentNet.connect() as mesh:
        out.print(f"said as {await mesh.sessions.inject(session_id, text)}")


async def _watch(session_id: str, after: int) -> None:
    async with AgentNet.connect() as mesh:
        await _tell(mesh, session_id, after)


async def _tell(mesh: AgentNet, session_id: str, after: int) -> None:
    story = Story(out)
    with story:
        async for event in mesh.sessions.watch(session_id, after=after):
            story.tell(event)
    if story.failed:
        sys.exit(1)


async def _demo(address: str) -> bool:
    """The main job, on the mesh that has just started."""
    async with AgentNet.connect(address) as mesh:
        names = DEFAULT_AGENTS.split(",")
        out.print(
            f'\n[bold]agentnet run "{DEFAULT_TOPIC}" --mode brainstorm --agents {DEFAULT_AGENTS} --max-rounds 2[/]'
        )
        session = await mesh.sessions.start(DEFAULT_TOPIC, agents=names, mode="brainstorm", max_rounds=2)
        story = Story(out)
        with story:
            async for event in mesh.sessions.watch(session.id):
                story.tell(event)
        ended = await mesh.sessions.get(session.id)
    return ended.status == session_pb2.SESSION_STATUS_COMPLETED


async def _list_agents() -> None:
    table = Table("agent", "state", "capabilities", "description", box=None)
    async with AgentNet.connect() as mesh:
        async for found in mesh.agents.list():
            state = agent_pb2.AgentState.Name(found.state).removeprefix("AGENT_STATE_").lower()
            told = escape(", ".join(found.capabilities)), escape(found.description)
            table.add_row(f"{found.name}@{found.version}", state, *told)
    out.print(table)


async def _show_agent(name: str) -> None:
    async with AgentNet.connect() as mesh:
        out.print(await mesh.agents.get(name), markup=False)


async def _create_agent(made: agent_pb2.Agent) -> None:
    async with AgentNet.connect() as mesh:
        stored = await mesh.agents.create(made)
    out.print(f"made {stored.name}@{stored.version}")


def _print_status(found: dict[str, Any]) -> None:
    out.print(f"edge [bold]{found['url']}[/]  (gRPC, gRPC-Web, REST)   state {found['state']}", soft_wrap=True)
    columns = ("process", "health", "address", "pid", "restarts", "requests", "p50 ms", "p95", "p99")
    table = Table(*(Column(name, no_wrap=True) for name in columns), box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for part in found["processes"]:
        measured: dict[str, float] = part.get("latency_ms") or {}
        latency = (_milliseconds(measured.get(name)) for name in ("p50", "p95", "p99"))
        table.add_row(
            part["name"], part["health"], part["address"], str(part["pid"] or "-"), str(part["restarts"]),
            str(part.get("requests", "")), *latency,
        )  # fmt: skip
    out.print(table)


def _milliseconds(measured: float | None) -> str:
    return "" if measured is None else f"{measured:.0f}" if measured >= _LONG_MILLISECONDS else f"{measured:.1f}"


if __name__ == "__main__":
    main()
