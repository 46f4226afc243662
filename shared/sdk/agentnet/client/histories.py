"""What can be done with the logs of sessions: replay, fork, compare, audit, carry away and take in."""

from __future__ import annotations

from google.protobuf import json_format

from agentnet.client.calls import unary
from agentnet.client.transport import Transport
from agentnet.orchestrator.v1 import history_pb2, history_service_pb2, history_service_pb2_grpc, session_pb2

# Reading and checking a long log takes longer than other calls.
PATIENCE_SECONDS = 120.0


class Histories:
    """Logs of sessions. A session's own log never changes by it."""

    def __init__(self, transport: Transport) -> None:
        self._stub = history_service_pb2_grpc.HistoryServiceStub(transport.channel)
        self._call = transport.options

    async def replay(self, session_id: str) -> history_service_pb2.ReplaySessionResponse:
        """Runs a session again from its log alone and says where it comes out otherwise."""
        request = history_service_pb2.ReplaySessionRequest(session_id=session_id)
        return await unary(self._stub.ReplaySession(request, **self._call(timeout=PATIENCE_SECONDS)))

    async def fork(
        self,
        session_id: str,
        *,
        sequence: int = 0,
        overrides: session_pb2.SessionOverrides | None = None,
        side_effects: bool = False,
        request_id: str = "",
    ) -> session_pb2.Session:
        """Starts a session that goes on after an event of another one's log; 0: after all of it."""
        request = history_service_pb2.ForkSessionRequest(
            session_id=session_id,
            sequence=sequence,
            overrides=overrides,
            side_effects=side_effects,
            request_id=request_id,
        )
        return (await unary(self._stub.ForkSession(request, **self._call(timeout=PATIENCE_SECONDS)))).session

    async def diff(self, session_id: str, other_session_id: str) -> history_service_pb2.DiffSessionsResponse:
        """Compares two sessions turn by turn, after the turns they share."""
        request = history_service_pb2.DiffSessionsRequest(session_id=session_id, other_session_id=other_session_id)
        return await unary(self._stub.DiffSessions(request, **self._call(timeout=PATIENCE_SECONDS)))

    async def audit(self, session_id: str) -> history_service_pb2.AuditSessionResponse:
        """A session in one answer; `chain` says whether its log was tampered with."""
        request = history_service_pb2.AuditSessionRequest(session_id=session_id)
        return await unary(self._stub.AuditSession(request, **self._call(timeout=PATIENCE_SECONDS)))

    async def export(self, session_id: str) -> str:
        """A session as a JSON document."""
        request = history_service_pb2.ExportSessionRequest(session_id=session_id)
        answer = await unary(self._stub.ExportSession(request, **self._call(timeout=PATIENCE_SECONDS)))
        return json_format.MessageToJson(answer.document)

    async def take_in(self, document: str, *, request_id: str = "") -> session_pb2.Session:
        """Takes an exported session in, under an id of its own.

        Raises ValueError for what is not JSON of its form.
        """
        try:
            parsed = json_format.Parse(document, history_pb2.SessionDocument())
        except json_format.ParseError as error:
            raise ValueError(f"this is not an exported session: {error}") from error
        request = history_service_pb2.ImportSessionRequest(document=parsed, request_id=request_id)
        return (await unary(self._stub.ImportSession(request, **self._call(timeout=PATIENCE_SECONDS)))).session
