"""Between the contract and the studio."""

from __future__ import annotations

import re
from typing import Final

from agentnet.common.v1 import usage_pb2
from agentnet.inference.v1 import media_service_pb2 as pb
from services.inference.convert import MAX_OVERRIDE, bundles
from services.inference.media.contract import ImageOrder, Picture, SpeechOrder, Transcript, TranscriptionOrder
from services.inference.media.studio import Receipt
from services.inference.peers import Payer
from shared import fields
from shared.errors import FieldRequired, FieldTooLong, InvalidArgument
from shared.identity import Principal

_MAX_PROMPT: Final = 32_000
_MAX_COUNT: Final = 10
_MAX_AUDIO: Final = 12 * 1024 * 1024
_MAX_TEXT: Final = 4096
_SOUNDS: Final = ("audio/wav", "audio/mpeg", "audio/mp4", "audio/webm", "audio/ogg", "audio/flac")
_SPOKEN: Final = {
    "mp3": "audio/mpeg", "wav": "audio/wav", "opus": "audio/ogg", "aac": "audio/aac", "flac": "audio/flac",
    "pcm": "audio/pcm",
}  # fmt: skip
_WORD: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_FORM: Final = "letters, digits, `.`, `_` and `-`, at most 64"
_LANGUAGE: Final = re.compile(r"[a-z]{2,3}(-[A-Za-z]{2,4})?")


def model(name: str) -> str:
    return fields.text(name, "model", limit=128)


def payer(principal: Principal, generation_id: str, found: pb.Attribution) -> Payer:
    return Payer(
        principal, generation_id, "", "",
        session_id=fields.text(found.session_id, "attribution.session_id", limit=64),
        agent=fields.text(found.agent, "attribution.agent", limit=100),
        turn_id=generation_id,
        team=fields.text(found.team, "attribution.team", limit=100),
        sub_agent=fields.text(found.sub_agent, "attribution.sub_agent", limit=255),
    )  # fmt: skip


def bundles_and_override(found: pb.Attribution) -> tuple[tuple[str, ...], str]:
    token = fields.text(found.override_token, "attribution.override_token", limit=MAX_OVERRIDE)
    return bundles(found.bundles, "attribution.bundles"), token


def images(request: pb.GenerateImagesRequest) -> ImageOrder:
    return ImageOrder(
        prompt=fields.required(request.prompt, "prompt", limit=_MAX_PROMPT),
        count=int(fields.within(request.count or 1, "count", low=1, high=_MAX_COUNT)),
        size=_word(request.size, "size"),
        quality=_word(request.quality, "quality"),
    )


def image_response(found: Picture | Receipt) -> pb.GenerateImagesResponse:
    if isinstance(found, Receipt):
        return pb.GenerateImagesResponse(spent=spent(found))
    image = pb.GeneratedImage(media_type=found.media_type, data=found.data, revised_prompt=found.revised_prompt)
    return pb.GenerateImagesResponse(image=image)


def transcription(request: pb.TranscribeRequest) -> TranscriptionOrder:
    if not request.audio:
        raise FieldRequired("audio")
    if len(request.audio) > _MAX_AUDIO:
        raise FieldTooLong("audio", length=len(request.audio), limit=_MAX_AUDIO, unit="bytes")
    if request.media_type not in _SOUNDS:
        raise InvalidArgument(f"media_type is one of {', '.join(_SOUNDS)}", field="media_type")
    warm = fields.within(request.temperature, "temperature", low=0, high=1)
    return TranscriptionOrder(
        audio=request.audio,
        media_type=request.media_type,
        language=request.language and fields.matching(request.language, "language", _LANGUAGE, form="ISO 639-1"),
        prompt=fields.text(request.prompt, "prompt", limit=_MAX_TEXT),
        segments=request.segments,
        temperature=warm if request.HasField("temperature") else None,
    )


def transcript(found: Transcript, receipt: Receipt) -> pb.TranscribeResponse:
    response = pb.TranscribeResponse(text=found.text, language=found.language, spent=spent(receipt))
    if found.duration is not None:
        response.duration.FromTimedelta(found.duration)
    for segment in found.segments:
        added = response.segments.add(text=segment.text)
        added.start.FromTimedelta(segment.start)
        added.end.FromTimedelta(segment.end)
    return response


def speech(request: pb.SpeakRequest) -> SpeechOrder:
    form = request.format or "mp3"
    if form not in _SPOKEN:
        raise InvalidArgument(f"format is one of {', '.join(_SPOKEN)}", field="format")
    return SpeechOrder(
        text=fields.required(request.text, "text", limit=_MAX_TEXT),
        voice=fields.matching(fields.required(request.voice, "voice", limit=64), "voice", _WORD, form=_FORM),
        format=form,
        speed=fields.within(request.speed, "speed", low=0.25, high=4) if request.speed else 0.0,
        instructions=fields.text(request.instructions, "instructions", limit=_MAX_TEXT),
    )


def spoken(form: str, found: bytes | Receipt) -> pb.SpeakResponse:
    if isinstance(found, Receipt):
        return pb.SpeakResponse(spent=spent(found))
    return pb.SpeakResponse(audio=pb.SpokenAudio(media_type=_SPOKEN[form], data=found))


def spent(receipt: Receipt) -> pb.MediaSpent:
    usage, metered = receipt.spent.usage, receipt.spent.metered
    found = pb.MediaSpent(
        generation_id=receipt.generation_id,
        model=receipt.model.name,
        usage=usage_pb2.Usage(
            input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, estimated=usage.estimated
        ),
        images=metered.images,
        audio_input_units=metered.audio_input,
        audio_output_units=metered.audio_output,
    )
    found.time.FromDatetime(receipt.at)
    if receipt.micros_usd is not None:
        found.cost.CopyFrom(
            usage_pb2.Cost(
                micros_usd=receipt.micros_usd,
                provider=receipt.model.provider,
                model=receipt.model.name,
                price_version=receipt.price_version,
            )
        )
    return found


def _word(value: str, field: str) -> str:
    return value and fields.matching(value, field, _WORD, form=_FORM)
