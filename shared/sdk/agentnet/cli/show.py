"""A session told in a terminal: each agent in its colour, tokens as they come, what it cost, what policy did."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from agentnet.cli.asides import aside
from agentnet.common.v1 import error_reason_pb2, failure_pb2
from agentnet.orchestrator.v1 import decision_pb2, event_pb2, input_pb2, session_pb2, turn_pb2

_COLOURS: Final = ("cyan", "magenta", "yellow", "green", "blue", "red")
_MICROS: Final = 1_000_000


class Story:
    """Tells events in order. A progress line shows while nothing else does."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._colours: dict[str, str] = {}
        self._progress: Status | None = None
        self._rounds = 0
        self._speaking = ""
        self._tokens = 0
        self.failed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hush()

    def tell(self, event: event_pb2.SessionEvent) -> None:  # noqa: C901 - one line a kind of event
        """Shows one event."""
        match event.WhichOneof("payload"):
            case "session_started":
                self._started(event.session_started.session)
            case "turn_started":
                self._turn_started(event.turn_started)
            case "tokens_produced":
                self._tokens_produced(event)
            case "monitor_verdict":
                self._verdict(event.monitor_verdict)
            case "turn_finished":
                self._turn_finished(event.turn_finished.turn)
            case "turn_interrupted":
                self._interrupted(event.turn_interrupted.failure)
            case "round_finished":
                done = event.round_finished
                verdict = "converged" if done.converged else "not yet converged"
                self._line(f"[dim]round {done.round}: {done.similarity:.0%} like the one before, {verdict}[/]")
            case "session_taken_over":
                self._line("[dim]another replica goes on with the session[/]")
            case "session_waiting":
                self._line("[yellow]the session waits[/]")
            case "session_finished":
                self._finished(event.session_finished.session)
            case _:
                self._tell_more(event)

    def _tell_more(self, event: event_pb2.SessionEvent) -> None:
        """Tools, people, choices."""
        match event.WhichOneof("payload"):
            case "tool_started":
                self._line(
                    f"[dim]  {escape(f'{event.tool_started.tool} {event.tool_started.call.arguments[:200]}')}[/]"
                )
            case "tool_finished":
                self._tool_finished(event.tool_finished)
            case "input_requested":
                self._asked(event.input_requested)
            case "strategy_chosen":
                chosen = event.strategy_chosen
                self._line(f"[dim]strategy {chosen.strategy}: {escape(chosen.reason)}[/]")
            case "decision_reached":
                self._decided(event.decision_reached.decision)
            case "failed_over":
                self._failed_over(event.failed_over)
            case _:
                if line := aside(event):
                    self._line(f"[dim]{escape(line)}[/]")

    def _started(self, session: session_pb2.Session) -> None:
        self._rounds = session.max_rounds
        self._line(f"[bold]{escape(session.topic_start)}[/]")
        self._line(f"[dim]session {session.id} · {session.mode} · {', '.join(session.agents)}[/]\n")

    def _turn_started(self, turn: event_pb2.TurnStarted) -> None:
        self._speaking, self._tokens = turn.agent, 0
        self._wait(f"round {turn.round}/{self._rounds or turn.round} · {turn.agent} is thinking")

    def _tokens_produced(self, event: event_pb2.SessionEvent) -> None:
        self._hush()
        agent = event.actor.removeprefix("agent:") or self._speaking
        if not self._tokens:
            self._console.print(f"[bold {self._colour(agent)}]{agent.partition('@')[0]}[/] ", end="")
        produced = event.tokens_produced
        text = produced.text if self._tokens else produced.text.lstrip()
        self._tokens += max(produced.token_count, 1)
        self._console.print(text, end="", style=self._colour(agent), markup=False, soft_wrap=True)

    def _verdict(self, verdict: event_pb2.MonitorVerdict) -> None:
        self._hush()
        told = escape(f"{verdict.action}: {verdict.rule} ({verdict.bundle})")
        self._console.print(f"[black on yellow] {told} [/]", end="")

    def _turn_finished(self, turn: turn_pb2.Turn) -> None:
        self._hush()
        seconds = (turn.end_time.ToNanoseconds() - turn.start_time.ToNanoseconds()) / 1e9
        checks = ", ".join(f"{monitor.name} {monitor.status}" for monitor in turn.monitors) or "no monitors"
        first = turn.time_to_first_token.ToMilliseconds()
        self._console.print(
            f"\n[dim]  {turn.usage.input_tokens} in, {turn.usage.output_tokens} out · "
            f"${turn.cost.micros_usd / _MICROS:.6f} · {turn.cost.model} · first token {first} ms, "
            f"{seconds:.1f} s · {checks}[/]\n"
        )

    def _failed_over(self, failed: event_pb2.FailedOver) -> None:
        """Never a silent splice: what was shown of an answer that begins anew is void."""
        then = "begins anew" if failed.restarted else "goes on"
        line = f"{failed.from_model} failed: {failed.failure.message}; {failed.to_model} {then}"
        self._line(f"\n[yellow]{escape(line)}[/]")
        if failed.restarted:
            self._tokens = 0

    def _tool_finished(self, finished: event_pb2.ToolFinished) -> None:
        colour = "red" if finished.HasField("failure") else "dim"
        self._line(f"[{colour}]  {escape(f'{finished.call.tool} → {finished.outcome.result[:200]}')}[/]")

    def _asked(self, asked: event_pb2.InputRequested) -> None:
        session_id = asked.input.session_id
        approval = asked.input.kind == input_pb2.INPUT_KIND_APPROVAL
        how = f"agentnet answer {session_id} --approve" if approval else f'agentnet answer {session_id} "…"'
        self._line(f"[yellow]{asked.input.agent or 'the graph'} asks:[/] {escape(asked.question)} [dim]({how})[/]")

    def _decided(self, decision: decision_pb2.Decision) -> None:
        who = decision.winner or "nobody alone"
        against = f", {len(decision.minority)} hold otherwise" if decision.minority else ""
        self._line(f"[green]{decision.kind}:[/] {who}{against} · {escape(decision.reason or decision.content[:200])}")

    def _finished(self, session: session_pb2.Session) -> None:
        self._hush()
        self.failed = session.status == session_pb2.SESSION_STATUS_FAILED
        why = session_pb2.StopReason.Name(session.stop_reason).removeprefix("STOP_REASON_").lower().replace("_", " ")
        colour = "red" if self.failed else "green"
        self._line(
            f"[{colour}]ended:[/] {why} after {_counted(session.rounds_executed, 'round')} · "
            f"{session.usage.output_tokens} tokens · ${session.cost_micros_usd / _MICROS:.6f}"
        )
        if self.failed:
            self._line(f"[red]{escape(session.failure.message)}[/]")
        self._line(f"[dim]again, from any place: agentnet watch {session.id} --after 0[/]")

    def _colour(self, agent: str) -> str:
        return self._colours.setdefault(agent, _COLOURS[len(self._colours) % len(_COLOURS)])

    def _interrupted(self, failure: failure_pb2.Failure) -> None:
        then = "; trying again" if failure.retryable else ""
        if failure.reason == error_reason_pb2.ERROR_REASON_BUDGET_APPROVAL_REQUIRED:
            then = f"; POST /v1/budgets/{failure.metadata['budget_id']}/approve, then resume the session"
        self._line(f"\n[red]interrupted:[/] {escape(failure.message + then)}")

    def _line(self, text: str) -> None:
        self._hush()
        self._console.print(text, soft_wrap=True)

    def _wait(self, text: str) -> None:
        self._hush()
        if self._console.is_terminal:
            self._progress = self._console.status(f"[dim]{text}[/]")
            self._progress.start()

    def _hush(self) -> None:
        if self._progress:
            self._progress.stop()
            self._progress = None


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
