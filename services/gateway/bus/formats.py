"""What a delivery's body looks like: CloudEvents, and what some well-known receivers want instead."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from services.gateway.bus.event import Event
from services.gateway.bus.store import Format

Body = Mapping[str, Any]
_TYPE: Final = "application/json"
_MOST_CHARACTERS: Final = 2900


def cloudevent(tenant: str, event: Event) -> Body:
    """CloudEvents 1.0, structured."""
    extensions = {"sessionid": event.session_id, "agent": event.agent}
    return {
        "specversion": "1.0",
        "id": event.id,
        "source": f"/agentnet/{tenant}/{event.source}",
        "type": f"agentnet.{event.name}",
        "time": event.occurred_at.isoformat().replace("+00:00", "Z"),
        **({"subject": event.subject} if event.subject else {}),
        "datacontenttype": _TYPE,
        "tenant": tenant,
        "sequence": str(event.sequence),
        **{name: value for name, value in extensions.items() if value},
        "data": event.data,
    }


def slack(tenant: str, event: Event) -> Body:
    """A message of a title and the facts, for an incoming webhook."""
    facts = {"session": event.session_id, "agent": event.agent, "subject": event.subject, **event.data}
    lines = "\n".join(f"*{_escaped(name)}*: {_escaped(str(value))}" for name, value in facts.items() if value)
    blocks: list[Body] = [{"type": "header", "text": {"type": "plain_text", "text": event.name[:150]}}]
    if lines:
        blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": lines[:_MOST_CHARACTERS]}})
    context = f"{tenant} · {event.source} · {event.occurred_at.isoformat(timespec='seconds')}"
    blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": _escaped(context)}]})
    return {"text": f"{event.name}: {event.subject or event.session_id or tenant}", "blocks": blocks}


def crm(tenant: str, event: Event) -> Body:
    """A record a CRM can match by `external_id` and file by `event`."""
    return {
        "event": event.name,
        "occurred_at": event.occurred_at.isoformat(),
        "external_id": event.subject or event.id,
        "properties": {**event.data, "tenant": tenant, "session_id": event.session_id, "agent": event.agent},
    }


def error_tracking(tenant: str, event: Event) -> Body:
    """An event as Sentry's store takes it; what is alike is grouped by name and subject."""
    level = "warning" if event.name == "log.warning" else "error"
    return {
        "event_id": hashlib.sha256(event.id.encode()).hexdigest()[:32],
        "timestamp": event.occurred_at.isoformat(),
        "platform": "python",
        "level": level,
        "logger": event.source,
        "message": {"formatted": str(event.data.get("message", event.subject or event.name))},
        "tags": {"event": event.name, "tenant": tenant, "session_id": event.session_id, "agent": event.agent},
        "extra": event.data,
        "fingerprint": [event.name, event.source, event.subject],
    }


_WRITERS: Final[Mapping[Format, tuple[str, Callable[[str, Event], Body]]]] = {
    Format.CLOUDEVENTS: ("application/cloudevents+json", cloudevent),
    Format.SLACK: (_TYPE, slack),
    Format.CRM: (_TYPE, crm),
    Format.ERROR_TRACKING: (_TYPE, error_tracking),
}


def write(form: Format, tenant: str, event: Event) -> tuple[str, Body]:
    """The content type and the body."""
    kind, writer = _WRITERS[form]
    return kind, writer(tenant, event)


def _escaped(text: str) -> str:
    """Slack's own three."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
