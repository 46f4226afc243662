"""Between the contract and the registry."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from google.protobuf import json_format, struct_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from agentnet.inference.v1 import message_pb2, prompt_pb2
from agentnet.inference.v1 import prompt_service_pb2 as pb
from services.inference.prompts import template
from services.inference.prompts.content import REQUIRED, Content, Template, Variable, VariableType
from services.inference.prompts.diff import ChangeKind, Difference
from services.inference.prompts.filling import shown
from services.inference.prompts.registry import Rendered
from services.inference.prompts.resolution import DIGEST, LABEL, LATEST, NUMBER, Reference, Target
from services.inference.prompts.store import PromptGeneration, PromptVersion
from services.inference.providers.contract import Role
from shared import fields
from shared.errors import FieldRequired, FieldTooLong, InvalidArgument
from shared.paging import Page, next_page_token, page

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_NAME_FORM: Final = "letters, digits, _, . and -, at most 64 characters"
_LABEL_FORM: Final = "a letter, then lower-case letters, digits and -, at most 32 characters, not latest and no digest"
_VERSION_FORM: Final = "a number or 12 to 64 digits of a digest"
_MAX_MESSAGES: Final = 64
_MAX_TEMPLATES: Final = 262_144
_MAX_LINES: Final = 10_000
_MAX_VARIABLES: Final = 64
_MAX_VALUES: Final = 262_144
_MAX_COMMENT: Final = 500
_MAX_LABELS: Final = 8
_MAX_TARGETS: Final = 10
_MAX_WEIGHT: Final = 1_000_000
_MAX_KEY: Final = 256
_ROLES: Final = {
    message_pb2.ROLE_SYSTEM: Role.SYSTEM,
    message_pb2.ROLE_USER: Role.USER,
    message_pb2.ROLE_ASSISTANT: Role.ASSISTANT,
}
_TO_ROLE: Final = {role: value for value, role in _ROLES.items()}
_TYPES: Final = {
    prompt_pb2.PROMPT_VARIABLE_TYPE_STRING: VariableType.STRING,
    prompt_pb2.PROMPT_VARIABLE_TYPE_INTEGER: VariableType.INTEGER,
    prompt_pb2.PROMPT_VARIABLE_TYPE_NUMBER: VariableType.NUMBER,
    prompt_pb2.PROMPT_VARIABLE_TYPE_BOOLEAN: VariableType.BOOLEAN,
    prompt_pb2.PROMPT_VARIABLE_TYPE_STRING_LIST: VariableType.STRING_LIST,
    prompt_pb2.PROMPT_VARIABLE_TYPE_JSON: VariableType.JSON,
}
_TO_TYPE: Final = {kind: value for value, kind in _TYPES.items()}
_KINDS: Final = {
    ChangeKind.ADDED: prompt_pb2.PROMPT_CHANGE_KIND_ADDED,
    ChangeKind.REMOVED: prompt_pb2.PROMPT_CHANGE_KIND_REMOVED,
    ChangeKind.CHANGED: prompt_pb2.PROMPT_CHANGE_KIND_CHANGED,
}


@dataclass(frozen=True, slots=True)
class Listing:
    """A parsed list: which rows, and what its page tokens are bound to."""

    page: Page
    scope: str


def name(value: str) -> str:
    return fields.matching(value, "name", _NAME, form=_NAME_FORM)


def label(value: str, field: str = "label") -> str:
    return fields.matching(value, field, LABEL, form=_LABEL_FORM)


def reference(value: str, field: str = "reference") -> Reference:
    """`greeting@staging` into its parts."""
    prompt, at, version = value.partition("@")
    fields.matching(prompt, field, _NAME, form=f"a name of {_NAME_FORM}, and perhaps @ and a version")
    if at and version != LATEST and not any(one.fullmatch(version) for one in (LABEL, NUMBER, DIGEST)):
        raise InvalidArgument(f"behind the @ of {field} stands a label, latest, or {_VERSION_FORM}", field=field)
    return Reference(prompt, version)


def version(value: str, field: str = "version") -> str:
    """A version by number or digest."""
    if not (NUMBER.fullmatch(value) or DIGEST.fullmatch(value)):
        raise InvalidArgument(f"{field} must be {_VERSION_FORM}", field=field)
    return value


def key(value: str) -> str:
    return fields.text(value, "key", limit=_MAX_KEY)


def comment(request: pb.CreatePromptRequest) -> str:
    return fields.text(request.comment, "comment", limit=_MAX_COMMENT)


def labels(request: pb.CreatePromptRequest) -> tuple[str, ...]:
    fields.at_most(len(request.labels), "labels", limit=_MAX_LABELS)
    return tuple(label(one, "labels") for one in request.labels)


def content(message: prompt_pb2.PromptContent) -> Content:
    if not message.messages:
        raise FieldRequired("content.messages")
    fields.at_most(len(message.messages), "content.messages", limit=_MAX_MESSAGES)
    fields.at_most(len(message.variables), "content.variables", limit=_MAX_VARIABLES)
    messages = tuple(_template(one, f"content.messages[{place}]") for place, one in enumerate(message.messages))
    if (length := sum(len(one.text) for one in messages)) > _MAX_TEMPLATES:
        raise FieldTooLong("content.messages", length=length, limit=_MAX_TEMPLATES)
    if (lines := sum(one.text.count("\n") + 1 for one in messages)) > _MAX_LINES:
        raise FieldTooLong("content.messages", length=lines, limit=_MAX_LINES, unit="lines")
    variables = [_variable(one, f"content.variables[{place}]") for place, one in enumerate(message.variables)]
    if len({one.name for one in variables}) < len(variables):
        raise InvalidArgument("a variable is declared twice", field="content.variables")
    by_name = tuple(sorted(variables, key=lambda one: one.name))
    return Content(messages, by_name, fields.mapping(message.config, "content.config"))


def targets(request: pb.LabelPromptRequest) -> list[tuple[str, int]]:
    """Versions and weights."""
    fields.at_most(len(request.targets), "targets", limit=_MAX_TARGETS)
    return [
        (
            version(one.version, f"targets[{place}].version"),
            int(fields.within(one.weight or 1, f"targets[{place}].weight", low=1, high=_MAX_WEIGHT)),
        )
        for place, one in enumerate(request.targets)
    ]


def values(request: pb.RenderRequest) -> dict[str, object]:
    return fields.mapping(request.variables, "variables", limit=_MAX_VALUES)


def generation_id(request: pb.RenderRequest) -> str:
    return fields.identifier(request.generation_id, "generation_id") if request.generation_id else ""


def listing(page_size: int, page_token: str, *scope: str) -> Listing:
    bound = "|".join(("prompts", *scope))
    return Listing(page(page_size, page_token, scope=bound), bound)


def prompts_response(found: Sequence[PromptVersion], asked: Listing) -> pb.ListPromptsResponse:
    rows = found[: asked.page.size]
    more = (rows[-1].name,) if len(found) > len(rows) else None
    token = next_page_token(more, scope=asked.scope)
    return pb.ListPromptsResponse(prompts=[prompt_version(one) for one in rows], next_page_token=token)


def versions_response(found: Sequence[PromptVersion], asked: Listing) -> pb.ListVersionsResponse:
    rows = found[: asked.page.size]
    more = (str(rows[-1].number),) if len(found) > len(rows) else None
    token = next_page_token(more, scope=asked.scope)
    return pb.ListVersionsResponse(versions=[prompt_version(one) for one in rows], next_page_token=token)


def generations_response(found: Sequence[PromptGeneration], asked: Listing) -> pb.ListPromptGenerationsResponse:
    rows = found[: asked.page.size]
    more = (rows[-1].created_at.isoformat(), rows[-1].generation_id) if len(found) > len(rows) else None
    token = next_page_token(more, scope=asked.scope)
    return pb.ListPromptGenerationsResponse(generations=[_generation(one) for one in rows], next_page_token=token)


def prompt_response(found: PromptVersion, pointed: Mapping[str, Sequence[Target]]) -> pb.GetPromptResponse:
    return pb.GetPromptResponse(
        version=prompt_version(found), labels=[prompt_label(label, targets) for label, targets in pointed.items()]
    )


def diff_response(found: Difference) -> pb.DiffResponse:
    return pb.DiffResponse(
        before_digest=found.before_digest,
        after_digest=found.after_digest,
        changes=[
            prompt_pb2.PromptChange(path=one.path, kind=_KINDS[one.kind], before=one.before, after=one.after)
            for one in found.changes
        ],
        unified=found.unified,
    )


def render_response(found: Rendered) -> pb.RenderResponse:
    whole = prompt_version(found.version)
    whole.ClearField("content")
    return pb.RenderResponse(
        messages=[
            message_pb2.Message(
                role=_TO_ROLE[one.role], content=[message_pb2.ContentPart(text=one.text)], name=one.name
            )
            for one in found.messages
        ],
        version=whole,
        config=fields.struct(dict(found.version.content.config)),
    )


def prompt_label(label: str, targets: Sequence[Target]) -> prompt_pb2.PromptLabel:
    shown = [prompt_pb2.PromptTarget(version=one.digest, weight=one.weight) for one in targets]
    return prompt_pb2.PromptLabel(label=label, targets=shown)


def prompt_version(found: PromptVersion) -> prompt_pb2.PromptVersion:
    return prompt_pb2.PromptVersion(
        name=found.name,
        digest=found.digest,
        number=found.number,
        content=_content(found.content),
        labels=found.labels,
        comment=found.comment,
        author=found.author,
        create_time=_time(found.created_at),
        reference=found.reference,
    )


def _template(message: prompt_pb2.PromptMessage, where: str) -> Template:
    role = _ROLES.get(message.role)
    if role is None:
        raise InvalidArgument("role is required", field=f"{where}.role")
    text = fields.required(message.template, f"{where}.template", limit=_MAX_TEMPLATES)
    return Template(role, text, fields.text(message.name, f"{where}.name", limit=64))


def _variable(message: prompt_pb2.PromptVariable, where: str) -> Variable:
    kind = _TYPES.get(message.type)
    if kind is None:
        raise InvalidArgument("type is required", field=f"{where}.type")
    form = "a letter, then letters, digits and _, at most 64 characters"
    called = fields.matching(message.name, f"{where}.name", template.NAME, form=form)
    if called in template.RESERVED:
        raise InvalidArgument(f"{called} is a word of the template language", field=f"{where}.name")
    description = fields.text(message.description, f"{where}.description", limit=500)
    found = Variable(called, kind, description, _default(message, f"{where}.default_value"))
    if found.default is not REQUIRED:
        shown(found, found.default, field=f"{where}.default_value")
    return found


def _default(message: prompt_pb2.PromptVariable, where: str) -> object:
    if not message.HasField("default_value"):
        return REQUIRED
    if message.default_value.WhichOneof("kind") is None:
        raise InvalidArgument("an empty value is no JSON", field=where)
    return fields.mapping(struct_pb2.Struct(fields={"it": message.default_value}), where)["it"]


def _content(found: Content) -> prompt_pb2.PromptContent:
    return prompt_pb2.PromptContent(
        messages=[
            prompt_pb2.PromptMessage(role=_TO_ROLE[one.role], template=one.text, name=one.name)
            for one in found.messages
        ],
        variables=[_declared(one) for one in found.variables],
        config=fields.struct(dict(found.config)),
    )


def _declared(one: Variable) -> prompt_pb2.PromptVariable:
    message = prompt_pb2.PromptVariable(name=one.name, type=_TO_TYPE[one.type], description=one.description)
    if one.default is not REQUIRED:
        json_format.ParseDict(one.default, message.default_value)  # type: ignore[arg-type]  # a Value takes any JSON
    return message


def _generation(one: PromptGeneration) -> pb.PromptGeneration:
    return pb.PromptGeneration(
        generation_id=one.generation_id,
        name=one.name,
        digest=one.digest,
        label=one.label,
        create_time=_time(one.created_at),
    )


def _time(value: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(value)
    return stamp
