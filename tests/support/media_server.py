"""A server that speaks OpenAI's images and audio as documented, refuses as told, and breaks off where told."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import wave
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

SOUND = bytes(range(256)) * 64
"""What it says, whatever it is told to say."""
HEARD = "Call bob@example.org at nine."


def png() -> bytes:
    """A picture of one black point."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = chunk(b"IHDR", (1).to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0]))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")


def wav(seconds: float) -> bytes:
    """Silence of this length."""
    held = io.BytesIO()
    with wave.open(held, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(int(seconds * 16000)))
    return held.getvalue()


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error as OpenAI words it; it quotes what it was asked."""

    status: int
    code: str = "server_error"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class MediaServer:
    """What it heard; refusals for the next calls, in order. `says_usage` is whether it tells what was used."""

    url: str = ""
    refusals: list[Refusal] = field(default_factory=list)
    heard: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    says_usage: bool = True
    break_after: int | None = None
    """Bytes of a sound after which it closes the connection."""
    hang: asyncio.Event | None = None
    """It waits for this in the middle of a sound."""
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """Somebody went away in the middle."""
    revised: str = ""

    async def images(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        if refused := self._begun(request, asked):
            return refused
        by_token = asked["model"].startswith("gpt-image")
        assert ("response_format" in asked) is not by_token  # as OpenAI's own refuses it
        one = {"b64_json": base64.b64encode(png()).decode()} | (
            {"revised_prompt": self.revised} if self.revised else {}
        )
        answer: dict[str, Any] = {"created": 1, "data": [one] * asked.get("n", 1)}
        if by_token and self.says_usage:
            details = {"text_tokens": 11, "image_tokens": 0}
            answer |= {"usage": {"input_tokens": 11, "output_tokens": 272, "total_tokens": 283,
                                 "input_tokens_details": details}, "output_format": "webp"}  # fmt: skip
        return web.json_response(answer)

    async def transcriptions(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        sound = form["file"]
        assert isinstance(sound, web.FileField)
        asked = {name: value for name, value in form.items() if isinstance(value, str)}
        asked |= {"file": sound.file.read(), "filename": sound.filename, "type": sound.content_type}
        if refused := self._begun(request, asked):
            return refused
        if asked["response_format"] == "verbose_json":
            answer = {"task": "transcribe", "language": "english", "duration": 2.4, "text": HEARD}
            if "timestamp_granularities[]" in asked:
                answer["segments"] = [{"id": 0, "start": 0.0, "end": 2.4, "text": HEARD}]
            if self.says_usage:
                answer["usage"] = {"type": "duration", "seconds": 3}
            return web.json_response(answer)
        usage = {"type": "tokens", "input_tokens": 30, "input_token_details": {"text_tokens": 6, "audio_tokens": 24},
                 "output_tokens": 9, "total_tokens": 39}  # fmt: skip
        return web.json_response({"text": HEARD} | ({"usage": usage} if self.says_usage else {}))

    async def speech(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        if refused := self._begun(request, asked):
            return refused
        events = asked.get("stream_format") == "sse"
        whole = _events(says_usage=self.says_usage) if events else SOUND
        answer = web.StreamResponse(headers={"content-type": "text/event-stream" if events else "audio/mpeg"})
        answer.enable_chunked_encoding()
        await answer.prepare(request)
        try:
            await answer.write(whole[: self.break_after])
            if self.hang:
                await self.hang.wait()
        except (asyncio.CancelledError, ConnectionError):
            self.left.set()
            raise
        if self.break_after is not None and request.transport:
            request.transport.abort()
        return answer

    def _begun(self, request: web.Request, asked: dict[str, Any]) -> web.Response | None:
        self.heard.append({"path": request.path_qs} | asked)
        self.keys.append(request.headers.get("authorization", "") or request.headers.get("api-key", ""))
        if not self.refusals:
            return None
        refusal = self.refusals.pop(0)
        error = {
            "message": f"you asked for {asked.get('prompt', asked.get('input', 'a secret'))}",
            "code": refusal.code,
        }
        return web.json_response({"error": error}, status=refusal.status, headers=refusal.headers)


def _events(*, says_usage: bool) -> bytes:
    pieces = [SOUND[at : at + 1000] for at in range(0, len(SOUND), 1000)]
    events = [{"type": "speech.audio.delta", "audio": base64.b64encode(piece).decode()} for piece in pieces]
    usage = {"input_tokens": 14, "output_tokens": 101, "total_tokens": 115}
    done = {"type": "speech.audio.done"} | ({"usage": usage} if says_usage else {})
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in [*events, done])


@asynccontextmanager
async def media_server() -> AsyncIterator[MediaServer]:
    """The server in the block, OpenAI's paths and Azure's."""
    server, app = MediaServer(), web.Application(client_max_size=32 * 1024 * 1024)
    for prefix in ("/v1", "/openai/deployments/{deployment}"):
        app.router.add_post(f"{prefix}/images/generations", server.images)
        app.router.add_post(f"{prefix}/audio/transcriptions", server.transcriptions)
        app.router.add_post(f"{prefix}/audio/speech", server.speech)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield server
    finally:
        await runner.cleanup()
