"""Strategy "priority": who has the higher number speaks earlier; of the same number in the given order."""

from __future__ import annotations

from agentnet.orchestrator.v1 import session_pb2
from services.orchestrator.modes import cast
from services.orchestrator.modes.contract import Part, Table


class Priority:
    def floor(self, table: Table) -> tuple[Part, ...]:
        priorities = table.session.options.priorities
        numbers = {cast.short(name): number for name, number in priorities.items()}
        return tuple(sorted(table.open, key=lambda part: -numbers.get(cast.short(part.agent), 0))[:1])

    def check(self, session: session_pb2.Session) -> None:
        priorities = session.options.priorities
        if not priorities:
            raise cast.contradiction(session, "options.priorities", "strategy priority needs priorities")
        known = {cast.short(agent) for agent in session.agents}
        for name in priorities:
            if cast.short(name) not in known:
                raise cast.contradiction(session, "options.priorities", f"{name} is none of the agents")
