"""What others hear of calls: the events of tools, and attempts to leave the sandbox."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest

from services.tools.telling import name_of, telling
from shared.bus import Emitter
from shared.clock import FakeClock
from tests.service.tools.calls import Code, invocation, refusal, register, said, tool
from tests.service.tools.conftest import Heard
from tests.support.identity import Keys

EMITTING = "def adder(a, b):\n    emit('ticket.created', {'id': a})\n    emit('session.finished')\n    return 1\n"
WANTS_OUT = "import os\ndef adder(a, b):\n    return os.fork()\n"


def call(stub: Any, keys: Keys, **changes: Any) -> Any:
    subject = changes.pop("subject", "ada")
    return stub.InvokeTool(invocation(arguments={"a": 1, "b": 2}, **changes), metadata=keys.metadata(subject=subject))


async def test_what_a_tool_emits_is_told_to_the_bus_and_to_its_caller(stub: Any, keys: Keys, bus: Heard) -> None:
    await register(stub, keys, tool(EMITTING))
    answer = await call(stub, keys, session_id="ses_1")
    assert [one.kind for one in answer.emitted] == ["ticket.created", "session.finished"]
    assert [(tenant, name) for tenant, name, _ in bus.told] == [("acme", "ticket.created"), ("acme", "tool.emitted")]
    first = bus.told[0][2]
    assert (first["event_id"], first["session_id"]) == (f"{answer.invocation_id}-1", "ses_1")
    assert first["data"] == {"kind": "ticket.created", "data": {"id": 1}, "tool": "adder@1.0.0"}


@pytest.mark.parametrize(
    ("kind", "name"),
    [("lead.qualified", "lead.qualified"), ("progress", "tool.emitted"), ("budget.exhausted", "tool.emitted"),
     ("Ticket.Created", "tool.emitted"), ("a.b.c", "a.b.c"), ("log.error\n", "tool.emitted")],
)  # fmt: skip
def test_a_tool_cannot_speak_for_the_mesh(kind: str, name: str) -> None:
    assert name_of(kind) == name


async def test_the_streams_entry_is_what_the_bus_reads() -> None:
    """Through the emitter that the service has, onto the stream that gateway reads."""
    sent: list[tuple[str, dict[str, str]]] = []

    class Outlet:
        async def put(self, stream: str, entries: Any) -> int:
            sent.extend((stream, dict(one)) for one in entries)
            return len(entries)

    emitter = Emitter(Outlet(), FakeClock(), source="tools")
    context = {"tool": "adder@1.0.0", "invocation_id": "inv_1", "session_id": "", "agent": "Athena"}
    async with emitter.running():
        telling(emitter, "acme", context, lambda *_: None)("emitted", json.dumps({"event": "x.y", "data": 1}))
        await asyncio.sleep(0)
    ((stream, entry),) = sent
    told = json.loads(entry["event"])
    assert (stream, entry["tenant"]) == ("bus:events", "acme")
    assert (told["id"], told["name"], told["source"], told["agent"]) == ("inv_1-1", "x.y", "tools", "Athena")


async def test_who_tries_again_and_again_to_get_out_is_refused_and_told_of(
    stub: Any, keys: Keys, bus: Heard, clock: FakeClock
) -> None:
    await register(stub, keys, tool(function={"code": WANTS_OUT, "allowed_imports": ["os"]}))
    for _ in range(5):
        assert said(await refusal(call(stub, keys))) == (Code.FAILED_PRECONDITION, "FUNCTION_FAILED")
    assert said(await refusal(call(stub, keys))) == (Code.PERMISSION_DENIED, "TOOL_NOT_ALLOWED")
    ((tenant, name, told),) = bus.told
    assert (tenant, name, told["data"]["subject"], told["data"]["status"]) == ("acme", "tool.threat", "ada", "DENIED")
    assert said(await refusal(call(stub, keys, subject="eve"))) == (Code.FAILED_PRECONDITION, "FUNCTION_FAILED")
    clock.advance(timedelta(minutes=11))
    assert said(await refusal(call(stub, keys))) == (Code.FAILED_PRECONDITION, "FUNCTION_FAILED")


async def test_errors_and_limits_make_nobody_a_threat(stub: Any, keys: Keys, bus: Heard) -> None:
    await register(stub, keys, tool("def adder(a, b):\n    raise ValueError\n"))
    for _ in range(12):
        assert said(await refusal(call(stub, keys))) == (Code.FAILED_PRECONDITION, "FUNCTION_FAILED")
    assert bus.told == []
