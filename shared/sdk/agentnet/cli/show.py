"""A session told in a terminal: each agent in its colour, tokens as they come, what it cost, what policy did."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.status import Status

from agentnet.orchestrator.v1 import event_pb2, session_pb2, turn_pb2

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
                self._line(f"[red]interrupted:[/] {event.turn_interrupted.failure.message}; trying again")
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
                return

    def _started(self, session: session_pb2.Session) -> None:
        self._rounds = session.max_rounds
        self._line(f"[bold]{session.topic_start}[/]")
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
        self._console.print(f"[black on yellow] {verdict.action}: {verdict.rule} ({verdict.bundle}) [/]", end="")

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

    def _finished(self, session: session_pb2.Session) -> None:
        self._hush()
        self.failed = session.status == session_pb2.SESSION_STATUS_FAILED
        why = session_pb2.StopReason.Name(session.stop_reason).removeprefix("STOP_REASON_").lower().replace("_", " ")
        colour = "red" if self.failed else "green"
        self._line(
            f"[{colour}]ended:[/] {why} after {session.rounds_executed} rounds · "
            f"{session.usage.output_tokens} tokens · ${session.cost_micros_usd / _MICROS:.6f}"
        )
        if self.failed:
            self._line(f"[red]{session.failure.message}[/]")
        self._line(f"[dim]again, from any place: agentnet watch {session.id} --after 0[/]")

    def _colour(self, agent: str) -> str:
        return self._colours.setdefault(agent, _COLOURS[len(self._colours) % len(_COLOURS)])

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
