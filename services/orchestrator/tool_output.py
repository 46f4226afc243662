"""What a tool shows while it runs: events for whoever watches, and the agent's own rule for when it has seen enough."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from agentnet.orchestrator.v1 import event_pb2, progress_pb2
from services.orchestrator.errors import ConditionFailed
from services.orchestrator.graphs import conditions
from services.orchestrator.peers import ToolAnswer, ToolShown
from services.orchestrator.speech import Call, Speaking
from shared.log import log

_EVENTS: Final = 256
_CHARACTERS: Final = 65_536

Event = event_pb2.SessionEvent


@dataclass(slots=True)
class ToolOutput:
    """What one call has shown so far. `rule` is an expression, see Agent.stop_tools_when; empty: it is let end."""

    rule: str
    parts: list[ToolShown] = field(default_factory=list)
    characters: int = 0

    def take(self, speaking: Speaking, call: Call, shown: ToolShown) -> list[Event]:
        """The event that tells of it; none beyond what is kept of a call."""
        # Postgres keeps no U+0000.
        text = shown.text.replace("\x00", "\N{REPLACEMENT CHARACTER}")[: _CHARACTERS - self.characters]
        if not text or len(self.parts) >= _EVENTS:
            return []
        self.parts.append(shown)
        self.characters += len(text)
        progressed = progress_pb2.ToolProgressed(
            turn_id=speaking.turn_id,
            request_id=call.request_id,
            tool=call.tool.partition("@")[0],
            invocation_id=shown.invocation_id,
            kind=shown.kind,
            text=text,
        )
        return [Event(tool_progressed=progressed, actor="mesh")]

    def enough(self) -> bool:
        """Whether the agent's rule says so. One that cannot be computed never does, and is told of in the log."""
        if not self.rule or not self.parts:
            return False
        newest = self.parts[-1]
        seen = {"output": self._said(), "last": newest.text, "kind": newest.kind, "count": len(self.parts)}
        try:
            return conditions.met(self.rule, seen)
        except ConditionFailed as error:
            log.warning("tool.rule_failed", error=error.message)
            self.rule = ""
            return False

    def stopped(self) -> ToolAnswer:
        """What the agent goes on with."""
        told = f"{self._said()}\n(Stopped before its end, since {self.rule})"
        return ToolAnswer(told, self.parts[-1].invocation_id, stopped=True)

    def _said(self) -> str:
        return "".join(part.text for part in self.parts)
