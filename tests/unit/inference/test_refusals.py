"""How long a provider asks to be left alone, in each way that HTTP has for it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from services.inference.providers.refusals import refusal, retry_after

NOW = "Wed, 21 Oct 2026 07:28:00 GMT"
WAITS = {
    "seconds": ({"retry-after": "3"}, timedelta(seconds=3)),
    "milliseconds go before": ({"retry-after-ms": "250", "retry-after": "1"}, timedelta(milliseconds=250)),
    "a date, by the provider's clock": (
        {"retry-after": "Wed, 21 Oct 2026 07:28:07 GMT", "date": NOW},
        timedelta(seconds=7),
    ),
    "a date that has passed": ({"retry-after": "Wed, 21 Oct 2026 07:00:00 GMT", "date": NOW}, timedelta()),
    "a date far away": ({"retry-after": "Wed, 28 Oct 2026 07:28:00 GMT", "date": NOW}, timedelta(hours=1)),
    "a date and no clock": ({"retry-after": NOW}, None),
    "a date without a zone": ({"retry-after": "Wed, 21 Oct 2026 07:28:07 -0000", "date": NOW}, None),
    "no sense": ({"retry-after": "soon"}, None),
    "nothing": ({}, None),
}


@pytest.mark.parametrize(("headers", "wait"), WAITS.values(), ids=WAITS.keys())
def test_a_wait_is_read_in_every_form(headers: dict[str, str], wait: timedelta | None) -> None:
    assert retry_after(headers) == wait


@pytest.mark.parametrize(("status", "unasked"), [(429, 1), (503, 1), (529, 1), (500, None), (502, None), (504, None)])
def test_what_a_provider_asks_for_is_heard_with_every_passing_refusal(status: int, unasked: int | None) -> None:
    asked = refusal(status, {"retry-after": "2"}, b"", provider="any")
    silent = refusal(status, {}, b"", provider="any")
    assert asked.retry_after == timedelta(seconds=2)
    assert silent.retry_after == (timedelta(seconds=unasked) if unasked else None)
