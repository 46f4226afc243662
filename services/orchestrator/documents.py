"""An exported session as it is taken in: every promise of its form is checked, and the first broken one is named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isfinite
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from agentnet.orchestrator.v1 import event_pb2, history_pb2, session_pb2
from services.orchestrator.errors import DocumentInvalid
from services.orchestrator.replays.cassette import log_hash
from services.orchestrator.state import SessionState, fold
from shared import fields
from shared.errors import InvalidArgument

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
    _keepable(document)
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


def _keepable(document: history_pb2.SessionDocument) -> None:
    """Times are times; the summary and turns, which have columns of their own, hold what Postgres can."""
    for path, value in _leaves(document, "document"):
        try:
            if isinstance(value, Timestamp):
                fields.instant(value, path)
            elif isinstance(value, Duration):
                fields.span(value, path)
        except InvalidArgument as error:
            raise DocumentInvalid(error.message, field=path) from None
    turns = ((f"document.events[{at}].turn_finished", event) for at, event in enumerate(document.events))
    finished = ((path, event.turn_finished) for path, event in turns if event.HasField("turn_finished"))
    for path, part in (("document.session", document.session), *finished):
        for leaf, value in _leaves(part, path):
            if isinstance(value, str) and "\x00" in value:
                raise DocumentInvalid(f"{leaf} must not hold the character U+0000", field=leaf)
            if isinstance(value, float) and not isfinite(value):
                raise DocumentInvalid(f"{leaf} must be a number", field=leaf)


def _leaves(message: Message, path: str) -> Iterator[tuple[str, object]]:
    """Every value in a message with its path; times are values."""
    for field, value in message.ListFields():
        name = f"{path}.{field.name}"
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            values = [(f"{name}.{key}", one) for key, one in value.items()]
            yield from ((name, key) for key in value)
        else:
            values = [(f"{name}[{at}]", one) for at, one in enumerate(value)] if field.is_repeated else [(name, value)]
        for at, one in values:
            if isinstance(one, Message) and not isinstance(one, Timestamp | Duration):
                yield from _leaves(one, at)
            else:
                yield at, one


def _tells_its_log(document: history_pb2.SessionDocument) -> None:
    """The summary is what its log folds to."""
    told = fold(SessionState(), document.events).session
    for field in session_pb2.Session.DESCRIPTOR.fields:
        if getattr(told, field.name) != getattr(document.session, field.name):
            raise DocumentInvalid(f"{field.name} is not what the log ends with", field=f"document.session.{field.name}")
