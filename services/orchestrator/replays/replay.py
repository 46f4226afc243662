"""Running a session again: its own driver, with everything it asks answered from the log."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from agentnet.orchestrator.v1 import event_pb2, history_service_pb2
from services.orchestrator.agents import Agents
from services.orchestrator.drivers.session import SessionDriver
from services.orchestrator.holds import Holds
from services.orchestrator.preparing import Limits
from services.orchestrator.replays.cassette import Cassette, ReplayStopped, differ, log_hash
from services.orchestrator.replays.peers import (
    ReplayInference,
    ReplayLeave,
    ReplayMeasuring,
    ReplayMemory,
    ReplayPrompts,
    ReplayTools,
    ReplayToolWork,
)
from services.orchestrator.replays.writing import ReplayClock, ReplayIds, ReplayLog, ReplayStore
from services.orchestrator.store import Lease
from services.orchestrator.tail_memory import MemoryTail
from services.orchestrator.turns import Turns
from shared.identity import Principal

Event = event_pb2.SessionEvent


async def replay(
    log: Sequence[Event], starter: Principal, agents: Agents, *, max_takeovers: int
) -> history_service_pb2.ReplaySessionResponse:
    """Runs it to the end of its log, or to where it comes out otherwise. Raises AgentNotFound."""
    cassette = Cassette(log)
    fence = 0
    while not cassette.ended:
        fence += 1
        before = cassette.position
        await _drive(cassette, starter, agents, fence=fence, max_takeovers=max_takeovers)
        if cassette.position == before and not cassette.ended:
            cassette.difference = differ(cassette.following, None)
    alike = len(cassette.replayed) - (1 if cassette.difference and cassette.difference.replayed else 0)
    return history_service_pb2.ReplaySessionResponse(
        identical=cassette.difference is None,
        events=alike,
        turns=sum(event.HasField("turn_finished") for event in cassette.replayed[:alike]),
        log_hash=log_hash(log),
        replay_hash=log_hash(cassette.replayed),
        difference=cassette.difference,
    )


async def _drive(cassette: Cassette, starter: Principal, agents: Agents, *, fence: int, max_takeovers: int) -> None:
    """One owner's part: until it ends, waits, or the log says that it died."""
    clock, tools, holds = ReplayClock(cassette), ReplayTools(cassette), Holds(ReplayLeave(cassette))
    turns = Turns(
        agents=agents,
        inference=ReplayInference(cassette),
        memory=ReplayMemory(cassette),
        tools=ReplayToolWork(tools=tools, recorded=tools, clock=clock, holds=holds, sleep=_at_once, cassette=cassette),
        clock=clock,
        ids=ReplayIds(cassette),
        limits=Limits(output=1),
        sleep=_at_once,
        compose=ReplayPrompts(cassette),
    )
    store = ReplayStore(cassette, starter, clock)
    opened = partial(ReplayLog, cassette=cassette)
    driver = SessionDriver(store, MemoryTail(), turns, clock, max_takeovers, opened, ReplayMeasuring(cassette))
    following = cassette.following
    taken = [
        event.session_taken_over.takeovers for event in (following,) if event and event.HasField("session_taken_over")
    ]
    lease = Lease(starter.tenant_id, cassette.log[0].session_id, "replay", fence, max(taken, default=0))
    cassette.stopped.clear()
    working = asyncio.create_task(driver.drive(lease, cassette.signalled))
    stopped = asyncio.create_task(cassette.stopped.wait())
    await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
    working.cancel()
    stopped.cancel()
    outcome, _ = await asyncio.gather(working, stopped, return_exceptions=True)
    if isinstance(outcome, Exception) and not isinstance(outcome, ReplayStopped):
        raise outcome


async def _at_once(_seconds: float) -> None:
    await asyncio.sleep(0)
