"""OpenAI's images and audio: what is asked, and the answers in the forms its clients know."""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final

from google.api import httpbody_pb2
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from agentnet.inference.v1 import media_service_pb2 as pb
from services.gateway.facades import http, reading
from services.gateway.facades.ask import Unsupported
from services.gateway.facades.media import Made
from services.gateway.facades.reading import Object
from shared.errors import FieldRequired, InvalidArgument, Reason

_NO_IMAGE: Final[Mapping[str, tuple[Any, ...]]] = {
    "response_format": ("b64_json",),
    "stream": (False,),
    "partial_images": (0,),
    "background": ("auto",),
    "output_format": ("png",),
    "output_compression": (100,),
    "style": ("vivid",),
}
_NO_SPEECH: Final[Mapping[str, tuple[Any, ...]]] = {"stream_format": ("audio",)}
_NO_TRANSCRIPT: Final[Mapping[str, tuple[Any, ...]]] = {
    "stream": ("false",), "include[]": (), "chunking_strategy": ("auto",), "timestamp_granularities[]": ("segment",),
}  # fmt: skip
_FORMS: Final = ("json", "text", "verbose_json", "srt", "vtt")
_TIMED: Final = ("verbose_json", "srt", "vtt")
_MAX_PART: Final = 32 * 1024
# What Python's table does not know, or by another name than inference.
_TYPES: Final = {
    ".wav": "audio/wav", ".mp3": "audio/mpeg", ".mpga": "audio/mpeg", ".mpeg": "audio/mpeg", ".m4a": "audio/mp4",
    ".mp4": "audio/mp4", ".webm": "audio/webm", ".ogg": "audio/ogg", ".oga": "audio/ogg", ".flac": "audio/flac",
}  # fmt: skip


def read_image(data: Object) -> pb.GenerateImagesRequest:
    """Raises InvalidArgument with the field as OpenAI names it."""
    reading.refuse(data, _NO_IMAGE)
    return pb.GenerateImagesRequest(
        model=reading.text(data, "model", default=""),
        prompt=reading.text(data, "prompt"),
        count=_small(reading.integer(data, "n")),
        size=_chosen(data, "size"),
        quality=_chosen(data, "quality"),
    )


def images(made: Made) -> Mapping[str, Any]:
    data = [
        {"b64_json": base64.b64encode(image.data).decode()}
        | ({"revised_prompt": image.revised_prompt} if image.revised_prompt else {})
        for image in made.images
    ]
    form = made.images[0].media_type.removeprefix("image/") if made.images else "png"
    return {"created": made.spent.time.seconds, "data": data, "output_format": form, "usage": _tokens(made.spent)}


async def read_transcription(body: httpbody_pb2.HttpBody) -> tuple[pb.TranscribeRequest, str]:
    """The request, and the form of the answer. Raises InvalidArgument."""
    async with _form(body) as found:
        texts = {name: value for name, value in found.multi_items() if isinstance(value, str)}
        sound = found.get("file")
        if not isinstance(sound, UploadFile):
            raise FieldRequired("file")
        media_type, audio = _media_type(sound), await sound.read()
    reading.refuse(texts, _NO_TRANSCRIPT)
    form = texts.get("response_format", "json")
    if form not in _FORMS:
        raise Unsupported("response_format", f"must be one of {', '.join(_FORMS)}")
    request = pb.TranscribeRequest(
        model=reading.text(texts, "model", default=""),
        audio=audio,
        media_type=media_type,
        language=texts.get("language", ""),
        prompt=texts.get("prompt", ""),
        segments=form in _TIMED,
    )
    if warm := texts.get("temperature"):
        request.temperature = _number(warm)
    return request, form


def transcript(found: pb.TranscribeResponse, form: str) -> httpbody_pb2.HttpBody:
    match form:
        case "json":
            return http.document({"text": found.text, "usage": _usage(found.spent)})
        case "verbose_json":
            return http.document(_verbose(found))
        case "srt":
            return _plain("\n".join(_cue(place, one, ",") for place, one in enumerate(_segments(found), start=1)))
        case "vtt":
            return _plain("WEBVTT\n\n" + "\n".join(_cue(0, one, ".") for one in _segments(found)))
    return _plain(f"{found.text}\n")


def read_speech(data: Object) -> pb.SpeakRequest:
    """Raises InvalidArgument with the field as OpenAI names it."""
    reading.refuse(data, _NO_SPEECH)
    return pb.SpeakRequest(
        model=reading.text(data, "model", default=""),
        text=reading.text(data, "input"),
        voice=reading.text(data, "voice"),
        format=reading.text(data, "response_format", default=""),
        speed=reading.number(data, "speed") or 0.0,
        instructions=reading.text(data, "instructions", default=""),
    )


@asynccontextmanager
async def _form(body: httpbody_pb2.HttpBody) -> AsyncIterator[FormData]:
    """Its fields in the block. Raises InvalidArgument."""

    async def whole() -> Any:
        yield body.data

    headers = Headers({"content-type": body.content_type})
    try:
        form = await MultiPartParser(headers, whole(), max_files=1, max_fields=32, max_part_size=_MAX_PART).parse()
    except (MultiPartException, KeyError) as error:
        message = "the body is not multipart/form-data"
        raise InvalidArgument(message, reason=Reason.ERROR_REASON_MESSAGE_MALFORMED) from error
    try:
        yield form
    finally:
        await form.close()


def _media_type(sound: UploadFile) -> str:
    """By the file's name, as OpenAI does; its declared type where the name says nothing."""
    name = (sound.filename or "").lower()
    known = next((kind for ending, kind in _TYPES.items() if name.endswith(ending)), None)
    return known or mimetypes.guess_type(name)[0] or sound.content_type or ""


def _verbose(found: pb.TranscribeResponse) -> Mapping[str, Any]:
    segments = [
        {"id": place, "start": _seconds(one.start), "end": _seconds(one.end), "text": one.text}
        for place, one in enumerate(_segments(found))
    ]
    return {
        "task": "transcribe", "language": found.language, "duration": _seconds(found.duration), "text": found.text,
        "segments": segments, "usage": _usage(found.spent),
    }  # fmt: skip


def _segments(found: pb.TranscribeResponse) -> Sequence[pb.TranscriptSegment]:
    """Its pieces; without them the whole is one."""
    return found.segments or [pb.TranscriptSegment(end=found.duration, text=found.text)]


def _cue(number: int, segment: pb.TranscriptSegment, point: str) -> str:
    head = f"{number}\n" if number else ""
    return f"{head}{_clock(segment.start, point)} --> {_clock(segment.end, point)}\n{segment.text.strip()}\n"


def _clock(span: Any, point: str) -> str:
    milliseconds = span.ToTimedelta() // timedelta(milliseconds=1)
    minutes, rest = divmod(milliseconds, 60_000)
    seconds, thousandths = divmod(rest, 1000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}{point}{thousandths:03}"


def _seconds(span: Any) -> float:
    return float(span.ToTimedelta().total_seconds())


def _usage(spent: pb.MediaSpent) -> Mapping[str, Any]:
    """By time where no token was counted, as OpenAI writes it."""
    if not (spent.usage.input_tokens or spent.usage.output_tokens):
        return {"type": "duration", "seconds": spent.audio_input_units}
    details = {"text_tokens": spent.usage.input_tokens, "audio_tokens": spent.audio_input_units}
    heard = spent.usage.input_tokens + spent.audio_input_units
    return {"type": "tokens", **_sums(heard, spent.usage.output_tokens), "input_token_details": details}


def _tokens(spent: pb.MediaSpent) -> Mapping[str, Any]:
    details = {"text_tokens": spent.usage.input_tokens, "image_tokens": 0}
    return {**_sums(spent.usage.input_tokens, spent.usage.output_tokens), "input_tokens_details": details}


def _sums(read: int, written: int) -> Mapping[str, int]:
    return {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}


def _chosen(data: Object, field: str) -> str:
    found = reading.text(data, field, default="")
    return "" if found == "auto" else found


def _small(count: int | None) -> int:
    """Beyond what the contract's field holds it is too many, whatever the number."""
    if count is not None and not 1 <= count <= 10:  # noqa: PLR2004 - inference's limit, and OpenAI's
        raise InvalidArgument("n must be from 1 to 10", field="n")
    return count or 0


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidArgument("temperature must be a number", field="temperature") from None


def _plain(text: str) -> httpbody_pb2.HttpBody:
    return httpbody_pb2.HttpBody(content_type="text/plain; charset=utf-8", data=text.encode())
