"""SessionService over the wire: start, watch, steer; codes and reasons."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc import StatusCode

from agentnet.orchestrator.v1 import session_pb2
from agentnet.orchestrator.v1 import session_service_pb2 as pb
from shared.errors import MeshError
from shared.rpc.status import from_rpc
from tests.service.orchestrator.conftest import Mesh

START = pb.StartSessionRequest(topic="Failover", agents=["Athena", "Apollo"], max_rounds=2)


def said(error: MeshError) -> tuple[StatusCode, str]:
    return error.code, error.reason_name


async def started(mesh: Mesh, request: pb.StartSessionRequest = START) -> str:
    return str((await mesh.ask(mesh.sessions.StartSession, request)).session.id)


async def watched(mesh: Mesh, session_id: str, *, after: int = 0) -> list[Any]:
    request = pb.WatchSessionRequest(session_id=session_id, after_sequence=after)
    call = mesh.sessions.WatchSession(request, metadata=mesh.me(), timeout=10)
    return [answer.event async for answer in call if answer.HasField("event")]


async def refused_watch(mesh: Mesh, request: pb.WatchSessionRequest, *, tenant: str = "acme") -> MeshError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for _ in mesh.sessions.WatchSession(request, metadata=mesh.me(tenant), timeout=10):
            pass
    return from_rpc(raised.value)


async def test_a_session_is_accepted_run_and_watched_to_its_end(mesh: Mesh) -> None:
    answer = (await mesh.ask(mesh.sessions.StartSession, START)).session

    events = await watched(mesh, answer.id)

    assert (answer.status, list(answer.agents)) == (
        session_pb2.SESSION_STATUS_PENDING,
        ["Athena@1.0.0", "Apollo@1.0.0"],
    )
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert events[0].actor == "user:ada"
    finished = (await mesh.ask(mesh.sessions.GetSession, pb.GetSessionRequest(session_id=answer.id))).session
    assert events[-1].session_finished.session == finished


async def test_a_watch_goes_on_where_another_one_stopped(mesh: Mesh) -> None:
    session_id = await started(mesh)
    whole = await watched(mesh, session_id)
    for after in (0, 1, len(whole) // 2, len(whole) - 1):
        assert await watched(mesh, session_id, after=after) == whole[after:]


async def test_a_client_that_comes_back_mid_turn_misses_and_repeats_nothing(mesh: Mesh) -> None:
    mesh.world.inference.held_at = 4
    session_id = await started(mesh)
    request = pb.WatchSessionRequest(session_id=session_id)
    call = mesh.sessions.WatchSession(request, metadata=mesh.me(), timeout=10)
    seen = [(await call.read()).event for _ in range(3)]
    call.cancel()

    mesh.world.inference.release()
    rest = await watched(mesh, session_id, after=seen[-1].sequence)

    assert [*seen, *rest] == await watched(mesh, session_id)


async def test_a_watch_of_nothing_or_beyond_the_end_is_refused(mesh: Mesh) -> None:
    session_id = await started(mesh)
    last = len(await watched(mesh, session_id))
    unknown = await refused_watch(mesh, pb.WatchSessionRequest(session_id="ses_none"))
    foreign = await refused_watch(mesh, pb.WatchSessionRequest(session_id=session_id), tenant="other")
    beyond = await refused_watch(mesh, pb.WatchSessionRequest(session_id=session_id, after_sequence=last + 1))
    before = await refused_watch(mesh, pb.WatchSessionRequest(session_id=session_id, after_sequence=-1))
    assert said(unknown) == said(foreign) == (StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")
    assert said(beyond) == (StatusCode.OUT_OF_RANGE, "SEQUENCE_OUT_OF_RANGE")
    assert beyond.facts["last_sequence"] == str(last)
    assert said(before) == (StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")


async def test_a_repeated_start_starts_one_session(mesh: Mesh) -> None:
    request = pb.StartSessionRequest(topic="Failover", agents=["Athena"], request_id="req_1")
    assert await started(mesh, request) == await started(mesh, request)


@pytest.mark.parametrize(
    ("request_", "code", "reason"),
    [
        (pb.StartSessionRequest(agents=["Athena"]), StatusCode.INVALID_ARGUMENT, "FIELD_REQUIRED"),
        (pb.StartSessionRequest(topic="x", agents=["Zeus"]), StatusCode.NOT_FOUND, "AGENT_NOT_FOUND"),
        (pb.StartSessionRequest(topic="x", agents=["Athena@9.9.9"]), StatusCode.NOT_FOUND, "AGENT_NOT_FOUND"),
        (
            pb.StartSessionRequest(topic="x", agents=["Athena"], mode="duel"),
            StatusCode.INVALID_ARGUMENT,
            "NAME_UNKNOWN",
        ),
        (
            pb.StartSessionRequest(topic="x", agents=["Athena"], mode="debate"),
            StatusCode.INVALID_ARGUMENT,
            "OPTIONS_CONTRADICT",
        ),
        (
            pb.StartSessionRequest(topic="x" * 32_769, agents=["Athena"]),
            StatusCode.INVALID_ARGUMENT,
            "FIELD_TOO_LONG",
        ),
        (
            pb.StartSessionRequest(
                topic="x",
                agents=["Athena"],
                limits=session_pb2.SessionLimits(max_duration=Duration(seconds=1 << 62)),
            ),
            StatusCode.INVALID_ARGUMENT,
            "FIELD_INVALID",
        ),
    ],
)
async def test_what_cannot_start_says_why(mesh: Mesh, request_: Any, code: StatusCode, reason: str) -> None:
    assert said(await mesh.refused(mesh.sessions.StartSession, request_)) == (code, reason)


async def test_a_session_is_steered_by_hand(mesh: Mesh) -> None:
    request = pb.StartSessionRequest(topic="x", agents=["Athena", "Apollo"], max_rounds=2, manual_advance=True)
    session_id = await started(mesh, request)
    call = mesh.sessions.WatchSession(pb.WatchSessionRequest(session_id=session_id), metadata=mesh.me(), timeout=10)
    async for answer in call:
        if answer.event.HasField("session_waiting"):
            await mesh.ask(mesh.sessions.AdvanceSession, pb.AdvanceSessionRequest(session_id=session_id))
        if answer.event.HasField("session_finished"):
            assert answer.event.session_finished.session.rounds_executed == 2


async def test_a_session_pauses_resumes_and_is_cancelled(mesh: Mesh) -> None:
    mesh.world.inference.held_at = 3
    session_id = await started(mesh)
    asked = {"session_id": session_id}
    await mesh.ask(mesh.sessions.PauseSession, pb.PauseSessionRequest(**asked))
    mesh.world.inference.release()
    async with asyncio.timeout(5):
        while (await mesh.world.find(session_id)).status != session_pb2.SESSION_STATUS_PAUSED:
            await asyncio.sleep(0.01)

    mesh.world.inference.held_at = 3
    resumed = await mesh.ask(mesh.sessions.ResumeSession, pb.ResumeSessionRequest(**asked))
    await mesh.ask(mesh.sessions.CancelSession, pb.CancelSessionRequest(**asked))
    events = await watched(mesh, session_id)

    assert resumed.session.status == session_pb2.SESSION_STATUS_PAUSED
    assert events[-1].session_finished.session.stop_reason == session_pb2.STOP_REASON_CANCELLED


async def test_signals_that_do_not_fit_are_refused(mesh: Mesh) -> None:
    mesh.world.inference.held_at = 3
    session_id = await started(mesh)
    asked = {"session_id": session_id}
    unfit: list[tuple[Any, Any]] = [
        (mesh.sessions.ResumeSession, pb.ResumeSessionRequest(**asked)),
        (mesh.sessions.AdvanceSession, pb.AdvanceSessionRequest(**asked)),
    ]
    for call, request in unfit:
        error = await mesh.refused(call, request)
        assert said(error) == (StatusCode.FAILED_PRECONDITION, "SESSION_STATE_INVALID")
    mesh.world.inference.release()
    await watched(mesh, session_id)

    late: list[tuple[Any, Any]] = [
        (mesh.sessions.PauseSession, pb.PauseSessionRequest(**asked)),
        (mesh.sessions.CancelSession, pb.CancelSessionRequest(**asked)),
    ]
    for call, request in late:
        assert said(await mesh.refused(call, request)) == (StatusCode.FAILED_PRECONDITION, "SESSION_ENDED")
    unknown = await mesh.refused(mesh.sessions.CancelSession, pb.CancelSessionRequest(session_id="ses_none"))
    assert said(unknown) == (StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")


async def test_turns_and_sessions_are_listed_page_by_page(mesh: Mesh) -> None:
    session_id = await started(mesh)
    await watched(mesh, session_id)
    turns, token = [], ""
    while True:
        request = pb.ListTurnsRequest(session_id=session_id, page_size=3, page_token=token)
        page = await mesh.ask(mesh.sessions.ListTurns, request)
        turns += [(turn.round, turn.agent) for turn in page.turns]
        if not (token := page.next_page_token):
            break
    listed = await mesh.ask(mesh.sessions.ListSessions, pb.ListSessionsRequest(mode="brainstorm"))
    foreign = await mesh.ask(mesh.sessions.ListSessions, pb.ListSessionsRequest(), tenant="other")
    missing = await mesh.refused(mesh.sessions.ListTurns, pb.ListTurnsRequest(session_id="ses_none"))
    assert turns == [(number, f"{name}@1.0.0") for number in (1, 2) for name in ("Athena", "Apollo")]
    assert [session.id for session in listed.sessions] == [session_id]
    assert list(foreign.sessions) == []
    assert said(missing) == (StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")
