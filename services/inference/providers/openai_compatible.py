"""Any server that speaks OpenAI's chat completions (platform.openai.com/docs/api-reference/chat), streamed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import aiohttp

from services.inference.errors import (
    ContextTooLong,
    ProviderAuthFailed,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
    StreamBroken,
)
from services.inference.providers.contract import Chunk, FinishReason, Message, ModelCall, Usage
from services.inference.providers.sse import DataLines
from shared.errors import MeshError

_DONE: Final = b"[DONE]"
_OK: Final = 200
_FINISH: Final = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
}
_CONTEXT_WORDS: Final = ("context_length_exceeded", "exceed_context_size", "context size")
_DEFAULT_RETRY: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the server is and how long to wait for it."""

    name: str
    base_url: str
    api_key: str
    first_token_timeout: timedelta
    idle_timeout: timedelta


class OpenAICompatibleProvider:
    """One server, over a pooled session shared by all."""

    def __init__(self, endpoint: Endpoint, session: aiohttp.ClientSession) -> None:
        self._endpoint = endpoint
        self._session = session

    @property
    def name(self) -> str:
        return self._endpoint.name

    async def stream(self, call: ModelCall) -> AsyncGenerator[Chunk, None]:
        async with self._answer(_body(call)) as answer:
            lines, limit, finished = DataLines(), self._endpoint.first_token_timeout, False
            while data := await self._read(answer, limit):
                limit = self._endpoint.idle_timeout
                events = lines.feed(data)
                chunk = _chunk(self._parsed(events))
                if chunk:
                    finished = finished or chunk.finish_reason is not None
                    yield chunk
                if _DONE in events:
                    return
            if finished:  # some servers end without the last marker
                return
            raise StreamBroken("the provider's stream ended in the middle", provider=self.name)

    def _parsed(self, events: list[bytes]) -> list[dict[str, Any]]:
        try:
            parsed = [json.loads(event) for event in events if event not in (b"", _DONE)]
        except ValueError as error:
            raise StreamBroken("the provider's stream is not JSON", provider=self.name) from error
        if not all(isinstance(event, dict) and not event.get("error") for event in parsed):
            raise StreamBroken("the provider failed in the middle", provider=self.name)
        return parsed

    @asynccontextmanager
    async def _answer(self, body: dict[str, Any]) -> AsyncIterator[aiohttp.ClientResponse]:
        answer = await self._post(body)
        try:
            if answer.status != _OK:
                raise _refusal(answer, await self._text(answer), self.name)
            yield answer
        except aiohttp.ClientError as error:
            raise StreamBroken("the provider's stream broke", provider=self.name) from error
        finally:
            answer.close()  # a stream left early must not go on at the provider

    async def _post(self, body: dict[str, Any]) -> aiohttp.ClientResponse:
        """Posts; once more when a pooled connection turned out to be closed by the server."""
        for attempt in (1, 2):
            try:
                async with asyncio.timeout(self._endpoint.first_token_timeout.total_seconds()):
                    return await self._session.post(
                        f"{self._endpoint.base_url.rstrip('/')}/chat/completions",
                        json=body,
                        headers={"authorization": f"Bearer {self._endpoint.api_key}"} if self._endpoint.api_key else {},
                    )
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientConnectionResetError) as error:
                if attempt == 2:  # noqa: PLR2004 - the second try
                    raise ProviderUnavailable("the provider closed the connection", provider=self.name) from error
            except TimeoutError as error:
                raise ProviderTimeout("the provider did not answer in time", provider=self.name) from error
            except aiohttp.ClientError as error:
                raise ProviderUnavailable("the provider cannot be reached", provider=self.name) from error
        raise ProviderUnavailable("the provider cannot be reached", provider=self.name)

    async def _text(self, answer: aiohttp.ClientResponse) -> str:
        """What a refusal says."""
        try:
            async with asyncio.timeout(self._endpoint.idle_timeout.total_seconds()):
                return await answer.text(errors="replace")
        except TimeoutError as error:
            raise ProviderTimeout("the provider's refusal stalled", provider=self.name) from error

    async def _read(self, answer: aiohttp.ClientResponse, limit: timedelta) -> bytes:
        """All that has arrived; empty at the end."""
        try:
            async with asyncio.timeout(limit.total_seconds()):
                return await answer.content.readany()
        except TimeoutError as error:
            raise ProviderTimeout("the provider's stream stalled", provider=self.name) from error


def _body(call: ModelCall) -> dict[str, Any]:
    sampling = call.sampling
    chosen = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "seed": sampling.seed,
        "stop": list(sampling.stop) or None,
    }
    return {
        "model": call.model,
        "messages": [_message(message) for message in call.messages],
        "max_tokens": call.max_output_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
        **{name: value for name, value in chosen.items() if value is not None},
    }


def _message(message: Message) -> dict[str, str]:
    named = {"name": message.name} if message.name else {}
    return {"role": message.role.value, "content": message.text, **named}


def _chunk(events: list[dict[str, Any]]) -> Chunk | None:
    """Everything one read brought, as one chunk."""
    text, count = "", 0
    finish: FinishReason | None = None
    usage: Usage | None = None
    for event in events:
        for choice in event.get("choices") or ():
            if piece := (choice.get("delta") or {}).get("content"):
                text += piece
                count += 1
            finish = _FINISH.get(choice.get("finish_reason") or "", finish)
        usage = _usage(event.get("usage")) or usage
    return Chunk(text, count, finish, usage) if text or finish or usage else None


def _usage(reported: dict[str, Any] | None) -> Usage | None:
    if not reported:
        return None
    return Usage(
        input_tokens=reported.get("prompt_tokens", 0),
        output_tokens=reported.get("completion_tokens", 0),
        cached_input_tokens=(reported.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
        reasoning_tokens=(reported.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0,
    )


def _refusal(answer: aiohttp.ClientResponse, body: str, provider: str) -> MeshError:
    """The provider's HTTP error in our words; its own text is kept from callers, it may quote the prompt."""
    match answer.status:
        case 401 | 403:
            return ProviderAuthFailed("the provider refuses the configured credentials", provider=provider)
        case 429:
            return ProviderRateLimited(
                "the provider asks to slow down", provider=provider, retry_after=_retry_after(answer)
            )
        case 408 | 504:
            return ProviderTimeout("the provider timed out", provider=provider)
        case status if status >= 500:  # noqa: PLR2004 - HTTP's server errors
            return ProviderUnavailable("the provider is failing", provider=provider, status=str(status))
        case _ if any(word in body for word in _CONTEXT_WORDS):
            return ContextTooLong("the prompt does not fit the model's context", field="messages", provider=provider)
        case status:
            return ProviderRejected("the provider rejects the request", provider=provider, status=str(status))


def _retry_after(answer: aiohttp.ClientResponse) -> timedelta:
    try:
        return max(timedelta(), timedelta(seconds=float(answer.headers.get("retry-after", ""))))
    except (ValueError, OverflowError):
        return _DEFAULT_RETRY
