"""What a request for a response of OpenAI's asks, with what was said before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from services.gateway.facades import openai_chat, reading
from services.gateway.facades.ask import Ask, Message, Part, Role, Tool, ToolUse, Unsupported
from services.gateway.facades.reading import Object
from shared.errors import FieldRequired, InvalidArgument

_ROLES: Final = {
    "system": Role.SYSTEM, "developer": Role.SYSTEM, "user": Role.USER, "assistant": Role.ASSISTANT,
}  # fmt: skip
_TEXTS: Final = frozenset({"input_text", "output_text", "text"})
_UNSUPPORTED: Final[Mapping[str, tuple[Any, ...]]] = {"conversation": (), "prompt": (), "include": ([],)}
# Items that say nothing to a model.
_SILENT: Final = frozenset({"mcp_list_tools", "mcp_approval_request", "reasoning"})
_MOST_METADATA: Final = 16
_ALWAYS: Final = "always"
_NEVER: Final = "never"
# What a response repeats of its request, and what it says where that says nothing.
_REPEATED: Final[Mapping[str, Any]] = {
    "instructions": None, "max_output_tokens": None, "max_tool_calls": None, "metadata": {},
    "parallel_tool_calls": True, "previous_response_id": None, "reasoning": {"effort": None, "summary": None},
    "service_tier": "default", "store": True,
    "temperature": None, "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [], "top_p": None,
    "truncation": "disabled", "user": None,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class MeshTools:
    """The mesh itself as the MCP server of a request; of its tools those named, or all where none is."""

    label: str
    allowed: frozenset[str]
    asks: str | Mapping[str, frozenset[str]] = _ALWAYS
    """Whether the caller wants to be asked: "always", "never", or tools by those two."""

    def wants_to_know(self, tool: str) -> bool:
        if isinstance(self.asks, str):
            return self.asks == _ALWAYS
        return tool in self.asks[_ALWAYS] or tool not in self.asks[_NEVER]


@dataclass(frozen=True, slots=True)
class Approved:
    """A call of one of the mesh's tools that the caller was asked about and allows."""

    request_id: str
    use: ToolUse


@dataclass(frozen=True, slots=True)
class ResponseRequest:
    """One request. `items` are its input's, as they are listed; `repeated` is what the response tells of it again."""

    ask: Ask
    items: tuple[Object, ...]
    repeated: Object
    previous_id: str = ""
    stream: bool = False
    background: bool = False
    store: bool = True
    mesh: MeshTools | None = None
    approved: tuple[Approved, ...] = ()
    most_calls: int | None = None


def previous(data: Object) -> str:
    """The response it goes on from; empty: none."""
    return reading.text(data, "previous_response_id", default="")


def read(data: Object, generation_id: str, before: Sequence[Object] = ()) -> ResponseRequest:
    """With the items of what it goes on from. Raises InvalidArgument with the field as OpenAI names it."""
    reading.refuse(data, _UNSUPPORTED)
    background, store = reading.flag(data, "background"), data.get("store") is None or reading.flag(data, "store")
    if background and not store:
        raise InvalidArgument("Background mode requires store=true.", field="store")
    items = _listed(data, generation_id.partition("_")[2])
    messages, approved = _conversation(before, items)
    instructions = reading.text(data, "instructions", default="")
    system = (Message(Role.SYSTEM, (instructions,)),) if instructions else ()
    ask = Ask(
        model=reading.text(data, "model"),
        messages=(*system, *messages),
        max_tokens=reading.integer(data, "max_output_tokens") or 0,
        temperature=reading.number(data, "temperature"),
        top_p=reading.number(data, "top_p"),
        tools=tuple(tool for tool in reading.entries(data, "tools", _tool) if isinstance(tool, Tool)),
        tool_choice=_tool_choice(data),
        schema=openai_chat.schema_of(reading.inner(reading.inner(data, "text"), "format"), "text.format"),
        effort=reading.text(reading.inner(data, "reasoning"), "effort", default=""),
        generation_id=generation_id,
    )
    return ResponseRequest(
        ask=ask,
        items=items,
        repeated=_repeated(data),
        previous_id=previous(data),
        stream=reading.flag(data, "stream"),
        background=background,
        store=store,
        mesh=_mesh(data),
        approved=approved,
        most_calls=reading.integer(data, "max_tool_calls"),
    )


def _repeated(data: Object) -> Object:
    metadata = reading.inner(data, "metadata")
    if len(metadata) > _MOST_METADATA or not all(isinstance(value, str) for value in metadata.values()):
        raise InvalidArgument("metadata must be at most 16 pairs of strings", field="metadata")
    given = {name: value if data.get(name) is None else data[name] for name, value in _REPEATED.items()}
    return {**given, "model": data["model"]}


def _listed(data: Object, suffix: str) -> tuple[Object, ...]:
    given = data.get("input")
    if isinstance(given, str):
        given = [{"role": "user", "content": [{"type": "input_text", "text": given}]}]
    found = reading.entries({"input": given}, "input", lambda item, _: item)
    if not found:
        raise FieldRequired("input")
    return tuple(
        {"id": f"{'msg' if item.get('type', 'message') == 'message' else 'item'}_{suffix}_in{place}", "type": "message"}
        | {name: value for name, value in item.items() if name != "id" or value}
        for place, item in enumerate(found)
    )


def _conversation(
    before: Sequence[Object], items: Sequence[Object]
) -> tuple[tuple[Message, ...], tuple[Approved, ...]]:
    """What the model is told, and what may run before it is."""
    requests = {item.get("id"): item for item in (*before, *items) if item.get("type") == "mcp_approval_request"}
    found: list[Message] = []
    approved: list[Approved] = []
    for place, item in enumerate((*before, *items)):
        where = f"input[{place - len(before)}]" if place >= len(before) else "previous_response_id"
        if item.get("type") != "mcp_approval_response":
            found.extend(_messages(item, where))
            continue
        use = _asked(requests, item, where)
        if not reading.flag(item, "approve"):
            found.extend(_answered(use, "The caller declined this call."))
        elif place >= len(before):
            approved.append(Approved(reading.text(item, "approval_request_id"), use))
    return _turns(found), tuple(approved)


def _asked(requests: Mapping[Any, Object], answer: Object, place: str) -> ToolUse:
    name = reading.text(answer, "approval_request_id")
    if (request := requests.get(name)) is None:
        raise InvalidArgument(f"No approval request with id '{name}' found.", field=f"{place}.approval_request_id")
    return _use(request, "id")


def _use(item: Object, named: str) -> ToolUse:
    return ToolUse(*(reading.text(item, name) for name in (named, "name", "arguments")))


def _answered(use: ToolUse, result: str) -> tuple[Message, Message]:
    return Message(Role.ASSISTANT, (), uses=(use,)), Message(Role.TOOL, (result,), answers=use.id)


def _messages(data: Object, place: str) -> Iterator[Message]:
    match data.get("type", "message"):
        case "message":
            yield _said(data, place)
        case "function_call":
            yield Message(Role.ASSISTANT, (), uses=(_use(data, "call_id"),))
        case "function_call_output":
            yield Message(Role.TOOL, _parts(data, "output"), answers=reading.text(data, "call_id"))
        case "mcp_call":
            failed = reading.items(reading.inner(data, "error"), "content")
            why = "".join(str(part.get("text", "")) for part in failed if isinstance(part, dict))
            yield from _answered(_use(data, "id"), reading.text(data, "output", default=why))
        case other if other not in _SILENT:
            raise Unsupported(place, f"of type {other} is not supported by this mesh")


def _said(data: Object, place: str) -> Message:
    role = _ROLES.get(reading.text(data, "role"))
    if role is None:
        raise InvalidArgument(f"{place}.role must be one of {', '.join(_ROLES)}", field=f"{place}.role")
    return Message(role, _parts(data, "content"))


def _parts(data: Object, name: str) -> tuple[Part, ...]:
    given = data.get(name)
    return (given,) if isinstance(given, str) else reading.entries(data, name, _part)


def _turns(items: Sequence[Message]) -> tuple[Message, ...]:
    """Calls that stand together, and what was said before them, are one message of the assistant's."""
    found: list[Message] = []
    for item in items:
        last = found[-1] if found else None
        if item.uses and last and last.role is Role.ASSISTANT:
            found[-1] = replace(last, uses=(*last.uses, *item.uses))
        else:
            found.append(item)
    return tuple(found)


def _tool(data: Object, place: str) -> Tool | None:
    """A function of the caller's; None: the mesh's own tools. Tools that OpenAI runs itself are not here."""
    if data.get("type") == "mcp":
        return None
    if data.get("type") != "function":
        raise Unsupported(f"{place}.type", "must be function or mcp on this mesh")
    schema = reading.inner(data, "parameters") or {"type": "object", "properties": {}}
    return Tool(reading.text(data, "name"), reading.text(data, "description", default=""), schema)


def _mesh(data: Object) -> MeshTools | None:
    """The mesh is the one server: others are registered with it, where policy governs them."""
    found = [one for one in reading.entries(data, "tools", _served) if one]
    if len(found) > 1:
        raise Unsupported("tools", "may name the mesh once: it is the one MCP server here")
    return found[0] if found else None


def _served(data: Object, place: str) -> MeshTools | None:
    if data.get("type") != "mcp":
        return None
    for field in ("server_url", "connector_id", "authorization", "headers"):
        if data.get(field):
            raise Unsupported(
                f"{place}.{field}", "is not for the mesh's own tools; register other servers as tools of it"
            )
    allowed, asks = data.get("allowed_tools"), data.get("require_approval")
    label = reading.text(data, "server_label")
    names = _named({"allowed_tools": allowed}, "allowed_tools", place) if allowed is not None else frozenset()
    if isinstance(asks, dict):
        return MeshTools(
            label, names, {kind: _named(asks, kind, f"{place}.require_approval") for kind in (_ALWAYS, _NEVER)}
        )
    if asks not in {None, _ALWAYS, _NEVER}:
        raise InvalidArgument(f"{place}.require_approval must be always or never", field=f"{place}.require_approval")
    return MeshTools(label, names, asks or _ALWAYS)


def _named(data: Object, field: str, place: str) -> frozenset[str]:
    """Tools by name: a list, or a filter with one."""
    given = data.get(field)
    names = given.get("tool_names") if isinstance(given, dict) else given
    if not isinstance(names or [], list) or not all(isinstance(name, str) for name in names or ()):
        raise InvalidArgument(f"{place}.{field} must name tools", field=f"{place}.{field}")
    return frozenset(names or ())


def _tool_choice(data: Object) -> str:
    choice = data.get("tool_choice")
    if isinstance(choice, dict):
        return reading.text(choice, "name")
    return choice if choice in {"none", "required"} else "auto"


def _part(data: Object, place: str) -> Part:
    match data.get("type"):
        case kind if kind in _TEXTS:
            return reading.text(data, "text")
        case "input_image":
            return openai_chat.image(reading.text(data, "image_url"))
        case "input_file":
            return openai_chat.document(data, place)
        case other:
            raise Unsupported(place, f"of type {other} is not supported by this mesh")
