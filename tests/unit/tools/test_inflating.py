"""What hosts answer is inflated in bounded pieces, and no coding is taken that was not asked for."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import AsyncIterator

import httpx2
import pytest

from services.tools import inflating
from tests.service.tools.api import bomb

TEXT = b"what was meant " * 1000


class Sent(httpx2.AsyncByteStream):
    """A body in the pieces that a network makes."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._data), 1000):
            yield self._data[start : start + 1000]


def answer(data: bytes, coding: str, *, most: int = inflating.MOST) -> httpx2.Response:
    headers = {"Content-Encoding": coding, "Content-Length": str(len(data)), "X-Kind": "q"}
    return inflating.bounded(httpx2.Response(200, headers=headers, stream=Sent(data)), most=most)


@pytest.mark.parametrize(
    ("coding", "data"),
    [
        ("gzip", gzip.compress(TEXT)),
        ("x-gzip", gzip.compress(TEXT)),
        ("GZIP", gzip.compress(TEXT[:7000]) + gzip.compress(TEXT[7000:])),
        ("gzip", gzip.compress(TEXT) + b"\0\0"),
        ("deflate", zlib.compress(TEXT)),
        ("identity", TEXT),
        ("", TEXT),
    ],
    ids=["gzip", "x-gzip", "members", "padding", "deflate", "identity", "none"],
)
async def test_what_was_meant_is_read(coding: str, data: bytes) -> None:
    response = answer(data, coding)
    assert await response.aread() == TEXT
    assert response.headers["X-Kind"] == "q"


async def test_a_bomb_is_cut_at_the_limit_and_never_held_as_a_whole() -> None:
    response, pieces = answer(bomb(64), "gzip", most=1 << 20), []
    with pytest.raises(httpx2.DecodingError, match="larger than any answer"):
        async for piece in response.aiter_raw():
            pieces.append(len(piece))
    assert max(pieces) <= 64 * 1024
    assert sum(pieces) <= 1 << 20


@pytest.mark.parametrize("coding", ["gzip, gzip", "br", "zstd", "gzip,deflate"])
async def test_a_coding_within_a_coding_or_an_unknown_one_is_refused(coding: str) -> None:
    with pytest.raises(httpx2.DecodingError, match="was not asked for"):
        answer(TEXT, coding)


@pytest.mark.parametrize("data", [gzip.compress(TEXT)[:-20], b"not packed at all"], ids=["cut", "other"])
async def test_what_cannot_be_inflated_as_a_whole_is_no_answer(data: bytes) -> None:
    with pytest.raises(httpx2.DecodingError):
        await answer(data, "gzip").aread()


async def test_an_empty_answer_in_a_coding_is_empty() -> None:
    assert await answer(b"", "gzip").aread() == b""
