"""The commands `agentnet agent …` beyond make and read: import, templates, dispatch, chains, history."""

from __future__ import annotations

import sys
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from agentnet.cli.work import do
from agentnet.client import AgentNet, AgentRegistry, HumanMessage
from agentnet.orchestrator.v1 import agent_pb2, delegation_pb2

out = Console(highlight=False)
_MICROS: Final = 1_000_000
_TASK: Final = 60
Name = Annotated[str, typer.Argument(help="The agent, such as Athena.")]


def add_to(agent: typer.Typer) -> None:
    """Adds the commands."""
    for name, command in (
        ("import", agent_import),
        ("templates", agent_templates),
        ("from-template", agent_from_template),
        ("ask", agent_ask),
        ("minions", agent_minions),
        ("metrics", agent_metrics),
        ("reputation", agent_reputation),
        ("join", agent_join),
        ("chain", agent_chain),
        ("delegations", agent_delegations),
        ("revoke", agent_revoke),
        ("activate", agent_activate),
        ("archive", agent_archive),
    ):
        agent.command(name)(command)


def agent_import(
    file: Annotated[typer.FileText, typer.Argument(help="YAML or JSON in the form of agents.yaml; - for the input.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, make nothing.")] = False,
) -> None:
    """Make the agents of a file, all or none."""
    do(_import(file.read(), dry_run=dry_run), what="agents")


def agent_templates(domain: Annotated[str, typer.Option(help="coding, writing, research.")] = "") -> None:
    """List templates and personas."""
    do(_templates(domain), what="agents")


def agent_from_template(
    template: Annotated[str, typer.Argument(help="coder, or coder@1.0.0.")],
    name: Annotated[str, typer.Option(help="The template's own without.")] = "",
    persona: Annotated[str, typer.Option(help="For example mentor.")] = "",
    fill: Annotated[list[str] | None, typer.Option("--set", help="parameter=value, more than once.")] = None,
) -> None:
    """Make an agent of a template."""
    pairs = [entry.partition("=") for entry in fill or ()]
    do(_from_template(template, name, persona, {key: value for key, _, value in pairs}), what="agents")


def agent_ask(
    task: Annotated[str, typer.Argument(help="What is to be done.")],
    capability: Annotated[list[str] | None, typer.Option(help="What the agent must be able to do.")] = None,
    conversation: Annotated[str, typer.Option(help="Its id; who answered before is preferred.")] = "",
) -> None:
    """Give a task to the agent that fits it best."""
    do(_ask(task, capability or [], conversation), what="agents")


def agent_minions(capability: Annotated[str, typer.Option(help="Only with this one.")] = "") -> None:
    """Show who takes work and what they are doing."""
    do(_minions(capability), what="agents")


def agent_metrics(name: Name) -> None:
    """Show what an agent did in the last 24 hours."""
    do(_metrics(name), what="agents")


def agent_reputation(name: Name) -> None:
    """Show how far an agent can be relied on, and why."""
    do(_reputation(name), what="agents")


def agent_join(
    source: Name,
    kind: Annotated[str, typer.Argument(help="chains_to, delegates_to, reviews, falls_back_to, …")],
    target: Name,
) -> None:
    """Join two agents."""
    do(_join(source, kind, target), what="agents")


def agent_chain(name: Name, prompt: Annotated[str, typer.Argument(help="What the first one is asked.")]) -> None:
    """Run a chain and show it to its end."""
    do(_chain(name, prompt), what="agents")


def agent_delegations(name: Annotated[str, typer.Argument(help="Only this agent's; all without.")] = "") -> None:
    """List delegations: who gave work to whom, with what it may spend and has spent."""
    do(_delegations(name), what="agents")


def agent_revoke(
    delegation_id: Annotated[str, typer.Argument(help="As `agentnet agent delegations` lists it.")],
) -> None:
    """Revoke a delegation with all below it."""
    do(_revoke(delegation_id), what="agents")


def agent_activate(name: Annotated[str, typer.Argument(help="A draft, as Athena@1.1.0.")]) -> None:
    """Let a version answer to its bare name."""
    do(_activate(name), what="agents")


def agent_archive(name: Annotated[str, typer.Argument(help="Athena@1.0.0, or Athena for all its versions.")]) -> None:
    """Let a version, or an agent, start nothing new."""
    do(_archive(name), what="agents")


async def _import(document: str, *, dry_run: bool) -> None:
    async with AgentNet.connect() as mesh:
        found = await mesh.agents.import_document(document, dry_run=dry_run)
    made, table = set(found.created), Table("agent", "", box=None)
    for agent in found.agents:
        reference = f"{agent.name}@{agent.version}"
        word = ("would be made" if dry_run else "made") if reference in made else "there already"
        table.add_row(reference, word)
    out.print(table)


async def _templates(domain: str) -> None:
    async with AgentNet.connect() as mesh:
        found = await mesh.templates.list(domain=domain)
    table = Table("template", "domain", "parameters", "description", box=None)
    for one in found.templates:
        needs = ", ".join(f"{name}={value}" if value else name for name, value in sorted(one.parameters.items()))
        table.add_row(*map(escape, (f"{one.name}@{one.version}", one.domain, needs, one.description)))
    out.print(table)
    for persona in found.personas:
        out.print(f"[cyan]{escape(persona.name)}[/] {escape(persona.description)}")


async def _from_template(template: str, name: str, persona: str, parameters: dict[str, str]) -> None:
    async with AgentNet.connect() as mesh:
        made = await mesh.templates.create_agent(template, name=name, persona=persona, parameters=parameters)
    out.print(f"made {made.name}@{made.version} of {made.template}")


async def _ask(task: str, capabilities: list[str], conversation: str) -> None:
    async with AgentNet.connect() as mesh:
        answer = await AgentRegistry(mesh).process([HumanMessage(task)], conversation, capabilities=capabilities)
    if answer.delegation:
        out.print(f"[dim]{escape(answer.delegation.choice.reason)}[/]", soft_wrap=True)
    out.print(f"[bold]{escape(answer.agent)}[/]")
    out.print(answer.content, markup=False, soft_wrap=True)


async def _minions(capability: str) -> None:
    async with AgentNet.connect() as mesh:
        found = await mesh.dispatch.minions(capability=capability)
    table = Table("agent", "state", "running", "reputation", "calls", "errors", "capabilities", box=None)
    for one in found:
        table.add_row(
            one.agent, one.state, f"{one.running}/{one.max_concurrent_tasks}", f"{one.reputation:.2f}",
            str(one.metrics.calls), str(one.metrics.errors), escape(", ".join(one.capabilities)),
        )  # fmt: skip
    out.print(table)


async def _delegations(name: str) -> None:
    async with AgentNet.connect() as mesh:
        async for one in mesh.dispatch.delegations(agent=name):
            state = delegation_pb2.DelegationState.Name(one.state).removeprefix("DELEGATION_STATE_").lower()
            spent, limit = (micros / _MICROS for micros in (one.cost_micros_usd, one.capability.budget_micros_usd))
            money = f"${spent:.6f}" + (f" of ${limit:.6f}" if limit else "")
            task = escape(one.task.replace("\n", " ")[:_TASK])
            line = f"{one.id} {escape(one.source)} > {one.target} [yellow]{state}[/] {money} {task}"
            out.print(line, soft_wrap=True)


async def _revoke(delegation_id: str) -> None:
    async with AgentNet.connect() as mesh:
        revoked = await mesh.dispatch.revoke(delegation_id)
    out.print("\n".join(f"revoked {one}" for one in revoked) or "it runs no more")


async def _activate(name: str) -> None:
    async with AgentNet.connect() as mesh:
        found = await mesh.agents.set_state(name, agent_pb2.AGENT_STATE_ACTIVE)
    out.print(f"{found.name}@{found.version} answers")


async def _archive(name: str) -> None:
    async with AgentNet.connect() as mesh:
        await AgentRegistry(mesh).archive_agent(name)
    out.print(f"{escape(name)} starts nothing new")


async def _metrics(name: str) -> None:
    async with AgentNet.connect() as mesh:
        found = await mesh.history.metrics(name)
    took = [getattr(found, f"latency_{part}").ToTimedelta().total_seconds() for part in ("p50", "p95", "p99")]
    out.print(f"calls {found.calls} · errors {found.errors} · ${found.cost_micros_usd / _MICROS:.6f}")
    out.print(f"tokens {found.usage.input_tokens} in, {found.usage.output_tokens} out")
    out.print("latency p50 {:.2f} s, p95 {:.2f} s, p99 {:.2f} s".format(*took))
    for reason, times in sorted(found.errors_by_reason.items()):
        out.print(f"[red]{reason}[/] {times}")
    for tool in found.tools:
        out.print(f"tool {escape(tool.tool)} {tool.calls} calls, {tool.failures} failed")


async def _reputation(name: str) -> None:
    async with AgentNet.connect() as mesh:
        found = await mesh.history.reputation(name)
    out.print(f"[bold]{found.score:.3f}[/] ± {found.uncertainty:.3f}")
    table = Table("from", "for", "against", "effect", "count", box=None)
    for one in found.factors:
        table.add_row(one.source, f"{one.positive:.2f}", f"{one.negative:.2f}", f"{one.effect:+.3f}", str(one.count))
    out.print(table)


async def _join(source: str, kind: str, target: str) -> None:
    async with AgentNet.connect() as mesh:
        made = await mesh.relationships.create(source, kind, target)
    out.print(f"{made.source} {made.kind} {made.target}")


async def _chain(name: str, prompt: str) -> None:
    async with AgentNet.connect() as mesh:
        chain = await mesh.relationships.run_chain(name, prompt)
        async for _ in mesh.sessions.watch(chain.session_id):
            continue
        chain = await mesh.relationships.get_chain(chain.id)
    for step in chain.steps:
        after = f"{step.source} > " if step.source else ""
        out.print(f"[bold]{after}{step.target}[/] {step.status}", soft_wrap=True)
        out.print(step.output or step.failure.message, markup=False, soft_wrap=True)
    for edge in chain.cut_off:
        out.print(f"[yellow]not followed, too deep:[/] {escape(edge)}")
    if chain.status != "completed":
        sys.exit(1)
