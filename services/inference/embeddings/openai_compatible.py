"""Any server that speaks OpenAI's embeddings (platform.openai.com/docs/api-reference/embeddings)."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import math
import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import aiohttp

from services.inference.credentials import Proof
from services.inference.embeddings.contract import Embedded, Vector
from services.inference.errors import ProviderTimeout, ProviderUnavailable, StreamBroken
from services.inference.providers.refusals import refusal

_OK: Final = 200
_UNAUTHORIZED: Final = 401
MAX_INPUTS: Final = 2048  # what OpenAI takes in one request
MAX_BYTES: Final = 300_000  # OpenAI takes 300,000 tokens, and no token is shorter than a byte
_MAX_ANSWER: Final = 64 * 1024 * 1024

Cut = Callable[[str], tuple[str, bool]]


@dataclass(frozen=True, slots=True)
class EmbeddingEndpoint:
    """Where the server is, which model it is asked for and how long to wait for an answer."""

    name: str
    base_url: str
    proof: Proof | None
    model: str
    timeout: timedelta
    width: int = 0  # what `dimensions` asks for; 0: the model's own, and nothing is asked

    @property
    def url(self) -> str:
        return f"{self.base_url.rstrip('/')}/embeddings"


class OpenAICompatibleEmbedder:
    """One server, over a pooled session shared by all. Vectors leave at unit length, whatever came."""

    def __init__(self, endpoint: EmbeddingEndpoint, session: aiohttp.ClientSession, *, cut: Cut | None = None) -> None:
        """`cut` shortens a text to the model's window and tells if it had to; without it long texts are refused."""
        self._endpoint = endpoint
        self._session = session
        self._cut = cut or _whole

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """One vector a text, in as few requests as the server's limits allow."""
        cut = await asyncio.to_thread(lambda: [self._cut(text) for text in texts])  # a tokenizer takes its time
        vectors: list[Vector] = []
        tokens = 0
        for part in _parts([text for text, _ in cut]):
            answer = await self._ask(part)
            found, read = self._read(answer, len(part))
            vectors += found
            tokens += read
        places = tuple(place for place, (_, shortened) in enumerate(cut) if shortened)
        return Embedded(tuple(vectors), tokens, len(places), places)

    async def _ask(self, texts: Sequence[str]) -> bytes:
        """The whole answer; asks once more when a pooled connection turned out to be closed by the server."""
        asked: dict[str, Any] = {"model": self._endpoint.model, "input": texts, "encoding_format": "base64"}
        if self._endpoint.width:
            asked["dimensions"] = self._endpoint.width
        try:
            async with asyncio.timeout(self._endpoint.timeout.total_seconds()):
                try:
                    return await self._post(asked)
                except (aiohttp.ServerDisconnectedError, aiohttp.ClientConnectionResetError):
                    return await self._post(asked)
        except TimeoutError as error:
            raise ProviderTimeout("the provider did not answer in time", provider=self._endpoint.name) from error
        except aiohttp.ClientPayloadError as error:
            raise StreamBroken("the provider's answer broke off", provider=self._endpoint.name) from error
        except aiohttp.ClientError as error:
            raise ProviderUnavailable("the provider cannot be reached", provider=self._endpoint.name) from error

    async def _post(self, asked: dict[str, Any]) -> bytes:
        proof = self._endpoint.proof
        headers = proof.headers if proof else {}
        async with self._session.post(self._endpoint.url, json=asked, headers=headers) as answer:
            body = bytearray()
            async for data in answer.content.iter_any():
                body += data
                if len(body) > _MAX_ANSWER:
                    raise StreamBroken("the provider's answer does not end", provider=self._endpoint.name)
            if answer.status == _UNAUTHORIZED and proof and await proof.renewed(headers):
                return await self._post(asked)
            if answer.status != _OK:
                provider = self._endpoint.name
                raise refusal(answer.status, answer.headers, bytes(body), provider=provider, field="texts")
            return bytes(body)

    def _read(self, body: bytes, count: int) -> tuple[list[Vector], int]:
        """The vectors in the order of the texts, and the tokens read. Raises StreamBroken for anything else."""
        try:
            answer = json.loads(body)
            rows = {int(row["index"]): _vector(row["embedding"]) for row in answer["data"]}
            vectors = [rows[place] for place in range(count)]
            tokens = int((answer.get("usage") or {}).get("prompt_tokens") or 0)
        except (ValueError, TypeError, KeyError, AttributeError, binascii.Error) as error:
            raise StreamBroken("the provider's answer is no list of vectors", provider=self._endpoint.name) from error
        widths = {len(vector) for vector in vectors}
        if len(rows) != count or len(widths) != 1 or widths == {0} or self._endpoint.width not in (0, *widths):
            raise StreamBroken("the provider's vectors are not as asked for", provider=self._endpoint.name)
        return vectors, tokens


def _vector(given: str | list[float]) -> Vector:
    """Base64 of little-endian 32-bit floats, or plain numbers from servers that know only those; made unit length."""
    if isinstance(given, str):
        values = array("f", base64.b64decode(given, validate=True))
        if sys.byteorder == "big":
            values.byteswap()
    else:
        values = array("d", given)
    length = math.hypot(*values)
    if not 0 < length < math.inf:
        raise ValueError("a vector without direction")
    return tuple(value / length for value in values)


def _parts(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts in order, in as many requests as the limits need."""
    part: list[str] = []
    size = 0
    for text in texts:
        length = len(text.encode())
        if part and (len(part) == MAX_INPUTS or size + length > MAX_BYTES):
            yield part
            part, size = [], 0
        part.append(text)
        size += length
    if part:
        yield part


def _whole(text: str) -> tuple[str, bool]:
    return text, False
