"""Who tries to get out: calls that end as an escape would, counted for each caller of each tool until it is enough."""

from __future__ import annotations

from collections import OrderedDict, deque
from datetime import timedelta
from typing import Final

from services.tools.answer import Status
from services.tools.errors import ToolNotAllowed
from services.tools.executor import Work
from shared.clock import Clock
from shared.risks import TOOL_INJECTION, Happened, Tell

_WINDOW: Final = timedelta(minutes=10)
_CALLERS: Final = 10_000
# What only code that wants out does counts whole; what bad luck does as well counts half.
_WEIGHTS: Final = {Status.DENIED: 2, Status.CRASHED: 1}

Caller = tuple[str, str, str, str]


class Threats:
    """This replica's memory of the last ten minutes. `limit` denied attempts, or twice as many crashes, are a threat;
    from then on that caller's calls of that tool are refused until the oldest attempt is ten minutes old.
    """

    def __init__(self, clock: Clock, *, limit: int) -> None:
        self._clock = clock
        self._most = 2 * limit
        self._seen: OrderedDict[Caller, deque[tuple[timedelta, int]]] = OrderedDict()

    def check(self, caller: Caller) -> None:
        """Raises ToolNotAllowed for a caller that is a threat."""
        if self._most and self._weight(caller) >= self._most:
            raise ToolNotAllowed("the last calls of this tool tried to leave its sandbox", tool=caller[1])

    def saw(self, caller: Caller, status: Status) -> bool:
        """Whether this end makes the caller a threat."""
        weight = _WEIGHTS.get(status, 0)
        if not (weight and self._most):
            return False
        before = self._weight(caller)
        self._seen.setdefault(caller, deque()).append((self._clock.monotonic(), weight))
        self._seen.move_to_end(caller)
        if len(self._seen) > _CALLERS:
            self._seen.popitem(last=False)
        return before < self._most <= before + weight

    def _weight(self, caller: Caller) -> int:
        found = self._seen.get(caller)
        if found is None:
            return 0
        while found and self._clock.monotonic() - found[0][0] > _WINDOW:
            found.popleft()
        if not found:
            del self._seen[caller]
        return sum(weight for _, weight in found)


def attack(tell: Tell, attempts: int, work: Work) -> None:
    """Tells policy's register of risks of a caller that has become a threat."""
    tenant, tool, subject, agent = caller_of(work)
    detail = {"tool": tool, "subject": subject}
    happened = Happened(TOOL_INJECTION, attempts, agent, work.context.get("session_id", ""), detail)
    tell(tenant, happened, f"{tool} {subject} {agent}")


def caller_of(work: Work) -> Caller:
    """Tenant, tool, person and agent."""
    return work.tenant, work.tool.reference, work.context.get("subject", ""), work.context.get("agent", "")
