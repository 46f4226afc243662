"""HistoryService as its callers meet it: fork, replay, compare, audit, carry away."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentnet.orchestrator.v1 import history_service_pb2 as pb
from agentnet.orchestrator.v1 import session_pb2
from agentnet.orchestrator.v1 import session_service_pb2 as sessions
from shared.errors import Reason
from tests.service.orchestrator.conftest import Mesh

END = session_pb2.SESSION_STATUS_COMPLETED


async def ended(mesh: Mesh, session_id: str) -> session_pb2.Session:
    async with asyncio.timeout(5):
        while True:
            found = await mesh.ask(mesh.sessions.GetSession, sessions.GetSessionRequest(session_id=session_id))
            if found.session.status == END:
                return found.session
            await asyncio.sleep(0.01)


@pytest.fixture
async def source(mesh: Mesh) -> str:
    request = sessions.StartSessionRequest(topic="Failover", agents=["Athena", "Apollo"], max_rounds=2)
    started = await mesh.ask(mesh.sessions.StartSession, request)
    return (await ended(mesh, started.session.id)).id


async def test_a_session_is_replayed_forked_compared_and_audited(mesh: Mesh, source: str) -> None:
    replayed = await mesh.ask(mesh.histories.ReplaySession, pb.ReplaySessionRequest(session_id=source))
    assert replayed.identical
    assert replayed.turns == 4

    how = pb.ForkSessionRequest(session_id=source, sequence=2, request_id="req_1")
    how.overrides.model = "other"
    fork = (await mesh.ask(mesh.histories.ForkSession, how)).session
    assert (await mesh.ask(mesh.histories.ForkSession, how)).session.id == fork.id
    await ended(mesh, fork.id)
    assert mesh.world.inference.started[-1].model == "other"

    asked = pb.DiffSessionsRequest(session_id=source, other_session_id=fork.id)
    assert (await mesh.ask(mesh.histories.DiffSessions, asked)).common_turns == 4
    audit = await mesh.ask(mesh.histories.AuditSession, pb.AuditSessionRequest(session_id=fork.id))
    assert audit.chain.intact
    assert len(audit.turns) == 4


async def test_a_document_goes_out_and_comes_in(mesh: Mesh, source: str) -> None:
    document = (await mesh.ask(mesh.histories.ExportSession, pb.ExportSessionRequest(session_id=source))).document
    taken = (await mesh.ask(mesh.histories.ImportSession, pb.ImportSessionRequest(document=document))).session
    listed = await mesh.ask(mesh.sessions.ListTurns, sessions.ListTurnsRequest(session_id=taken.id))
    assert [turn.session_id for turn in listed.turns] == [taken.id] * 4


@pytest.mark.parametrize(
    ("call", "request_", "reason", "field"),
    [
        ("ReplaySession", pb.ReplaySessionRequest(), "FIELD_REQUIRED", "session_id"),
        ("ReplaySession", pb.ReplaySessionRequest(session_id="ses_none"), "SESSION_NOT_FOUND", None),
        ("ForkSession", pb.ForkSessionRequest(session_id="ses_none", sequence=-1), "FIELD_INVALID", "sequence"),
        ("ForkSession", pb.ForkSessionRequest(session_id="ses_none"), "SESSION_NOT_FOUND", None),
        (
            "ForkSession",
            pb.ForkSessionRequest(session_id="x", overrides=session_pb2.SessionOverrides(max_rounds=51)),
            "FIELD_INVALID",
            "overrides.max_rounds",
        ),
        (
            "ForkSession",
            pb.ForkSessionRequest(session_id="x", overrides=session_pb2.SessionOverrides(agents={"Athena": "9"})),
            "FIELD_INVALID",
            "overrides.agents[Athena]",
        ),
        ("DiffSessions", pb.DiffSessionsRequest(session_id="x"), "FIELD_REQUIRED", "other_session_id"),
        ("AuditSession", pb.AuditSessionRequest(session_id="ses_none"), "SESSION_NOT_FOUND", None),
        ("ExportSession", pb.ExportSessionRequest(session_id="ses_none"), "SESSION_NOT_FOUND", None),
        ("ImportSession", pb.ImportSessionRequest(), "FIELD_REQUIRED", "document"),
        ("ImportSession", pb.ImportSessionRequest(document={}), "DOCUMENT_INVALID", "document.schema_version"),
    ],
)
async def test_what_is_wrong_is_named(mesh: Mesh, call: str, request_: Any, reason: str, field: str | None) -> None:
    error = await mesh.refused(getattr(mesh.histories, call), request_)
    assert Reason.Name(error.reason) == f"ERROR_REASON_{reason}"
    assert error.field == field


async def test_another_tenant_finds_nothing(mesh: Mesh, source: str) -> None:
    for call, request in (
        (mesh.histories.ReplaySession, pb.ReplaySessionRequest(session_id=source)),
        (mesh.histories.ForkSession, pb.ForkSessionRequest(session_id=source)),
        (mesh.histories.AuditSession, pb.AuditSessionRequest(session_id=source)),
        (mesh.histories.ExportSession, pb.ExportSessionRequest(session_id=source)),
        (mesh.histories.DiffSessions, pb.DiffSessionsRequest(session_id=source, other_session_id=source)),
    ):
        error = await mesh.refused(call, request, tenant="other")
        assert error.reason == Reason.ERROR_REASON_SESSION_NOT_FOUND
