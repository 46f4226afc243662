"""What was heard of a session, and what a test may ask of it: each check raises AssertionError with the session."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Self

from agentnet.orchestrator.v1 import event_pb2, session_pb2, turn_pb2


@dataclass(slots=True)
class Heard:
    """A session that has ended."""

    session: session_pb2.Session = field(default_factory=session_pb2.Session)
    turns: list[turn_pb2.Turn] = field(default_factory=list[turn_pb2.Turn])
    verdicts: list[event_pb2.MonitorVerdict] = field(default_factory=list[event_pb2.MonitorVerdict])

    def add(self, event: event_pb2.SessionEvent) -> None:
        """Takes the next event of the log."""
        match event.WhichOneof("payload"):
            case "turn_finished":
                self.turns.append(event.turn_finished.turn)
            case "monitor_verdict":
                self.verdicts.append(event.monitor_verdict)
            case "session_finished":
                self.session = event.session_finished.session
            case _:
                return

    @property
    def text(self) -> str:
        """All that was said, a turn after the other."""
        return "\n".join(turn.content for turn in self.turns)

    @property
    def stop_reason(self) -> str:
        """How it ended, such as "converged" or "policy_blocked"."""
        return session_pb2.StopReason.Name(self.session.stop_reason).removeprefix("STOP_REASON_").lower()

    @property
    def seconds(self) -> float:
        return (self.session.end_time.ToNanoseconds() - self.session.start_time.ToNanoseconds()) / 1e9

    def said_by(self, agent: str) -> str:
        """What one agent said; its version may be left out."""
        return "\n".join(turn.content for turn in self.turns if agent in {turn.agent, turn.agent.partition("@")[0]})

    def should_include(self, *keywords: str) -> Self:
        """Every keyword was said, as whole words, whatever the case."""
        missing = [keyword for keyword in keywords if not self._said(keyword)]
        return self._hold(not missing, f"nobody said {missing}")

    def should_exclude(self, *keywords: str) -> Self:
        """No keyword was said."""
        said = [keyword for keyword in keywords if self._said(keyword)]
        return self._hold(not said, f"somebody said {said}")

    def should_break_no_rule(self) -> Self:
        """No monitor acted."""
        return self._hold(not self.verdicts, f"policy acted: {[verdict.rule for verdict in self.verdicts]}")

    def should_be_stopped_by(self, rule: str) -> Self:
        """This rule acted, whatever it did."""
        acted = [verdict.rule for verdict in self.verdicts]
        return self._hold(rule in acted, f"{rule} did not act; these did: {acted}")

    def should_end_by(self, *stop_reasons: str) -> Self:
        """It ended in one of these ways."""
        return self._hold(self.stop_reason in stop_reasons, f"it ended by {self.stop_reason}: {self._why()}")

    def should_cost_at_most(self, *, micros_usd: int) -> Self:
        cost = self.session.cost_micros_usd
        return self._hold(cost <= micros_usd, f"it cost {cost} micro-USD, more than {micros_usd}")

    def should_end_within(self, *, seconds: float) -> Self:
        return self._hold(self.seconds <= seconds, f"it took {self.seconds:.1f} s, longer than {seconds:g}")

    def should_be_heard_from(self, *agents: str) -> Self:
        """Each of these agents said something."""
        silent = [agent for agent in agents if not self.said_by(agent).strip()]
        return self._hold(not silent, f"nothing was heard from {silent}")

    def _said(self, keyword: str) -> bool:
        words = r"\W+".join(re.escape(word) for word in keyword.lower().split())
        return re.search(rf"(?<!\w){words}(?!\w)", self.text.lower()) is not None

    def _why(self) -> str:
        return self.session.failure.message or "no failure"

    def _hold(self, true: bool, fault: str) -> Self:
        if not true:
            raise AssertionError(f"{fault}\n  agentnet watch {self.session.id}\n  said: {self.text[:500]!r}")
        return self
