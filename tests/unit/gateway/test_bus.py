"""What the bus decides without any store: names, pauses, seals, the log's way into it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography.exceptions import InvalidTag

from services.gateway.bus.delivery import judged, pause
from services.gateway.bus.event import matches
from services.gateway.bus.sending import Outcome, PublicResolver, require_address
from services.gateway.bus.signing import Seal, new_secret, signature
from services.gateway.bus.store import Delivery, Status
from shared.errors import InvalidArgument

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
DELIVERY = Delivery("dlv_1", "whk_1", 1, "a.b", Status.PENDING, NOON)


@pytest.mark.parametrize(
    ("name", "patterns", "meant"),
    [
        ("session.started", ("*",), True),
        ("session.started", ("session.*",), True),
        ("session.started", ("session.started",), True),
        ("sessions.started", ("session.*",), False),
        ("session.started", ("session.start",), False),
        ("a.b.c", ("a.*",), True),
        ("a.b", (), False),
    ],
)
def test_a_pattern_means_exactly_its_names(name: str, patterns: tuple[str, ...], meant: bool) -> None:
    assert matches(name, patterns) is meant


def test_pauses_double_up_to_an_hour_and_are_jittered() -> None:
    for attempt, most in ((1, 2), (2, 4), (5, 32), (12, 3600), (40, 3600)):
        for _ in range(20):
            assert timedelta(seconds=most / 2) <= pause(attempt) <= timedelta(seconds=most)


def test_a_delivery_is_taken_tried_again_or_dead() -> None:
    assert judged(DELIVERY, Outcome(204), NOON, attempts=2).status is Status.DELIVERED
    again = judged(DELIVERY, Outcome(503, "HTTP 503", timedelta(seconds=7)), NOON, attempts=2)
    assert (again.status, again.next_attempt_at) == (Status.PENDING, NOON + timedelta(seconds=7))
    assert judged(again, Outcome(0, "refused"), NOON, attempts=2).status is Status.DEAD
    assert judged(DELIVERY, Outcome(410, "HTTP 410"), NOON, attempts=9).status is Status.DEAD


def test_a_secret_is_opened_only_with_its_key_and_for_its_webhook() -> None:
    secret = new_secret()
    sealed = Seal("pepper").close(secret, "whk_1")
    assert secret.encode() not in sealed
    assert Seal("pepper").open(sealed, "whk_1") == secret
    for seal, webhook in ((Seal("salt"), "whk_1"), (Seal("pepper"), "whk_2")):
        with pytest.raises(InvalidTag):
            seal.open(sealed, webhook)


def test_the_signature_is_that_of_the_published_example() -> None:
    """From the specification of standard webhooks."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'
    signed = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "https://10.0.0.1/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://169.254.169.254/latest",
    ],
)
def test_addresses_of_private_networks_are_refused(url: str) -> None:
    with pytest.raises(InvalidArgument):
        require_address(url, private=False)
    assert require_address(url, private=True) == url


async def test_a_name_that_leads_into_a_private_network_is_refused_when_connecting() -> None:
    resolver = PublicResolver()
    with pytest.raises(OSError, match="not a public address"):
        await resolver.resolve("localhost", 80)
    await resolver.close()
