"""policy as a session asks it for leave: who may decide, what people see, which overrides stand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from agentnet.orchestrator.v1 import input_pb2
from shared.errors import PermissionDenied, Reason, Unavailable
from shared.identity import Principal


@dataclass(slots=True)
class ScriptedLeave:
    """Overrides by id, with their tokens. `mask` is what people see of arguments; `away` is a policy that does not
    answer. `decided` is who said what.
    """

    mask: Callable[[str], str] = lambda arguments: arguments
    away: bool = False
    overrides: dict[str, str] = field(default_factory=dict)
    decided: list[tuple[str, str, bool, str]] = field(default_factory=list)

    async def shown(self, caller: Principal, arguments: str, *, agent: str, session_id: str) -> str:
        self._answer()
        return self.mask(arguments)

    async def decide(self, person: Principal, asked: input_pb2.HumanInput, *, approved: bool, reason: str) -> str:
        self._answer()
        if not person.roles & {"operator", "admin"}:
            raise PermissionDenied("an operator or admin decides this", reason=Reason.ERROR_REASON_ROLE_INSUFFICIENT)
        self.decided.append((person.subject, ", ".join(asked.rules), approved, reason))
        if not approved:
            return ""
        override_id = f"ovr_{len(self.overrides) + 1}"
        self.overrides[override_id] = f"token of {override_id}"
        return override_id

    async def token(self, caller: Principal, override_id: str) -> str:
        if not override_id:
            return ""
        self._answer()
        return self.overrides.get(override_id, "")

    def _answer(self) -> None:
        if self.away:
            raise Unavailable("policy does not answer", dependency="policy")
