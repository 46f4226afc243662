"""Where tools may reach, and where not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from services.tools.egress import Egress
from services.tools.errors import EgressRefused, ToolUnreachable

PUBLIC = "93.184.216.34"


def egress(*allowed: str, answers: Sequence[str] = (PUBLIC,)) -> Egress:
    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return answers

    return Egress(allowed, resolve=resolve)


@pytest.mark.parametrize(
    ("allowed", "host"),
    [("api.example.com", "api.example.com"), ("*.example.com", "a.b.example.com"), ("*", "anything.net"),
     ("api.example.com", "API.Example.com."), ("93.184.216.0/24", PUBLIC), ("*", PUBLIC)],
)  # fmt: skip
async def test_a_host_on_the_list_is_reached_at_its_address(allowed: str, host: str) -> None:
    assert await egress(allowed).address(host, 443) == PUBLIC


@pytest.mark.parametrize(
    ("allowed", "host"),
    [("", "example.com"), ("example.com", "evil.com"), ("example.com", "api.example.com"),
     ("*.example.com", "example.com.evil.net"), ("api.example.com", PUBLIC), ("*.example.com", "xexample.com")],
)  # fmt: skip
async def test_a_host_that_is_not_on_the_list_is_refused(allowed: str, host: str) -> None:
    with pytest.raises(EgressRefused) as raised:
        await egress(allowed).address(host, 443)
    assert raised.value.facts == {"host": host}


NOT_PUBLIC = [
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254",
    "2002:7f00:1::", "ff02::1",
]  # fmt: skip


@pytest.mark.parametrize("address", NOT_PUBLIC)
async def test_an_address_inside_is_refused_whatever_its_name(address: str) -> None:
    with pytest.raises(EgressRefused):
        await egress("*", answers=[address]).address("innocent.example.com", 80)
    with pytest.raises(EgressRefused):
        await egress("*").address(address, 80)


async def test_one_bad_address_among_good_ones_is_enough() -> None:
    with pytest.raises(EgressRefused):
        await egress("*", answers=[PUBLIC, "10.0.0.1"]).address("two-faced.example.com", 80)


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "127.1", "localhost", "127.0.0.1.nip.io"])
async def test_other_ways_to_write_an_address_are_names(host: str) -> None:
    with pytest.raises(EgressRefused):
        await egress("*", answers=["127.0.0.1"]).address(host, 80)


async def test_a_private_network_is_reached_when_the_list_names_it() -> None:
    allowed = egress("10.0.0.0/8", "internal.example.com", answers=["10.1.1.1"])
    assert await allowed.address("10.2.3.4", 80) == "10.2.3.4"
    assert await allowed.address("internal.example.com", 80) == "10.1.1.1"


async def test_a_host_without_an_address_is_unreachable() -> None:
    with pytest.raises(ToolUnreachable):
        await egress("*", answers=[]).address("nowhere.example.com", 80)
