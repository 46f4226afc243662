"""Strategy "round_robin": the agents in their given order, each once a round."""

from __future__ import annotations

from agentnet.orchestrator.v1 import session_pb2
from services.orchestrator.modes.contract import Part, Table


class RoundRobin:
    def floor(self, table: Table) -> tuple[Part, ...]:
        return table.open[:1]

    def check(self, session: session_pb2.Session) -> None:
        """It takes nothing."""
