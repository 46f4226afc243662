"""Sessions that get nowhere, told to a served policy, and what its rules do about it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from agentnet.orchestrator.v1 import session_pb2
from agentnet.orchestrator.v1 import session_service_pb2 as pb
from shared.clock import SystemClock
from shared.risks import CONVERGENCE_STALL, reporting
from tests.service.orchestrator.conftest import Mesh
from tests.service.orchestrator.test_sessions import started, watched
from tests.support.policy import PolicyParts, served
from tests.support.risks import enforced, heard

Rule = session_pb2.MeasureRule


@asynccontextmanager
async def reported(mesh: Mesh) -> AsyncIterator[grpc.aio.Channel]:
    async with (
        served(PolicyParts(mesh.keys)) as policy,
        reporting(policy, mesh.keys.signer, "orchestrator", SystemClock()) as risks,
    ):
        mesh.world.tell = risks.tell
        yield policy


async def ended(mesh: Mesh, *measures: Rule, max_rounds: int = 4) -> tuple[str, str]:
    """A session's id, and why it stopped."""
    request = pb.StartSessionRequest(topic="Failover", agents=["Athena", "Apollo"], max_rounds=max_rounds)
    request.convergence_policy.enabled = bool(measures)
    request.convergence_policy.measures.extend(measures)
    session_id = await started(mesh, request)
    last = (await watched(mesh, session_id))[-1].session_finished.session
    return session_id, session_pb2.StopReason.Name(last.stop_reason).removeprefix("STOP_REASON_")


async def test_a_session_that_stagnates_is_told_and_alerts(mesh: Mesh) -> None:
    async with reported(mesh) as policy:
        session_id, why = await ended(mesh, Rule(measure="stagnation"))
        assert why == "STAGNATED"
        assert await heard(policy, mesh.keys, CONVERGENCE_STALL) == 1
        assert await enforced(policy, mesh.keys) == [("stalled_session_alerts", session_id)]


async def test_one_whose_rounds_run_out_before_it_converges_is_too(mesh: Mesh) -> None:
    async with reported(mesh) as policy:
        session_id, why = await ended(mesh, Rule(measure="jaccard", rounds=10))
        assert why == "MAX_ROUNDS"
        assert await heard(policy, mesh.keys, CONVERGENCE_STALL) == 1
        assert await enforced(policy, mesh.keys) == [("stalled_session_alerts", session_id)]


async def test_one_that_converges_or_was_not_to_is_no_stall(mesh: Mesh) -> None:
    async with reported(mesh) as policy:
        assert (await ended(mesh, Rule(measure="jaccard")))[1] == "CONVERGED"
        assert (await ended(mesh))[1] == "MAX_ROUNDS"
        assert (await ended(mesh, Rule(measure="jaccard"), max_rounds=1))[1] == "MAX_ROUNDS"
        stalled, _ = await ended(mesh, Rule(measure="stagnation"))
        assert await heard(policy, mesh.keys, CONVERGENCE_STALL) == 1
        assert await enforced(policy, mesh.keys) == [("stalled_session_alerts", stalled)]
