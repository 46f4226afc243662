"""One try of a node that calls a tool: under the key that is in the log, whoever asks and however often.

The key is reserved by `task_started` before the call (reserve), names it for tools (execute), and what it came to
closes it (finalise). Tools does a key once and remembers it for a day; whoever asks again hears what was done. Where
tools cannot tell, the node's outcome is unknown: it is asked for again, and never done again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, timedelta
from itertools import count
from typing import Final

from grpc import StatusCode

from agentnet.orchestrator.v1 import event_pb2, task_event_pb2, task_graph_pb2
from services.orchestrator.errors import EffectUnknown, TaskTimedOut
from services.orchestrator.graphs import effects, outcome
from services.orchestrator.graphs.schedule import Begin
from services.orchestrator.graphs.state import Broken, Trying
from services.orchestrator.holds import Holds, held
from services.orchestrator.peers import ToolAnswer, ToolsPeer
from services.orchestrator.record import GraphLog
from services.orchestrator.speech import Call
from services.orchestrator.tasks import time_left
from shared.clock import Clock
from shared.errors import MeshError, Reason
from shared.identity import Principal
from shared.log import log
from shared.telemetry import meter, span

# Tools forgets a key after 24 hours; nobody may ask when it could have been forgotten.
REMEMBERED: Final = timedelta(hours=23)
_PAUSES: Final = (0.2, 0.5, 1.0, 2.0, 4.0)
_calls = meter.create_counter("graph_tool_calls", description="tool calls of task graphs, by tool and outcome")

Event = event_pb2.SessionEvent
Effect = task_graph_pb2.ToolEffect


@dataclass(frozen=True, slots=True)
class ToolTasks:
    """Makes the calls of all graphs of this replica."""

    tools: ToolsPeer
    holds: Holds
    clock: Clock
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    def begin(self, record: GraphLog, step: Begin, effect: task_graph_pb2.ToolEffect) -> Event:
        """The event that reserves the call's effect, or goes on with what was reserved."""
        began = task_event_pb2.TaskStarted(
            node_id=step.node_id, agent=step.agent, attempt=step.attempt, turn_id=effect.request_id, effect=effect
        )
        if not effect.HasField("reserve_time"):
            began.effect.reserve_time.FromDatetime(self.clock.now())
        return Event(task_started=began, actor=f"agent:{step.agent}" if step.agent else "mesh")

    async def run(
        self, record: GraphLog, node_id: str, caller: Principal, *, pause: timedelta = timedelta(), again: bool = False
    ) -> ToolAnswer:
        """Makes the call that is in the log; `again` when somebody else may have made it. Raises why it broke off."""
        trying, node = record.state.trying[node_id], record.state.nodes[node_id]
        limit = node.timeout.ToTimedelta()
        labels = {"session_id": record.lease.session_id, "node": node_id, "tool": node.tool}
        if pause:
            await self.sleep(pause.total_seconds())
        with span("graph.tool", **labels):
            try:
                async with asyncio.timeout(time_left(trying, limit, pause, self.clock).total_seconds()):
                    answer = await self._asked(record, trying, trying.effect or Effect(), caller)
            except TimeoutError:
                _calls.add(1, {"tool": node.tool, "outcome": "TASK_TIMED_OUT"})
                raise TaskTimedOut(f"the try took longer than {limit}", node_id=node_id, timeout=str(limit)) from None
            except MeshError as error:
                _calls.add(1, {"tool": node.tool, "outcome": error.reason_name})
                if again and held(error):
                    error.facts[effects.IN_DOUBT] = "true"
                elif again and error.reason not in effects.ANSWERED:
                    raise EffectUnknown(error.message, cause=error.reason_name) from None
                raise
        _calls.add(1, {"tool": node.tool, "outcome": "ok"})
        return answer

    async def held(self, record: GraphLog, broken: Broken, caller: Principal) -> Event:
        """The question about what rules of policy held: a call, or what an agent says."""
        session_id, now, last = record.lease.session_id, self.clock.now(), broken.last
        log.info("task.held", rules=broken.failure.metadata.get("rules", ""), turn_id=last.turn_id)
        if last.effect is None:
            return self.holds.turn(last, broken.failure, session_id=session_id, now=now)
        call, facts = _call(last.effect, last), broken.failure.metadata
        return await self.holds.call(caller, last, call, facts, session_id=session_id, now=now)

    def answered(self, record: GraphLog, node_id: str, answer: ToolAnswer) -> Event:
        """The event of a node whose tool has answered."""
        return outcome.called(record.state, node_id, answer, now=self.clock.now())

    async def _asked(self, record: GraphLog, trying: Trying, effect: Effect, caller: Principal) -> ToolAnswer:
        """Asks again, under the same key, while tools is away for a moment or a call of the key still runs."""
        call, reserved = _call(effect, trying), effect.reserve_time.ToDatetime(UTC)
        for number in count():
            if self.clock.now() - reserved > REMEMBERED:
                raise EffectUnknown("the call is so old that tools may have forgotten it", cause="FORGOTTEN")
            try:
                token = await self.holds.leave.token(caller, trying.override_id)
                return await self.tools.invoke(
                    caller, call, agent=trying.agent, session_id=record.lease.session_id, turn_id=trying.turn_id,
                    override_token=token,
                )  # fmt: skip
            except MeshError as error:
                if not _passes(error) or (error.reason != _RUNNING and number >= len(_PAUSES)):
                    raise
            await self.sleep(_PAUSES[min(number, len(_PAUSES) - 1)])
        raise AssertionError  # pragma: no cover - it counts without end


_RUNNING: Final = Reason.ERROR_REASON_TOOL_CALL_IN_PROGRESS


def _passes(error: MeshError) -> bool:
    """A call of the key that runs is waited for as long as the try may take; tools away, for some seconds."""
    away = error.code is StatusCode.UNAVAILABLE and error.reason != Reason.ERROR_REASON_TOOL_CIRCUIT_OPEN
    return away or error.reason == _RUNNING


def _call(effect: task_graph_pb2.ToolEffect, trying: Trying) -> Call:
    return Call(
        request_id=effect.request_id,
        call_id=effect.request_id,
        tool=effect.tool,
        arguments=effect.arguments,
        digest=effect.arguments_digest,
        iteration=1,
        asks=trying.asks,
    )
