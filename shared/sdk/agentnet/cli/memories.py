"""The commands `agentnet memory …`: store, find, forget, facts, an agent's context, what is kept and for how long."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Final, NoReturn

import typer
from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from agentnet.cli.work import do, err
from agentnet.client import AgentNet
from agentnet.client.knowledge import stamp, struct
from agentnet.memory.v1 import bulk_service_pb2, change_pb2, fact_pb2, memory_pb2, memory_service_pb2, recall_pb2

memory = typer.Typer(no_args_is_help=True, help="Store, find and forget what agents know.")

out = Console(highlight=False)

_RECEIPTS: Final = 10


class Type(StrEnum):
    """Which memories."""

    EPISODIC = "episodic"
    SEMANTIC = "semantic"
    LONG_TERM = "long-term"


class Bounded(StrEnum):
    """What may be bounded."""

    EPISODIC = "episodic"
    SEMANTIC = "semantic"
    LONG_TERM = "long-term"
    CONVERSATION = "conversation"
    FACT = "fact"
    ENDED_FACT = "ended-fact"


class By(StrEnum):
    """How to search."""

    HYBRID = "hybrid"
    DENSE = "dense"
    LEXICAL = "lexical"


TYPES: Final = {
    "episodic": memory_pb2.MEMORY_TYPE_EPISODIC,
    "semantic": memory_pb2.MEMORY_TYPE_SEMANTIC,
    "long-term": memory_pb2.MEMORY_TYPE_LONG_TERM,
}
_KINDS: Final = {
    "conversation": bulk_service_pb2.RETAINED_KIND_CONVERSATION,
    "fact": bulk_service_pb2.RETAINED_KIND_FACT,
    "ended-fact": bulk_service_pb2.RETAINED_KIND_ENDED_FACT,
}
_STRATEGIES: Final = {
    By.HYBRID: recall_pb2.SEARCH_STRATEGY_HYBRID,
    By.DENSE: recall_pb2.SEARCH_STRATEGY_DENSE,
    By.LEXICAL: recall_pb2.SEARCH_STRATEGY_LEXICAL,
}

Agent = Annotated[str, typer.Option(help="Whose, by agent name.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="May be given more than once.")]
Identifier = Annotated[str, typer.Argument(help="The memory, as `agentnet memory search` prints it.")]
Notes = Annotated[list[str] | None, typer.Option("--note", help="key=value, for filters. More than once.")]
Expires = Annotated[str, typer.Option(help="When it ends by itself: 2026-01-31 or 2026-01-31T12:00Z.")]
When = Annotated[str, typer.Option("--as-of", help="As things stood then: 2026-01-31 or 2026-01-31T12:00Z.")]


@memory.command("store")
def memory_store(
    content: Annotated[str, typer.Argument(help="What is known.")],
    *,
    agent: Agent = "",
    kind: Annotated[Type, typer.Option("--type", help="Which kind of memory.")] = Type.SEMANTIC,
    tag: Tags = None,
    importance: Annotated[float, typer.Option(min=0, max=1, help="How much it matters.")] = 0.5,
    session: Annotated[str, typer.Option(help="Where it comes from.")] = "",
    note: Notes = None,
    expires: Expires = "",
) -> None:
    """Store a memory; the same content is stored once, and stays as it is."""
    request = memory_service_pb2.RememberRequest(
        content=content, agent=agent, memory_type=TYPES[kind], tags=tag or (), importance=importance,
        session_id=session, metadata=struct(dict(pair(one, "--note") for one in note or ())),
        expire_time=_stamp(expires, "--expires"),
    )  # fmt: skip

    async def work() -> None:
        async with AgentNet.connect() as mesh:
            (kept,) = await mesh.memories.remember_many([request])
        name = kept.memory.id
        out.print(f"kept {name}" if kept.created else f"{name} was there already and stays as it is")

    do(work(), what="store")


@memory.command("search")
def memory_search(
    query: Annotated[str, typer.Argument(help="A question, or words.")],
    *,
    agent: Annotated[str, typer.Option(help="Only this agent's and every agent's.")] = "",
    kind: Annotated[list[Type] | None, typer.Option("--type", help="Only these types.")] = None,
    tag: Tags = None,
    session: Annotated[str, typer.Option(help="Only of this session.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many at most.")] = 5,
    by: Annotated[By, typer.Option(help="By meaning and words, by meaning, or by words.")] = By.HYBRID,
    as_of: When = "",
    since: Annotated[str, typer.Option(help="Only stored then or later: 2026-01-31 or 2026-01-31T12:00Z.")] = "",
    until: Annotated[str, typer.Option(help="Only stored before.")] = "",
    min_importance: Annotated[float, typer.Option(min=0, max=1, help="Only what matters as much.")] = 0,
    where: Annotated[
        list[str] | None, typer.Option(help="metadata.key=value, turn_id=… or policy_version=…. More than once.")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Also tell how each score came about.")] = False,
) -> None:
    """Find memories, best first."""
    request = memory_service_pb2.RecallRequest(
        query=query, agent=agent, memory_types=[TYPES[one] for one in kind or ()], tags=tag or (), session_id=session,
        limit=limit, strategy=_STRATEGIES[by], explain=explain, as_of=_stamp(as_of, "--as-of"),
        start_time=_stamp(since, "--since"), end_time=_stamp(until, "--until"), min_importance=min_importance,
        filters=dict(pair(one, "--where") for one in where or ()),
    )  # fmt: skip

    async def work() -> None:
        async with AgentNet.connect() as mesh:
            answer = await mesh.memories.search(request)
        for match in answer.matches:
            _tell_match(match)
        if not answer.matches:
            out.print("nothing was found")
        if answer.degraded:
            out.print("[yellow]no embedding could be had: found by words alone[/]")
        if answer.coverage.withheld:
            out.print(f"[yellow]{answer.coverage.withheld} withheld by policy[/]")

    do(work(), what="search")


@memory.command("get")
def memory_get(memory_id: Identifier) -> None:
    """Show one memory with all that is known of it."""

    async def work() -> None:
        async with AgentNet.connect() as mesh:
            found = await mesh.memories.get(memory_id)
        told = json_format.MessageToJson(found, preserving_proto_field_name=True, ensure_ascii=False)
        out.print(told, markup=False, soft_wrap=True)

    do(work(), what="look-up")


@memory.command("forget")
def memory_forget(
    memory_id: Annotated[list[str] | None, typer.Argument(help="Memories, by id.")] = None,
    session: Annotated[str, typer.Option(help="All of this session; alone, what was said in it too.")] = "",
    agent: Annotated[str, typer.Option(help="All of this agent.")] = "",
    tag: Tags = None,
    facts_of: Annotated[str, typer.Option("--facts", help="All facts of this subject.")] = "",
) -> None:
    """Delete for good, and print the receipts that prove it. What is named together has to fit together."""
    many = bool(session or agent or tag)
    if bool(memory_id) + many + bool(facts_of) != 1:
        refuse("name memories, or --session, --agent and --tag, or --facts", "See `agentnet memory forget --help`.")

    async def work() -> None:
        async with AgentNet.connect() as mesh:
            if many:
                found = mesh.memories.forget_many(session_id=session, agent=agent, tags=tag or ())
                receipts = [receipt async for receipt in found]
            elif facts_of:
                receipts = list(await mesh.memories.forget_facts(facts_of))
            else:
                receipts = [await mesh.memories.forget(one) for one in memory_id or ()]
        for receipt in receipts[:_RECEIPTS]:
            _tell_receipt(receipt)
        if len(receipts) > _RECEIPTS:
            out.print(f"and {len(receipts) - _RECEIPTS} more")
        if not receipts:
            out.print("there was nothing to forget")

    do(work(), what="deletion")


@memory.command("receipts")
def memory_receipts(
    subject: Annotated[str, typer.Argument(help="Of what had this id; without, of all.")] = "",
    by: Annotated[str, typer.Option(help="Who deleted it; `retention`: a bound or its own end.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 50,
) -> None:
    """List the receipts of what was deleted, the last first."""

    async def work() -> None:
        async with AgentNet.connect() as mesh:
            left = limit
            async for receipt in mesh.memories.receipts(subject_id=subject, requested_by=by):
                _tell_receipt(receipt)
                if not (left := left - 1):
                    return
            if left == limit:
                out.print("there are no receipts")

    do(work(), what="list")


@memory.command("facts")
def memory_facts(
    subject: Annotated[str, typer.Argument(help="The entity, such as user:ada; all without.")] = "",
    relation: Annotated[str, typer.Option(help="Only this relation.")] = "",
    record: Annotated[list[str] | None, typer.Option(help="relation=object, first recorded. More than once.")] = None,
    as_of: When = "",
    *,
    several: Annotated[bool, typer.Option("--several", help="More than one object may hold at a time.")] = False,
    history: Annotated[bool, typer.Option("--history", help="Also what has ended.")] = False,
) -> None:
    """List what is so, those recorded last first; with --record, what is new first."""
    pairs, moment = [pair(one, "--record") for one in record or ()], moment_of(as_of, "--as-of")
    if pairs and not subject:
        refuse("--record needs a subject", "Name it before: `agentnet memory facts user:ada --record likes=tea`.")

    async def work() -> None:
        async with AgentNet.connect() as mesh:
            for name, value in pairs:
                await mesh.memories.record(subject, name, value, several=several)
            lines = [
                _told(fact)
                async for fact in mesh.memories.facts(subject, relation=relation, history=history, as_of=moment)
            ]
        out.print("\n".join(lines) if lines else "nothing is known", soft_wrap=True)

    do(work(), what="list")


@memory.command("context")
def memory_context(
    session: Annotated[str, typer.Argument(help="The session.")],
    agent: Annotated[str, typer.Argument(help="Who will speak, by agent name.")],
    query: Annotated[str, typer.Argument(help="What it will be asked; without, nothing is searched.")] = "",
    *,
    max_tokens: Annotated[int, typer.Option(min=1, max=100_000, help="Of the whole text.")] = 2_000,
    subject: Annotated[list[str] | None, typer.Option(help="Also facts about it. More than once.")] = None,
    handoff_from: Annotated[str, typer.Option(help="The agent that hands over.")] = "",
    handoff_note: Annotated[str, typer.Option(help="What that agent has to say.")] = "",
) -> None:
    """Print what an agent would be given to know for its next turn."""

    async def work() -> None:
        async with AgentNet.connect() as mesh:
            text = await mesh.memory_of(agent).get_context_for_agent(
                session, query, max_tokens=max_tokens, subjects=subject or (), handoff_from=handoff_from,
                handoff_note=handoff_note,
            )  # fmt: skip
        out.print(text or "nothing is known", markup=False, soft_wrap=True)

    do(work(), what="assembly")


@memory.command("stats")
def memory_stats() -> None:
    """Show what is kept, since when, its bounds, and how near the tenant's limit that is."""

    async def work() -> None:
        async with AgentNet.connect() as mesh:
            found = await mesh.memories.usage()
        table = Table(Column("what", no_wrap=True), "kept", "since", "at most", "days", box=None)
        named = {number: name for name, number in TYPES.items()}
        for one in found.types:
            bounds = (one.max_memories, one.max_days)
            table.add_row(named[one.memory_type], *_cells(one.memories, one.oldest_time, *bounds))
        kinds = {number: name for name, number in _KINDS.items()}
        for other in found.kinds:
            table.add_row(kinds[other.kind], *_cells(other.count, other.oldest_time, other.max_count, other.max_days))
        out.print(table)
        slowed = ", [yellow]storing is slowed down[/]" if found.throttled else ""
        out.print(f"{found.pressure:.1%} of {found.limit:,} memories{slowed}")

    do(work(), what="look-up")


@memory.command("retain")
def memory_retain(
    what: Annotated[Bounded, typer.Argument(help="What to bound.")],
    at_most: Annotated[int, typer.Option(min=0, help="How many; 0: any number.")] = 0,
    days: Annotated[int, typer.Option(min=0, help="For how long; 0: for ever.")] = 0,
) -> None:
    """Set how much is kept and for how long, in place of what was set before. Pruned every few minutes."""
    request = bulk_service_pb2.SetRetentionRequest(
        memory_type=TYPES.get(what, memory_pb2.MEMORY_TYPE_UNSPECIFIED),
        kind=_KINDS.get(what, bulk_service_pb2.RETAINED_KIND_UNSPECIFIED),
        max_memories=at_most, max_days=days,
    )  # fmt: skip

    async def work() -> None:
        async with AgentNet.connect() as mesh:
            await mesh.memories.retain(request)
            would = await mesh.memories.prune(dry_run=True)
        going = would.expired + would.aged + would.crowded_out + would.conversations + would.facts
        out.print(f"set; {going} are beyond their bounds now")

    do(work(), what="setting")


@memory.command("reembed")
def memory_reembed(
    *, dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell how many remain.")] = False
) -> None:
    """Give memories vectors of the embedding model of now, until none lacks them. May be stopped and begun again."""

    async def work() -> None:
        async with AgentNet.connect() as mesh:
            answer = await mesh.memories.reembed(dry_run=dry_run)
            done = answer.reembedded
            while answer.reembedded and answer.remaining:
                err.print(f"{done:,} done, {answer.remaining:,} remain")
                answer = await mesh.memories.reembed()
                done += answer.reembedded
        out.print(f"{done:,} done, {answer.remaining:,} remain")

    do(work(), what="embedding")


def _tell_match(match: memory_service_pb2.ScoredMemory) -> None:
    found = match.memory
    where = " ".join(filter(None, (found.agent, found.session_id, *(f"#{tag}" for tag in found.tags))))
    out.print(f"[bold]{match.relevance:.2g}[/] {found.id} [dim]{day(found.create_time)} {escape(where)}[/]")
    out.print(f"  {escape(found.content)}", soft_wrap=True)
    if match.HasField("explanation"):
        why = match.explanation
        parts = sorted(why.parts.items(), key=lambda part: -abs(part[1]))
        told = ", ".join(f"{name} {value:+.2f}" for name, value in parts if value)
        words = f"; words: {', '.join(why.matched_terms)}" if why.matched_terms else ""
        out.print(f"  [dim]cosine {why.cosine:.2f}, bm25 {why.bm25:.2f}; {told}{escape(words)}[/]", soft_wrap=True)


def _tell_receipt(receipt: change_pb2.ForgetReceipt) -> None:
    when = f"{day(receipt.delete_time)} by {escape(receipt.requested_by)}"
    proof = f"receipt {receipt.id} sha256 {receipt.content_sha256}"
    out.print(f"{escape(receipt.subject_id)} is gone [dim]{proof} {when}[/]", soft_wrap=True)


def _told(fact: fact_pb2.Fact) -> str:
    until = f" until {day(fact.valid_to_time)}" if fact.HasField("valid_to_time") else ""
    what = f"{fact.subject} {fact.relation} {fact.object or '(withheld)'}"
    return f"{escape(what)} [dim]since {day(fact.valid_from_time)}{until}[/]"


def _cells(count: int, oldest: Timestamp, at_most: int, days: int) -> tuple[str, ...]:
    since = day(oldest) if oldest.seconds else ""
    return f"{count:,}", since, f"{at_most:,}" if at_most else "-", str(days or "-")


def day(moment: Timestamp) -> str:
    """As it is printed, in UTC."""
    return moment.ToDatetime(UTC).strftime("%Y-%m-%d %H:%M")


def pair(given: str, option: str) -> tuple[str, str]:
    """The two sides of name=value."""
    name, sign, value = given.partition("=")
    if not (name and sign and value):
        refuse(f"{option} is {given}", "Write it as name=value.")
    return name, value


def moment_of(given: str, option: str) -> datetime | None:
    """An instant, in UTC where no zone is named; none where nothing is given."""
    if not given:
        return None
    try:
        moment = datetime.fromisoformat(given)
    except ValueError:
        refuse(f"{option} is {given}", "Write it as 2026-01-31 or 2026-01-31T12:00Z.")
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _stamp(given: str, option: str) -> Timestamp | None:
    moment = moment_of(given, option)
    return stamp(moment) if moment else None


def refuse(message: str, suggestion: str) -> NoReturn:
    """Ends the command with what is wrong and what to do."""
    err.print(f"[red]error:[/] {escape(message)}. {suggestion}", soft_wrap=True)
    raise typer.Exit(1)
