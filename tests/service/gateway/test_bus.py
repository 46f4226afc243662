"""Events and webhooks through the real Envoy: told, looked back at, listened to, delivered, tried again, set aside."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from services.gateway.bus import delivery
from tests.support.edge import Edge, running_edge
from tests.support.forged import NUMBERS, forged
from tests.support.receiver import Got, Receiver, running_receiver

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def receiver() -> AsyncIterator[Receiver]:
    async with running_receiver() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(delivery, "_FIRST_PAUSE", timedelta(milliseconds=20))
        folder = tmp_path_factory.mktemp("edge")
        async with running_edge(
            folder, webhook_private=True, sinks=["tests.support.sinks:make", "tests.support.sinks:hooks"]
        ) as running:
            yield running


async def publish(edge: Edge, tenant: str, *events: dict[str, Any]) -> list[dict[str, Any]]:
    return (await edge.ok("POST", "/v1/events", edge.token(tenant=tenant), {"events": list(events)}))["events"]


async def hook(edge: Edge, tenant: str, url: str, *names: str, **more: Any) -> dict[str, Any]:
    webhook = {"url": url, "event_names": list(names), **more}
    return await edge.ok("POST", "/v1/webhooks", edge.token(tenant=tenant), {"webhook": webhook})


def verify(secret: str, got: Got) -> None:
    """As standardwebhooks.com says."""
    signed = f"{got.headers['webhook-id']}.{got.headers['webhook-timestamp']}.".encode() + got.data
    key = base64.b64decode(secret.removeprefix("whsec_"))
    expected = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    assert got.headers["webhook-signature"] == f"v1,{expected}"


async def test_events_are_numbered_typed_and_read_again(edge: Edge) -> None:
    made = await publish(
        edge, "history",
        {"type": "EVENT_TYPE_TICKET_CREATED", "subject": "t-1", "data": {"priority": 2}},
        {"name": "lead.qualified", "agent": "Athena@1.0.0"},
        {"name": "factory.oven.hot", "session_id": "ses_1"},
    )  # fmt: skip
    assert [int(event["sequence"]) for event in made] == [1, 2, 3]
    assert [event["type"] for event in made] == [
        "EVENT_TYPE_TICKET_CREATED", "EVENT_TYPE_LEAD_QUALIFIED", "EVENT_TYPE_CUSTOM",
    ]  # fmt: skip
    assert (made[0]["name"], made[0]["source"], made[0]["data"]) == ("ticket.created", "user:ada", {"priority": 2})
    token = edge.token(tenant="history")
    page = await edge.ok("GET", "/v1/events?page_size=2", token)
    rest = await edge.ok("GET", f"/v1/events?page_size=2&page_token={page['next_page_token']}", token)
    assert page["events"] + rest["events"] == made
    for cursor in NUMBERS:
        wrong = forged(page["next_page_token"], cursor)
        error = await edge.bearer("GET", f"/v1/events?page_token={wrong}", token)
        assert (error.status, error.reason) == (400, "PAGE_TOKEN_INVALID")
    assert (await edge.ok("GET", "/v1/events?names=factory.*", token))["events"] == [made[2]]
    assert (await edge.ok("GET", "/v1/events?session_id=ses_1", token))["events"] == [made[2]]
    assert (await edge.ok("GET", "/v1/events", edge.token(tenant="stranger")))["events"] == []


async def test_publishing_the_same_id_again_changes_nothing(edge: Edge) -> None:
    first = await publish(edge, "twice", {"id": "x1", "name": "a.b", "data": {"n": 1}})
    again = await publish(edge, "twice", {"id": "x1", "name": "a.b", "data": {"n": 2}}, {"id": "x2", "name": "a.b"})
    assert again[0] == first[0]
    assert again[1]["sequence"] == "2"


@pytest.mark.parametrize(
    ("event", "field"),
    [
        ({"name": "No Dots"}, "events[0].name"),
        ({}, "events[0].name"),
        ({"name": "a.b", "subject": "s" * 300}, "events[0].subject"),
    ],
)
async def test_a_malformed_event_names_the_field(edge: Edge, event: dict[str, Any], field: str) -> None:
    answer = await edge.bearer("POST", "/v1/events", edge.token(), {"events": [event]})
    bad = next(one for one in answer.body["details"] if one["@type"].endswith("BadRequest"))
    assert (answer.status, bad["field_violations"][0]["field"]) == (400, field)


async def test_a_listener_resumes_where_it_was_and_hears_what_comes(edge: Edge) -> None:
    await publish(edge, "live", *({"name": "count.up", "subject": str(n)} for n in range(5)))
    headers = {"authorization": f"Bearer {edge.token(tenant='live')}"}
    heard: list[str] = []
    async with aiohttp.ClientSession(headers=headers) as session:
        url = f"{edge.url}/v1/events:subscribe?after_sequence=2&names=count.*"
        async with session.get(url) as answer:
            assert answer.content_type == "text/event-stream"
            told = asyncio.create_task(
                publish(edge, "live", {"name": "other.one"}, {"name": "count.up", "subject": "5"})
            )
            async for line in answer.content:
                if not line.startswith(b"data: "):
                    continue
                found = json.loads(line.removeprefix(b"data: "))
                if found.get("event"):
                    heard.append(found["event"]["subject"])
                if len(heard) == 4:
                    break
            await told
    assert heard == ["2", "3", "4", "5"]
    assert found["last_sequence"] == "7"


async def test_a_webhook_is_told_signed_cloudevents_of_its_names_only(edge: Edge, receiver: Receiver) -> None:
    made = await hook(edge, "signed", f"{receiver.url}/signed", "session.*", display_name="ours")
    assert made["webhook"]["enabled"]
    await publish(edge, "signed", {"name": "turn.completed"}, {"name": "session.finished", "session_id": "ses_9"})
    (got,) = await receiver.until("/signed", 1)
    verify(made["secret"], got)
    assert got.headers["content-type"] == "application/cloudevents+json"
    body = got.body
    assert (body["specversion"], body["type"], body["sequence"]) == ("1.0", "agentnet.session.finished", "2")
    assert (body["sessionid"], body["tenant"]) == ("ses_9", "signed")
    listed = await edge.ok("GET", "/v1/webhooks", edge.token(tenant="signed"))
    assert made["secret"] not in json.dumps(listed)


async def deliveries(edge: Edge, tenant: str, webhook_id: str, status: str) -> list[dict[str, Any]]:
    for _ in range(250):
        path = f"/v1/webhooks/{webhook_id}/deliveries?status=DELIVERY_STATUS_{status}"
        found = (await edge.ok("GET", path, edge.token(tenant=tenant)))["deliveries"]
        if found:
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"no delivery is {status}")


async def test_what_fails_is_tried_again_until_it_is_taken(edge: Edge, receiver: Receiver) -> None:
    receiver.answers["/flaky"] = [500, 429, 302, 200]
    made = await hook(edge, "flaky", f"{receiver.url}/flaky", "*")
    await publish(edge, "flaky", {"name": "a.b"})
    got = await receiver.until("/flaky", 4)
    assert len({one.headers["webhook-id"] for one in got}) == 1
    (found,) = await deliveries(edge, "flaky", made["webhook"]["id"], "DELIVERED")
    assert (found["attempts"], found["last_code"], found["last_error"]) == (4, 200, "")


async def test_what_never_goes_is_set_aside_and_can_be_replayed(edge: Edge, receiver: Receiver) -> None:
    receiver.answers["/dead"] = [503]
    made = await hook(edge, "dead", f"{receiver.url}/dead", "*")
    webhook_id = made["webhook"]["id"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(delivery, "_LONGEST_PAUSE", timedelta(milliseconds=20))
        await publish(edge, "dead", {"name": "a.b"})
        (found,) = await deliveries(edge, "dead", webhook_id, "DEAD")
    assert (found["attempts"], found["last_code"], found["last_error"]) == (10, 503, "HTTP 503")
    receiver.answers["/dead"] = [200]
    path = f"/v1/webhooks/{webhook_id}/deliveries/{found['id']}/replay"
    assert (await edge.ok("POST", path, edge.token(tenant="dead"), {}))["delivery"]["attempts"] == 0
    (again,) = await deliveries(edge, "dead", webhook_id, "DELIVERED")
    assert (again["id"], again["attempts"]) == (found["id"], 1)
    missing = await edge.bearer("POST", f"/v1/webhooks/{webhook_id}/deliveries/x/replay", edge.token(tenant="dead"), {})
    assert (missing.status, missing.reason) == (404, "DELIVERY_NOT_FOUND")


async def test_one_bad_webhook_delays_no_other(edge: Edge, receiver: Receiver) -> None:
    receiver.slow.add("/stuck")
    await hook(edge, "mixed", f"{receiver.url}/stuck", "*")
    await hook(edge, "mixed", "http://127.0.0.1:1/nobody", "*")
    await hook(edge, "mixed", f"{receiver.url}/good", "*")
    await publish(edge, "mixed", *({"name": "a.b", "subject": str(n)} for n in range(30)))
    good = await receiver.until("/good", 30)
    assert {got.body["subject"] for got in good} == {str(n) for n in range(30)}
    assert len(receiver.at("/stuck")) <= 4


async def test_a_webhook_can_be_tried_changed_disabled_and_deleted(edge: Edge, receiver: Receiver) -> None:
    token = edge.token(tenant="life")
    made = await hook(edge, "life", f"{receiver.url}/life", "*")
    webhook_id = made["webhook"]["id"]
    tried = await edge.ok("POST", f"/v1/webhooks/{webhook_id}/test", token, {})
    assert tried == {"delivered": True, "code": 200, "error": ""}
    (got,) = receiver.at("/life")
    assert got.body["type"] == "agentnet.webhook.test"
    verify(made["secret"], got)
    changed = {**made["webhook"], "enabled": False, "event_names": ["a.*"]}
    await edge.ok("PUT", f"/v1/webhooks/{webhook_id}", token, changed)
    await publish(edge, "life", {"name": "a.b"})
    await asyncio.sleep(0.7)
    assert len(receiver.at("/life")) == 1
    stranger = await edge.bearer("GET", f"/v1/webhooks/{webhook_id}", edge.token(tenant="another"))
    assert (stranger.status, stranger.reason) == (404, "WEBHOOK_NOT_FOUND")
    await edge.ok("DELETE", f"/v1/webhooks/{webhook_id}", token)
    assert (await edge.bearer("GET", f"/v1/webhooks/{webhook_id}", token)).status == 404


async def test_slack_a_crm_and_an_error_tracker_get_the_form_they_take(edge: Edge, receiver: Receiver) -> None:
    for form in ("SLACK", "CRM", "ERROR_TRACKING"):
        url = f"{receiver.url}/{form.lower()}"
        await hook(edge, "forms", url, "*", format=f"WEBHOOK_FORMAT_{form}")
    event = {"name": "agent.error", "subject": "trn_1", "agent": "Athena@1.0.0", "data": {"message": "a <b> & c"}}
    await publish(edge, "forms", event)
    (slack,), (crm,), (tracked,) = [await receiver.until(path, 1) for path in ("/slack", "/crm", "/error_tracking")]
    assert slack.body["text"] == "agent.error: trn_1"
    assert "a &lt;b&gt; &amp; c" in slack.body["blocks"][1]["text"]["text"]
    assert (crm.body["event"], crm.body["external_id"]) == ("agent.error", "trn_1")
    assert crm.body["properties"]["message"] == "a <b> & c"
    assert (tracked.body["level"], tracked.body["message"]["formatted"]) == ("error", "a <b> & c")
    assert len(tracked.body["event_id"]) == 32
    assert tracked.body["fingerprint"] == ["agent.error", "user:ada", "trn_1"]


async def test_a_sink_of_the_operators_own_is_told_and_its_faults_stay_its_own(edge: Edge) -> None:
    from tests.support import sinks

    await publish(
        edge, "sunk", {"name": "hook.first"}, {"name": "hook.bad"}, {"name": "other.name"}, {"name": "hook.last"}
    )
    for _ in range(200):
        if "hook.last" in sinks.TAKEN:
            break
        await asyncio.sleep(0.02)
    assert sinks.TAKEN == ["hook.first", "hook.last"]


async def test_hooks_are_called_by_the_events_they_wait_for_whatever_others_do(edge: Edge) -> None:
    from tests.support import sinks

    told = [
        {"name": "session.started", "session_id": "ses_1"}, {"name": "session.paused", "session_id": "ses_1"},
        {"name": "agent.error", "agent": "Athena@1.0.0"}, {"name": "session.finished", "session_id": "ses_1"},
    ]  # fmt: skip
    await publish(edge, "hooked", *told)
    for _ in range(200):
        if len(mine := [hooked for hooked in sinks.HOOKED if hooked[0] == "hooked"]) == 3:
            break
        await asyncio.sleep(0.02)
    assert sorted(mine) == [
        ("hooked", "agent.error", "Athena@1.0.0"), ("hooked", "session.finished", "ses_1"),
        ("hooked", "session.started", "ses_1"),
    ]  # fmt: skip
    assert [name for _, name, _ in mine if name.startswith("session")] == ["session.started", "session.finished"]


@pytest.mark.parametrize("url", ["ftp://example.com/", "http://user:secret@example.com/", "nothing", "http://"])
async def test_an_address_that_cannot_be_posted_to_is_refused(edge: Edge, url: str) -> None:
    webhook = {"url": url, "event_names": ["*"]}
    answer = await edge.bearer("POST", "/v1/webhooks", edge.token(), {"webhook": webhook})
    assert answer.status == 400
