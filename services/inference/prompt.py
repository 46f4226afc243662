"""A prompt between the contract and the domain: messages, their parts, tools and the form of the answer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from google.protobuf import json_format, struct_pb2
from google.protobuf.duration_pb2 import Duration

from agentnet.inference.v1 import inference_service_pb2 as pb
from agentnet.inference.v1 import message_pb2
from services.inference import structured
from services.inference.providers.contract import (
    Film,
    Frame,
    Media,
    MediaKind,
    Message,
    Part,
    ReasoningEffort,
    ResponseFormat,
    Role,
    Sampling,
    Text,
    ToolCall,
    ToolChoice,
    ToolDefinition,
    ToolMode,
    ToolResult,
)
from shared import fields
from shared.errors import FieldRequired, FieldTooLong, InvalidArgument

_MAX_MESSAGES: Final = 512
_MAX_PARTS: Final = 64
_MAX_PROMPT: Final = 1_048_576
_MAX_PART: Final = 262_144
_MAX_MEDIA: Final = 3 * 1024 * 1024
_MAX_FILM: Final = 12 * 1024 * 1024
_MAX_FRAMES: Final = 64
_LONGEST_FILM: Final = 86_400  # seconds
_MAX_TOOLS: Final = 128
_MAX_SCHEMA: Final = 65_536
_FUNCTION: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FUNCTION_FORM: Final = "letters, digits, _ and -, at most 64 characters"
_IMAGES: Final = ("image/png", "image/jpeg", "image/gif", "image/webp")
_SOUNDS: Final = ("audio/wav", "audio/mpeg")
_MEDIA: Final = {"image": _IMAGES, "audio": _SOUNDS}
_FILMS: Final = ("video/mp4", "video/webm", "video/quicktime", "video/mpeg")
_PLAIN: Final = ("text/plain", "text/markdown")
_DOCUMENTS: Final = (
    "application/pdf",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
)
Place = tuple[int, int]
"""Of a part: its message's number and its own."""
_ROLES: Final = {
    message_pb2.ROLE_SYSTEM: Role.SYSTEM,
    message_pb2.ROLE_USER: Role.USER,
    message_pb2.ROLE_ASSISTANT: Role.ASSISTANT,
    message_pb2.ROLE_TOOL: Role.TOOL,
}
_BELONGS: Final = {
    "image": Role.USER,
    "audio": Role.USER,
    "video": Role.USER,
    "document": Role.USER,
    "tool_call": Role.ASSISTANT,
    "tool_result": Role.TOOL,
}
_MODES: Final = {
    message_pb2.TOOL_MODE_UNSPECIFIED: ToolMode.AUTO,
    message_pb2.TOOL_MODE_AUTO: ToolMode.AUTO,
    message_pb2.TOOL_MODE_NONE: ToolMode.NONE,
    message_pb2.TOOL_MODE_REQUIRED: ToolMode.REQUIRED,
}
_EFFORTS: Final = {
    message_pb2.REASONING_EFFORT_LOW: ReasoningEffort.LOW,
    message_pb2.REASONING_EFFORT_MEDIUM: ReasoningEffort.MEDIUM,
    message_pb2.REASONING_EFFORT_HIGH: ReasoningEffort.HIGH,
}


@dataclass(frozen=True, slots=True)
class Attached:
    """A document of a prompt, before anyone read it: its place and its field."""

    place: Place
    media: message_pb2.Media
    field: str

    @property
    def plain(self) -> bool:
        """Whether it is text already."""
        return self.media.media_type in _PLAIN


def documents(found: Sequence[message_pb2.Message]) -> list[Attached]:
    """The documents of a prompt, small enough and of a kind that is read."""
    held = [
        Attached((number, place), part.document, f"messages[{number}].content[{place}].document")
        for number, message in enumerate(found[:_MAX_MESSAGES])
        for place, part in enumerate(message.content[:_MAX_PARTS])
        if part.HasField("document")
    ]
    for one in held:
        if one.media.media_type not in (*_PLAIN, *_DOCUMENTS):
            known = ", ".join((*_DOCUMENTS, *_PLAIN))
            raise InvalidArgument(f"media_type is one of {known}", field=f"{one.field}.media_type")
        if not one.media.data:
            raise FieldRequired(f"{one.field}.data")
        _small(one.media, one.field)
    return held


def plain_text(document: Attached) -> str:
    """The text of a document that is text already."""
    try:
        return document.media.data.decode()
    except UnicodeDecodeError:
        raise InvalidArgument("the document is not UTF-8", field=f"{document.field}.data") from None


def messages(found: Sequence[message_pb2.Message], texts: Mapping[Place, str]) -> tuple[Message, ...]:
    """The prompt; `texts` are those of its documents."""
    if not found:
        raise FieldRequired("messages")
    fields.at_most(len(found), "messages", limit=_MAX_MESSAGES)
    read = tuple(_message(message, place, texts) for place, message in enumerate(found))
    if (length := sum(len(message.text) for message in read)) > _MAX_PROMPT:
        raise FieldTooLong("messages", length=length, limit=_MAX_PROMPT)
    return read


def sampling(found: message_pb2.Sampling) -> Sampling:
    def optional(name: str, low: float, high: float) -> float | None:
        if not found.HasField(name):  # type: ignore[arg-type]
            return None
        return fields.within(getattr(found, name), f"sampling.{name}", low=low, high=high)

    fields.at_most(len(found.stop), "sampling.stop", limit=4)
    return Sampling(
        temperature=optional("temperature", 0, 2),
        top_p=optional("top_p", 0, 1),
        presence_penalty=optional("presence_penalty", -2, 2),
        frequency_penalty=optional("frequency_penalty", -2, 2),
        seed=found.seed if found.HasField("seed") else None,
        stop=tuple(found.stop),
    )


def tools(found: Sequence[message_pb2.ToolDefinition]) -> tuple[ToolDefinition, ...]:
    fields.at_most(len(found), "tools", limit=_MAX_TOOLS)
    read = tuple(
        ToolDefinition(
            name=fields.matching(tool.name, f"tools[{place}].name", _FUNCTION, form=_FUNCTION_FORM),
            description=fields.text(tool.description, f"tools[{place}].description", limit=4096),
            input_schema=_schema(tool.input_schema, f"tools[{place}].input_schema") or {"type": "object"},
        )
        for place, tool in enumerate(found)
    )
    names = [tool.name for tool in read]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InvalidArgument(f"the tool {twice} is given twice", field=f"tools[{names.index(twice)}].name")
    return read


def tool_choice(request: pb.GenerateRequest) -> ToolChoice:
    found = request.tool_choice
    choice = ToolChoice(_MODES.get(found.mode, ToolMode.AUTO), found.name)
    if choice.mode is ToolMode.REQUIRED and not request.tools:
        raise InvalidArgument("there are no tools to choose from", field="tool_choice.mode")
    known = choice.mode is ToolMode.REQUIRED and any(choice.name == tool.name for tool in request.tools)
    if choice.name and not known:
        raise InvalidArgument("name is one of the tools, with TOOL_MODE_REQUIRED only", field="tool_choice.name")
    return choice


def response_format(request: pb.GenerateRequest) -> ResponseFormat | None:
    if not request.HasField("response_format"):
        return None
    found = request.response_format
    name = found.name and fields.matching(found.name, "response_format.name", _FUNCTION, form=_FUNCTION_FORM)
    schema = _schema(found.json_schema, "response_format.json_schema")
    if not schema:
        raise FieldRequired("response_format.json_schema")
    return ResponseFormat(name or "answer", schema)


def reasoning_effort(found: message_pb2.ReasoningEffort.ValueType) -> ReasoningEffort | None:
    return _EFFORTS.get(found)


def _schema(found: struct_pb2.Struct, where: str) -> dict[str, Any]:
    schema: dict[str, Any] = whole_numbers(json_format.MessageToDict(found))
    if (length := len(json.dumps(schema))) > _MAX_SCHEMA:
        raise FieldTooLong(where, length=length, limit=_MAX_SCHEMA)
    if schema and (why := structured.check_schema(schema)):
        raise InvalidArgument(f"{where} is no JSON Schema: {why}", field=where)
    return schema


def whole_numbers(value: Any) -> Any:
    """Struct knows only doubles; schemas and arguments mean whole numbers by them where they can."""
    match value:
        case dict():
            return {key: whole_numbers(held) for key, held in value.items()}
        case list():
            return [whole_numbers(held) for held in value]
        case float() if value.is_integer():
            return int(value)
    return value


def _message(message: message_pb2.Message, number: int, texts: Mapping[Place, str]) -> Message:
    where = f"messages[{number}]"
    role = _ROLES.get(message.role)
    if role is None:
        raise InvalidArgument("role is required", field=f"{where}.role")
    fields.at_most(len(message.content), f"{where}.content", limit=_MAX_PARTS)
    parts = tuple(
        _part(part, role, f"{where}.content[{place}]", texts.get((number, place), ""))
        for place, part in enumerate(message.content)
    )
    read = Message(role, parts, fields.text(message.name, f"{where}.name", limit=64))
    if not (read.text or read.media or read.films or read.tool_calls or read.tool_results):
        raise FieldRequired(f"{where}.content")
    if role is Role.TOOL and len(read.tool_results) < len(parts):
        raise InvalidArgument("messages of the tool hold tool results only", field=f"{where}.content")
    return read


def _part(part: message_pb2.ContentPart, role: Role, where: str, document: str) -> Part:
    kind = part.WhichOneof("part") or "text"
    if _BELONGS.get(kind, role) is not role:
        raise InvalidArgument(f"{kind} belongs in messages of the {_BELONGS[kind].value}", field=f"{where}.{kind}")
    match kind:
        case "image" | "audio":
            return _media(getattr(part, kind), MediaKind(kind), _MEDIA[kind], f"{where}.{kind}")
        case "video":
            return _film(part.video, f"{where}.video")
        case "document":
            return _document(part.document, f"{where}.document", document)
        case "tool_call":
            return _tool_call(part.tool_call, f"{where}.tool_call")
        case "tool_result":
            return _tool_result(part.tool_result, f"{where}.tool_result")
    return Text(fields.text(part.text, f"{where}.text", limit=_MAX_PART))


def _media(media: message_pb2.Media, kind: MediaKind, types: Sequence[str], where: str) -> Media:
    if media.media_type not in types:
        raise InvalidArgument(f"media_type is one of {', '.join(types)}", field=f"{where}.media_type")
    if media.url and (kind is MediaKind.AUDIO or not media.url.startswith("https://")):
        raise InvalidArgument("url is an https address, and sounds have none", field=f"{where}.url")
    if not media.url and not media.data:
        raise FieldRequired(f"{where}.data")
    _small(media, where, limit=_MAX_FILM if kind is MediaKind.VIDEO else _MAX_MEDIA)
    name = fields.text(media.name, f"{where}.name", limit=256)
    return Media(kind, media.media_type, media.data, fields.text(media.url, f"{where}.url", limit=2048), name)


def _film(video: message_pb2.Video, where: str) -> Film:
    fields.at_most(len(video.frames), f"{where}.frames", limit=_MAX_FRAMES)
    frames = tuple(
        Frame(
            _media(frame.image, MediaKind.IMAGE, _IMAGES, f"{where}.frames[{place}].image"),
            _moment(frame.time, f"{where}.frames[{place}].time"),
        )
        for place, frame in enumerate(video.frames)
    )
    whole = message_pb2.Media(media_type=video.media_type, name=video.name)
    if video.url:
        whole.url = video.url
    else:
        whole.data = video.data
    given = video.WhichOneof("source") or not frames
    media = _media(whole, MediaKind.VIDEO, _FILMS, where) if given else None
    return Film(media, frames, fields.text(video.name, f"{where}.name", limit=256))


def _moment(time: Duration, field: str) -> timedelta:
    fields.within(time.seconds, field, low=0, high=_LONGEST_FILM)
    return timedelta(seconds=time.seconds, microseconds=time.nanos // 1000)


def _document(media: message_pb2.Media, where: str, text: str) -> Text:
    name = fields.text(media.name, f"{where}.name", limit=256)
    return Text(f"[{name or 'document'}]\n{fields.text(text, where, limit=_MAX_PROMPT)}\n")


def _small(media: message_pb2.Media, where: str, *, limit: int = _MAX_MEDIA) -> None:
    if len(media.data) > limit:
        raise FieldTooLong(f"{where}.data", length=len(media.data), limit=limit, unit="bytes")


def _tool_result(result: message_pb2.ToolResult, where: str) -> ToolResult:
    return ToolResult(
        fields.required(result.tool_call_id, f"{where}.tool_call_id", limit=64),
        fields.text(result.content, f"{where}.content", limit=_MAX_PART),
        is_error=result.is_error,
    )


def _tool_call(call: message_pb2.ToolCall, where: str) -> ToolCall:
    arguments = fields.text(call.arguments, f"{where}.arguments", limit=_MAX_PART) or "{}"
    try:
        read = json.loads(arguments)
    except ValueError:
        read = None
    if not isinstance(read, dict):
        raise InvalidArgument("arguments are a JSON object", field=f"{where}.arguments")
    name = fields.matching(call.name, f"{where}.name", _FUNCTION, form=_FUNCTION_FORM)
    return ToolCall(fields.required(call.id, f"{where}.id", limit=64), name, arguments)
