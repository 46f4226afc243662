"""A session's log under another session's id: the same events, turns under ids of their own."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import Message

from agentnet.orchestrator.v1 import event_pb2, turn_pb2
from services.orchestrator.store import Entry
from shared.ids import Ids

Event = event_pb2.SessionEvent


def copied(events: Sequence[Event], session_id: str, ids: Ids) -> list[Event]:
    """Copies with new ids; a copied turn says which one it is of."""
    names = {event.turn_started.turn_id: "" for event in events if event.HasField("turn_started")}
    names = {name: ids.new("trn") for name in names}
    made: list[Event] = []
    for event in events:
        copy = Event.FromString(event.SerializeToString())
        copy.session_id = session_id
        for of in (copy.session_started, copy.session_finished, copy.session_forked):
            if of.HasField("session"):
                of.session.id = session_id
        _renamed(copy, names)
        if copy.HasField("turn_finished"):
            turn = copy.turn_finished.turn
            turn.copied_from = turn.copied_from or turn.id
            turn.id, turn.session_id = names.get(turn.id, turn.id), session_id
        made.append(copy)
    return made


def entries(events: Sequence[Event]) -> list[Entry]:
    """Events as a store takes them."""
    return [Entry(event.sequence, event.WhichOneof("payload") or "", event.SerializeToString()) for event in events]


def turns(events: Sequence[Event]) -> list[turn_pb2.Turn]:
    """The turns that were finished in them."""
    return [event.turn_finished.turn for event in events if event.HasField("turn_finished")]


def _renamed(message: Message, names: dict[str, str]) -> None:
    for field, value in message.ListFields():
        if field.message_type and not field.message_type.GetOptions().map_entry:
            for inner in value if field.is_repeated else (value,):
                _renamed(inner, names)
        elif field.name == "turn_id":
            setattr(message, field.name, names.get(value, value))
