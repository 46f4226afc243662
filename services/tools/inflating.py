"""Answers of hosts, inflated piece by piece: a small answer that grows without end costs no more than its limit."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Final

import httpx2

# What a host is asked for; no other coding is taken, nor one within another.
ACCEPTED: Final = "gzip, deflate"
_CODINGS: Final = frozenset({"gzip", "x-gzip", "deflate"})
_PIECE: Final = 64 * 1024
_EITHER: Final = 32 + zlib.MAX_WBITS  # gzip or zlib, as its first bytes say
_MEMBER: Final = b"\x1f\x8b"
# Of one answer, a conversation of server-sent events included.
MOST: Final = 16 * 1024 * 1024


def bounded(response: httpx2.Response, *, most: int = MOST) -> httpx2.Response:
    """The response with its body as it is meant, at most so many bytes; more is a DecodingError where they are read.

    Raises DecodingError for a coding that was not asked for.
    """
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    if coding not in _CODINGS | {"identity", ""}:
        raise httpx2.DecodingError(f"the host answers in {coding[:50]}, which was not asked for")
    headers = [pair for pair in response.headers.raw if pair[0].lower() != b"content-encoding"]
    if coding in _CODINGS:
        headers = [pair for pair in headers if pair[0].lower() != b"content-length"]
    assert isinstance(response.stream, httpx2.AsyncByteStream)  # noqa: S101 - an asynchronous transport's
    body = _Body(response.stream, Inflater() if coding in _CODINGS else None, most=most)
    return httpx2.Response(response.status_code, headers=headers, stream=body, extensions=response.extensions)


class Inflater:
    """Undoes gzip and zlib in pieces that are never larger than 64 KiB."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(_EITHER)
        self._begun = False

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """What some more data inflates to. Raises DecodingError."""
        while data:
            self._begin_member(data)
            self._begun = True
            try:
                piece = self._inner.decompress(data, _PIECE)
            except zlib.error as error:
                raise httpx2.DecodingError(f"the answer cannot be inflated: {error}") from error
            data = self._inner.unused_data if self._inner.eof else self._inner.unconsumed_tail
            if piece:
                yield piece
            if self._inner.eof and not data.startswith(_MEMBER):
                return  # what follows is no part of it

    def _begin_member(self, data: bytes) -> None:
        if self._inner.eof and data.startswith(_MEMBER):
            self._inner = zlib.decompressobj(_EITHER)

    def check_whole(self) -> None:
        """Raises DecodingError when it broke off."""
        if self._begun and not self._inner.eof:
            raise httpx2.DecodingError("the answer broke off before its end")


class _Body(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, inflater: Inflater | None, *, most: int) -> None:
        self._inner = inner
        self._inflater = inflater
        self._left = most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for data in self._inner:
            for piece in self._inflater.pieces(data) if self._inflater else (data,):
                self._left -= len(piece)
                if self._left < 0:
                    raise httpx2.DecodingError("the answer is larger than any answer may be")
                yield piece
        if self._inflater:
            self._inflater.check_whole()

    async def aclose(self) -> None:
        await self._inner.aclose()
