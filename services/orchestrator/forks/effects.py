"""Calls of tools in a fork whose effects are off: what they came to in the session it was forked from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from agentnet.orchestrator.v1 import event_pb2, session_pb2
from services.orchestrator.speech import Call
from services.orchestrator.store import SessionStore

_PAGE: Final = 1000

Event = event_pb2.SessionEvent


@dataclass(frozen=True, slots=True)
class Origins:
    """The logs that forks come from."""

    store: SessionStore

    async def find(
        self, tenant: str, session: session_pb2.Session, turn_id: str, call: Call, *, place: int
    ) -> event_pb2.ToolFinished | None:
        """The same effect, else the same tool with the same arguments: first what came after the fork's place, in
        order, the last of them again and again.
        """
        del turn_id
        made = await self._made(tenant, session.origin.session_id, call) if session.origin.session_id else []
        if exact := [event for event in made if event.tool_finished.call.request_id == call.request_id]:
            return exact[-1].tool_finished
        after = [event for event in made if event.sequence > session.origin.sequence] or made
        return after[min(place, len(after) - 1)].tool_finished if after else None

    async def _made(self, tenant: str, session_id: str, call: Call) -> list[Event]:
        """The ends of such calls, oldest first; a call that was asked for twice, by two tries, ended twice."""
        made: list[Event] = []
        last, more = 0, True
        while more:
            page = await self.store.read(tenant, session_id, last, limit=_PAGE)
            events = [Event.FromString(entry.payload) for entry in page if entry.kind == "tool_finished"]
            made += [event for event in events if _same(event.tool_finished, call)]
            last, more = page[-1].sequence if page else last, len(page) == _PAGE
        return made


def _same(finished: event_pb2.ToolFinished, call: Call) -> bool:
    return (finished.call.tool, finished.call.arguments_digest) == (call.tool, call.digest)
