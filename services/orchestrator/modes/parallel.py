"""Strategy "parallel": all at once, so that nobody is led by another."""

from __future__ import annotations

from agentnet.orchestrator.v1 import session_pb2
from services.orchestrator.modes.contract import Part, Table


class Parallel:
    def floor(self, table: Table) -> tuple[Part, ...]:
        return table.open

    def check(self, session: session_pb2.Session) -> None:
        """It takes nothing."""
