"""An exported session as it is taken in: every promise of its form is checked, and the first broken one is named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from agentnet.orchestrator.v1 import event_pb2, history_pb2, session_pb2
from services.orchestrator.errors import DocumentInvalid
from services.orchestrator.replays.cassette import log_hash
from services.orchestrator.state import SessionState, fold

SCHEMA_VERSION: Final = 1
_ENDED: Final = (
    session_pb2.SESSION_STATUS_COMPLETED,
    session_pb2.SESSION_STATUS_FAILED,
    session_pb2.SESSION_STATUS_CANCELLED,
)

Event = event_pb2.SessionEvent


def checked(document: history_pb2.SessionDocument) -> None:
    """Raises DocumentInvalid."""
    if document.schema_version != SCHEMA_VERSION:
        known = f"this mesh reads schema_version {SCHEMA_VERSION}, not {document.schema_version}"
        raise DocumentInvalid(known, field="document.schema_version")
    if not document.events:
        raise DocumentInvalid("a session has at least one event", field="document.events")
    _ordered(document.events, document.session.id)
    _ended(document)
    if document.log_hash != log_hash(document.events):
        raise DocumentInvalid("the log is not the one its hash was made of", field="document.log_hash")
    _tells_its_log(document)


def _ordered(events: Sequence[Event], session_id: str) -> None:
    for place, event in enumerate(events):
        name = f"document.events[{place}]"
        if event.sequence != place + 1:
            raise DocumentInvalid(f"the event after {place} has sequence {event.sequence}", field=f"{name}.sequence")
        if event.session_id != session_id:
            raise DocumentInvalid(f"the event is of session {event.session_id}", field=f"{name}.session_id")
        kind = event.WhichOneof("payload")
        if kind is None:
            raise DocumentInvalid("the event says nothing this mesh knows", field=name)
        if (kind == "session_started") != (place == 0):
            raise DocumentInvalid("a log begins with session_started, once", field=name)
        if (kind == "session_finished") != (place == len(events) - 1):
            raise DocumentInvalid("a log ends with session_finished, once", field=name)


def _ended(document: history_pb2.SessionDocument) -> None:
    if document.session.status not in _ENDED:
        raise DocumentInvalid("only a session that has ended can be taken in", field="document.session.status")
    if document.session.mode == "task_graph":
        raise DocumentInvalid("a task graph cannot be taken in as a session", field="document.session.mode")
    if "\x00" in document.session.topic_start:
        raise DocumentInvalid("topic_start must not hold the character U+0000", field="document.session.topic_start")


def _tells_its_log(document: history_pb2.SessionDocument) -> None:
    """The summary is what its log folds to."""
    told = fold(SessionState(), document.events).session
    for field in session_pb2.Session.DESCRIPTOR.fields:
        if getattr(told, field.name) != getattr(document.session, field.name):
            raise DocumentInvalid(f"{field.name} is not what the log ends with", field=f"document.session.{field.name}")
