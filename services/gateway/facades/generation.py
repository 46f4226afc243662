"""What is asked, as inference's contract has it."""

from __future__ import annotations

import base64
import binascii
import mimetypes
from collections.abc import Mapping
from typing import Any, Final

from google.protobuf import json_format, struct_pb2

from agentnet.inference.v1 import inference_service_pb2 as pb
from agentnet.inference.v1 import message_pb2
from services.gateway.facades.ask import Ask, Clip, Message, Part, Role
from shared.errors import InvalidArgument

_SAMPLED: Final = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed")
_ROLES: Final = {
    Role.SYSTEM: message_pb2.ROLE_SYSTEM,
    Role.USER: message_pb2.ROLE_USER,
    Role.ASSISTANT: message_pb2.ROLE_ASSISTANT,
    Role.TOOL: message_pb2.ROLE_TOOL,
}
_MODES: Final = {
    "auto": message_pb2.TOOL_MODE_AUTO,
    "none": message_pb2.TOOL_MODE_NONE,
    "required": message_pb2.TOOL_MODE_REQUIRED,
}
_EFFORTS: Final = {
    "minimal": message_pb2.REASONING_EFFORT_LOW,
    "low": message_pb2.REASONING_EFFORT_LOW,
    "medium": message_pb2.REASONING_EFFORT_MEDIUM,
    "high": message_pb2.REASONING_EFFORT_HIGH,
}
_ANY_IMAGE: Final = "image/jpeg"
_ANY_FILM: Final = "video/mp4"


def generation(ask: Ask) -> pb.GenerateRequest:
    """The request. Raises InvalidArgument."""
    request = pb.GenerateRequest(
        generation_id=ask.generation_id,
        model=ask.model,
        messages=[_message(message, f"messages[{place}]") for place, message in enumerate(ask.messages)],
        max_output_tokens=ask.max_tokens,
        tools=[
            message_pb2.ToolDefinition(name=tool.name, description=tool.description, input_schema=_struct(tool.schema))
            for tool in ask.tools
        ],
        reasoning_effort=_EFFORTS.get(ask.effort, message_pb2.REASONING_EFFORT_UNSPECIFIED),
        packing=True,
    )
    if ask.tools:
        named = ask.tool_choice not in _MODES
        mode = message_pb2.TOOL_MODE_REQUIRED if named else _MODES[ask.tool_choice]
        request.tool_choice.CopyFrom(message_pb2.ToolChoice(mode=mode, name=ask.tool_choice if named else ""))
    if ask.schema is not None:
        request.response_format.json_schema.CopyFrom(_struct(ask.schema))
    for name in _SAMPLED:
        if (value := getattr(ask, name)) is not None:
            setattr(request.sampling, name, value)
    request.sampling.stop.extend(ask.stop)
    return request


def _message(message: Message, place: str) -> message_pb2.Message:
    if message.role is Role.TOOL:
        result = message_pb2.ToolResult(tool_call_id=message.answers, content=message.text)
        return message_pb2.Message(role=_ROLES[Role.TOOL], content=[message_pb2.ContentPart(tool_result=result)])
    content = [_part(part, place) for part in message.parts]
    for use in message.uses:
        call = message_pb2.ToolCall(id=use.id, name=use.name, arguments=use.arguments)
        content.append(message_pb2.ContentPart(tool_call=call))
    return message_pb2.Message(role=_ROLES[message.role], name=message.name, content=content)


def _part(part: Part, place: str) -> message_pb2.ContentPart:
    match part:
        case str():
            return message_pb2.ContentPart(text=part)
        case Clip():
            return _clip(part, place)
    if part.url:
        kind = mimetypes.guess_type(part.url)[0] or _ANY_IMAGE
        return message_pb2.ContentPart(image=message_pb2.Media(media_type=kind, url=part.url))
    image = message_pb2.Media(media_type=part.media_type, data=_decoded(part.data, "image", place))
    return message_pb2.ContentPart(image=image)


def _clip(clip: Clip, place: str) -> message_pb2.ContentPart:
    if clip.url:
        kind = mimetypes.guess_type(clip.url)[0] or _ANY_FILM
        return message_pb2.ContentPart(video=message_pb2.Video(media_type=kind, url=clip.url))
    data = _decoded(clip.data, clip.kind, place)
    if clip.kind == "video":
        return message_pb2.ContentPart(video=message_pb2.Video(media_type=clip.media_type, data=data))
    media = message_pb2.Media(media_type=clip.media_type, data=data, name=clip.name)
    sounds = clip.kind == "audio"
    return message_pb2.ContentPart(audio=media) if sounds else message_pb2.ContentPart(document=media)


def _decoded(data: str, what: str, place: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error:
        raise InvalidArgument(f"{place} holds data of the {what} that is not base64", field=place) from None


def _struct(value: Mapping[str, Any]) -> struct_pb2.Struct:
    return json_format.ParseDict(dict(value), struct_pb2.Struct())
