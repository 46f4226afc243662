"""The commands `agentnet eval …`: run a suite as a gate, show, list, compare, cancel."""

from __future__ import annotations

import asyncio
import json
import sys
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Final

import typer
from google.protobuf import json_format
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from agentnet.cli.work import do, err
from agentnet.client import AgentNet
from agentnet.orchestrator.v1 import evaluation_pb2, evaluation_service_pb2

evaluation = typer.Typer(no_args_is_help=True, help="Evaluate agents by suites of scenarios, and gate on regressions.")

out = Console(highlight=False)

FAILED: Final = 4
REGRESSED: Final = 5
_SHIPPED: Final = ("adversarial", "baseline")
_STATES: Final = {1: "running", 2: "completed", 3: "cancelled"}

Evaluation = evaluation_service_pb2.Evaluation
Identifier = Annotated[str, typer.Argument(help="The evaluation, as `agentnet eval run` prints it.")]


@evaluation.command("run")
def eval_run(  # noqa: PLR0917 - typer makes options of them
    suite: Annotated[str, typer.Argument(help="A YAML or JSON file, or a shipped suite: adversarial, baseline.")],
    baseline: Annotated[str, typer.Option(help="Judge by this run: an id, or a file --save wrote.")] = "",
    max_regression: Annotated[
        float, typer.Option(min=0, max=1, help="With a baseline: how much worse a scenario may be, 0 to 1.")
    ] = 0.05,
    min_success: Annotated[
        float, typer.Option(min=0, max=1, help="Without a baseline: the share of runs that must pass.")
    ] = 1.0,
    repeats: Annotated[int, typer.Option(min=0, max=100, help="Runs of each scenario; 0: as the suite says.")] = 0,
    agent: Annotated[
        list[str] | None, typer.Option(help="Who speaks in place of whom, as Athena=Athena@1.1.0. More than once.")
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Keep the run in this file, as a later baseline.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: the run as JSON.")] = False,
) -> None:
    """Run a suite and wait: 0 when it is good, 4 when scenarios fail, 5 when it got worse than the baseline."""
    swaps = dict(_swap(entry) for entry in agent or ())
    text = _document(suite)
    status = [0]

    async def work() -> None:
        async with AgentNet.connect() as mesh:
            ended = await _ended(mesh, text, agents=swaps, repeats=repeats, quiet=as_json)
            if save:
                save.write_text(_as_json(ended) + "\n", encoding="utf-8")
            if baseline:
                compared = await mesh.evaluations.compare(ended.id, _baseline(baseline))
                ended.comparison.CopyFrom(compared)
        status[0] = _judge(ended, max_regression if baseline else None, min_success)
        sys.stdout.write(_as_json(ended) + "\n") if as_json else _tell(ended)
        if not as_json:
            _tell_verdict(ended, status[0])

    do(work(), what="evaluation")
    sys.exit(status[0])


@evaluation.command("show")
def eval_show(
    evaluation_id: Identifier,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show a run, its scores and its comparison."""

    async def work() -> None:
        async with AgentNet.connect() as mesh:
            found = await mesh.evaluations.get(evaluation_id)
        sys.stdout.write(_as_json(found) + "\n") if as_json else _tell(found)

    do(work(), what="evaluation")


@evaluation.command("list")
def eval_list(suite: Annotated[str, typer.Option(help="Only runs of this suite.")] = "") -> None:
    """List runs, newest first."""

    async def work() -> None:
        table = Table(Column("evaluation", no_wrap=True), "suite", "state", "cases", "began", box=None)
        async with AgentNet.connect() as mesh:
            async for found in mesh.evaluations.list(suite=suite):
                ended = f"{found.cases_finished}/{found.cases}"
                began = found.start_time.ToJsonString()
                table.add_row(found.id, found.suite, _STATES[found.status], ended, began)
        out.print(table)

    do(work(), what="evaluation")


@evaluation.command("compare")
def eval_compare(
    candidate: Identifier, baseline: Annotated[str, typer.Argument(help="An id, or a file --save wrote.")]
) -> None:
    """Show what differs between a run and an earlier one."""

    async def work() -> None:
        async with AgentNet.connect() as mesh:
            _tell_comparison(await mesh.evaluations.compare(candidate, _baseline(baseline)))

    do(work(), what="evaluation")


@evaluation.command("cancel")
def eval_cancel(evaluation_id: Identifier) -> None:
    """End a run; what has its score keeps it."""

    async def work() -> None:
        async with AgentNet.connect() as mesh:
            ended = await mesh.evaluations.cancel(evaluation_id)
        out.print(f"{_STATES[ended.status]} after {ended.cases_finished} of {ended.cases} cases")

    do(work(), what="evaluation")


def _swap(entry: str) -> tuple[str, str]:
    name, equals, other = entry.partition("=")
    if not (name and equals and other):
        raise typer.BadParameter(f"{entry} is not of the form Athena=Athena@1.1.0", param_hint="--agent")
    return name, other


def _document(suite: str) -> str:
    if suite in _SHIPPED and not Path(suite).exists():
        return (files("agentnet.testing") / "suites" / f"{suite}.yaml").read_text(encoding="utf-8")
    try:
        return Path(suite).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(suite, error) from None


def _baseline(given: str) -> str | Evaluation:
    """A file that is there is read; anything else is an id."""
    if not Path(given).is_file():
        return given
    try:
        return json_format.Parse(Path(given).read_text(encoding="utf-8"), Evaluation(), ignore_unknown_fields=True)
    except (OSError, UnicodeDecodeError, json_format.ParseError) as error:
        raise _unreadable(given, error) from None


def _unreadable(file: str, error: Exception) -> typer.Exit:
    err.print(f"[red]error:[/] {escape(file)} cannot be read: {escape(str(error))}", soft_wrap=True)
    return typer.Exit(1)


async def _ended(mesh: AgentNet, text: str, *, agents: dict[str, str], repeats: int, quiet: bool) -> Evaluation:
    def seen(found: Evaluation) -> None:
        if not quiet:
            out.print(f"[dim]{found.cases_finished} of {found.cases} cases[/]")

    started = await mesh.evaluations.start(text, agents=agents, repeats=repeats)
    if not quiet:
        out.print(f"[dim]evaluation {started.id}[/]", soft_wrap=True)
    try:
        return await mesh.evaluations.wait(started.id, seen=seen)
    except asyncio.CancelledError:
        err.print(f"\nlook again with: agentnet eval show {started.id}")
        raise


def _judge(ended: Evaluation, max_regression: float | None, min_success: float) -> int:
    if max_regression is None:
        return 0 if ended.success.rate >= min_success else FAILED
    gone = ended.comparison.removed
    return REGRESSED if gone or ended.comparison.regression_score > max_regression else 0


def _as_json(found: Evaluation) -> str:
    plain = json_format.MessageToDict(
        found, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return json.dumps(plain, indent=1, ensure_ascii=False)


def _tell(found: Evaluation) -> None:
    table = Table("scenario", "passed", "95 %", "score", "coverage", "novelty", "coherence", "violations", box=None)
    for summary in found.summaries:
        rate = summary.success
        table.add_row(
            summary.name, f"{rate.passed}/{rate.runs}", f"{rate.low:.2f}-{rate.high:.2f}", f"{summary.score:.3f}",
            f"{summary.coverage_score:.2f}", f"{summary.novelty_score:.2f}", f"{summary.coherence_score:.2f}",
            f"{summary.rule_violations:g}",
        )  # fmt: skip
    out.print(table)
    for score in found.scores:
        if not score.passed:
            _tell_failure(score)
    if found.HasField("comparison"):
        _tell_comparison(found.comparison)


def _tell_failure(score: evaluation_service_pb2.ScenarioScore) -> None:
    missed = [f"{verdict.type}: {verdict.detail}" for verdict in score.verdicts if not verdict.met]
    why = "; ".join(filter(None, (score.failure.message, *missed))) or f"it ended by {score.stop_reason}"
    session = f" (agentnet watch {score.session_id})" if score.session_id else ""
    out.print(f"[red]✗ {score.name} {score.repetition}[/] {escape(why)}[dim]{session}[/]", soft_wrap=True)


def _tell_comparison(compared: evaluation_pb2.Comparison) -> None:
    for difference in compared.scenarios:
        before, now = difference.baseline, difference.candidate
        colour = "red" if difference.regression_score else "green"
        sure = ", more than chance" if difference.significant else ""
        out.print(
            f"[{colour}]{difference.name}[/] success {before.success.rate:.2f} → {now.success.rate:.2f}{sure}, "
            f"score {before.score:.3f} → {now.score:.3f}, regression {difference.regression_score:.3f}",
            soft_wrap=True,
        )
        if difference.outcome_diff:
            out.print(difference.outcome_diff, markup=False, soft_wrap=True, style="dim")
    for name in compared.removed:
        out.print(f"[red]{name}[/] is gone")
    for name in compared.added:
        out.print(f"[green]{name}[/] is new")


def _tell_verdict(ended: Evaluation, status: int) -> None:
    if status == REGRESSED:
        out.print(f"[red]worse than the baseline[/]: regression {ended.comparison.regression_score:.3f}")
    elif status == FAILED:
        out.print(f"[red]failed[/]: {ended.success.passed} of {ended.success.runs} runs passed")
    else:
        out.print(f"[green]good[/]: {ended.success.passed} of {ended.success.runs} runs passed")
