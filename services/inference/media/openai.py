"""OpenAI's images and audio (platform.openai.com/docs/api-reference/images, /audio), as many servers speak them."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

import aiohttp

from services.inference.catalog import Bills
from services.inference.errors import StreamBroken
from services.inference.media.contract import (
    ImageOrder,
    Picture,
    Segment,
    SpeechOrder,
    Transcript,
    TranscriptionOrder,
)
from services.inference.peers import Metered
from services.inference.providers.contract import Usage
from services.inference.providers.http import HttpCall, HttpProvider
from services.inference.providers.refusals import broken_by
from services.inference.providers.sse import EventStream, EventTooLong
from services.inference.purchase import Spent
from services.inference.route import Model

_MAX_ANSWER: Final = 64 * 1024 * 1024
_EXTENSIONS: Final = {
    "audio/wav": "wav", "audio/mpeg": "mp3", "audio/mp4": "m4a", "audio/webm": "webm", "audio/ogg": "ogg",
    "audio/flac": "flac",
}  # fmt: skip
_UNREADABLE: Final = (ValueError, KeyError, TypeError, AttributeError, OverflowError, binascii.Error)


def azure_path(api_version: str) -> str:
    """Azure has the deployment in the path."""
    return f"/openai/deployments/{{model}}{{endpoint}}?api-version={api_version}"


@dataclass(frozen=True, slots=True)
class OpenAIMedia:
    """One provider's endpoints, over its pooled connections; `path` tells how an endpoint is reached."""

    http: HttpProvider
    path: str = "{endpoint}"

    async def images(self, model: Model, order: ImageOrder) -> AsyncGenerator[Picture | Spent, None]:
        body: dict[str, Any] = {"model": _remote(model), "prompt": order.prompt, "n": order.count}
        body |= {"size": order.size} if order.size else {}
        body |= {"quality": order.quality} if order.quality else {}
        if model.bills is Bills.IMAGES:  # who bills by token answers in base64 alone, and refuses to be asked
            body["response_format"] = "b64_json"
        answer = await self._whole(HttpCall(self._at("/images/generations", model), body), model)
        try:
            pictures = [_picture(one, str(answer.get("output_format") or "png")) for one in answer["data"]]
            spent = _image_spent(model, answer.get("usage"), len(pictures))
        except _UNREADABLE as error:
            raise self._broken("the provider's answer holds no pictures") from error
        if not pictures:
            raise self._broken("the provider's answer holds no pictures")
        for picture in pictures:
            yield picture
        if spent:
            yield spent

    async def transcript(self, model: Model, order: TranscriptionOrder) -> AsyncGenerator[Transcript | Spent, None]:
        call = HttpCall(self._at("/audio/transcriptions", model), {}, form=lambda: _form(model, order))
        answer = await self._whole(call, model)
        try:
            transcript = _transcript(answer)
            spent = _heard(model, answer.get("usage"), transcript)
        except _UNREADABLE as error:
            raise self._broken("the provider's answer is no transcript") from error
        yield transcript
        if spent:
            yield spent

    async def speech(self, model: Model, order: SpeechOrder) -> AsyncGenerator[bytes | Spent, None]:
        body: dict[str, Any] = {
            "model": _remote(model), "input": order.text, "voice": order.voice, "response_format": order.format,
        }  # fmt: skip
        body |= {"speed": order.speed} if order.speed else {}
        body |= {"instructions": order.instructions} if order.instructions else {}
        told = model.bills is Bills.TOKENS
        body |= {"stream_format": "sse"} if told else {}  # with the tokens in the last event
        call, events = HttpCall(self._at("/audio/speech", model), body), EventStream()
        done, limit = False, model.timeouts.first_token
        async with self.http.answer(call, model.timeouts) as answer:
            while data := await answer.read(limit):
                limit = model.timeouts.idle
                for piece in self._spoken(events, data) if told else [data]:
                    done = done or not told or isinstance(piece, Spent)
                    yield piece
        if not done:
            raise self._broken("the provider's sound ended in the middle")

    def _spoken(self, events: EventStream, data: bytes) -> list[bytes | Spent]:
        try:
            found = [json.loads(event.data) for event in events.feed(data)]
            if error := next((one["error"] for one in found if one.get("error")), None):
                raise broken_by(error, provider=self.http.name)
            pieces = [_said(one) for one in found]
        except (*_UNREADABLE, EventTooLong) as error:
            raise self._broken("the provider's sound cannot be read") from error
        return [piece for piece in pieces if piece]

    def _at(self, endpoint: str, model: Model) -> str:
        return self.path.format(endpoint=endpoint, model=_remote(model))

    async def _whole(self, call: HttpCall, model: Model) -> Mapping[str, Any]:
        """The JSON object of an answer."""
        timeouts = replace(model.timeouts, idle=model.timeouts.first_token)
        body = bytearray()
        async with self.http.answer(call, timeouts) as answer:
            while data := await answer.read(timeouts.idle):
                body += data
                if len(body) > _MAX_ANSWER:
                    raise self._broken("the provider's answer does not end")
        try:
            found = json.loads(body)
        except ValueError as error:
            raise self._broken("the provider's answer is not JSON") from error
        if not isinstance(found, dict):
            raise self._broken("the provider's answer is no object")
        return found

    def _broken(self, why: str) -> StreamBroken:
        return StreamBroken(why, provider=self.http.name)


def _remote(model: Model) -> str:
    return model.remote or model.name


def _picture(found: Mapping[str, Any], kind: str) -> Picture:
    data = base64.b64decode(found["b64_json"], validate=True)
    if not data:
        raise ValueError("an empty picture")
    return Picture(f"image/{kind}", data, str(found.get("revised_prompt") or ""))


def _image_spent(model: Model, usage: Mapping[str, Any] | None, count: int) -> Spent | None:
    if model.bills is Bills.IMAGES:
        return Spent(metered=Metered(images=count))
    return Spent(Usage(int(usage["input_tokens"]), int(usage["output_tokens"]))) if usage else None


def _form(model: Model, order: TranscriptionOrder) -> aiohttp.FormData:
    form = aiohttp.FormData()
    form.add_field("model", _remote(model))
    # Who bills by time tells it with the segments' form only.
    form.add_field("response_format", "verbose_json" if model.bills is Bills.SECONDS else "json")
    if order.segments and model.bills is Bills.SECONDS:
        form.add_field("timestamp_granularities[]", "segment")
    for name, value in (("language", order.language), ("prompt", order.prompt)):
        if value:
            form.add_field(name, value)
    if order.temperature is not None:
        form.add_field("temperature", str(order.temperature))
    name = f"audio.{_EXTENSIONS[order.media_type]}"
    form.add_field("file", order.audio, filename=name, content_type=order.media_type)
    return form


def _transcript(found: Mapping[str, Any]) -> Transcript:
    duration = found.get("duration")
    return Transcript(
        text=_text(found["text"]),
        language=str(found.get("language") or ""),
        duration=timedelta(seconds=float(duration)) if duration is not None else None,
        segments=tuple(
            Segment(timedelta(seconds=one["start"]), timedelta(seconds=one["end"]), _text(one["text"]))
            for one in found.get("segments") or ()
        ),
    )


def _heard(model: Model, usage: Mapping[str, Any] | None, transcript: Transcript) -> Spent | None:
    if model.bills is Bills.SECONDS:
        told = usage["seconds"] if usage and usage.get("type") == "duration" else None
        lasted = transcript.duration.total_seconds() if transcript.duration else None
        heard = told if told is not None else lasted
        return None if heard is None else Spent(metered=Metered(audio_input=math.ceil(heard)))
    if not usage:
        return None
    audio = int((usage.get("input_token_details") or {}).get("audio_tokens") or 0)
    text = Usage(int(usage["input_tokens"]) - audio, int(usage["output_tokens"]))
    return Spent(text, Metered(audio_input=audio))


def _said(event: Mapping[str, Any]) -> bytes | Spent | None:
    match event.get("type"):
        case "speech.audio.delta":
            return base64.b64decode(event["audio"], validate=True)
        case "speech.audio.done":
            usage = event["usage"]
            return Spent(Usage(int(usage["input_tokens"]), 0), Metered(audio_output=int(usage["output_tokens"])))
    return None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value
