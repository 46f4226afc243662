"""Between the contract and the registry."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from google.protobuf import json_format, struct_pb2

from agentnet.tools.v1 import artefact_pb2, tool_pb2
from agentnet.tools.v1 import tool_service_pb2 as pb
from services.tools import convert_governance as governance
from services.tools import sanitise
from services.tools.answer import ARTEFACT_NAME, EMITTED, Outcome, Status
from services.tools.convert_targets import put_target, target
from services.tools.errors import FunctionFailed, ToolFailed, ToolOutcomeUnknown, ToolUnreachable
from services.tools.executor import Isolation
from services.tools.flow import Request
from services.tools.registry import Wanted
from services.tools.store import Function, Quota, Tool
from services.tools.validation import DEFAULT_IMPORTS
from shared import fields
from shared.errors import FieldRequired, InvalidArgument, MeshError
from shared.paging import next_page_token, page

PYTHON: Final = "python"
MODES: Final = ("python", "external_api", "grpc", "sql", "mcp", "shell", "wasm", "retrieval")
_MAX_CODE: Final = 262_144
_MAX_MEMORY_MIB: Final = 4096
_DEFAULT_MEMORY_MIB: Final = 512
_DEFAULT_TIMEOUT: Final = timedelta(seconds=30)
_MAX_TIMEOUT: Final = timedelta(minutes=10)
_NAME_FORM: Final = "a letter, then letters, digits, _ or -, at most 64 characters"
_HOST: Final = re.compile(r"(\*\.)?[a-z0-9]([a-z0-9.-]{0,250}[a-z0-9])?")
_SCHEMA_LIMIT: Final = 65_536
_MAX_RATE: Final = 1_000_000
_MAX_QUOTA: Final = 1_000_000_000_000
_MAX_CACHE_TTL: Final = timedelta(days=1)
STREAMS: Final = {"stdout": pb.OUTPUT_STREAM_STDOUT, "stderr": pb.OUTPUT_STREAM_STDERR}


def new_tool(found: tool_pb2.Tool, now: datetime) -> Tool:
    name = fields.matching(found.name, "tool.name", fields.NAME, form=_NAME_FORM)
    version = fields.matching(
        found.version or "1.0.0", "tool.version", fields.VERSION, form="a semantic version such as 1.0.0"
    )
    if found.exec_mode not in MODES:
        raise InvalidArgument(f"exec_mode is one of {', '.join(MODES)}", field="tool.exec_mode")
    if found.exec_mode == PYTHON and not found.HasField("function"):
        raise FieldRequired("tool.function")
    return Tool(
        name=name,
        version=version,
        description=fields.text(found.description, "tool.description", limit=1000),
        input_schema=fields.mapping(found.input_schema, "tool.input_schema", limit=_SCHEMA_LIMIT) or {"type": "object"},
        output_schema=fields.mapping(found.output_schema, "tool.output_schema", limit=_SCHEMA_LIMIT) or None,
        rate_limit_per_min=_number(found, "rate_limit_per_min", high=_MAX_RATE),
        exec_mode=found.exec_mode,
        auth=_auth(found.auth) if found.HasField("auth") else None,
        allowed_agents=_names(found.allowed_agents, "tool.allowed_agents"),
        function=_function(found.function, name) if found.HasField("function") else None,
        # What only reads may always be repeated.
        idempotent=found.idempotent or found.exec_mode in ("sql", "retrieval"),
        created_at=now,
        examples=_examples(found),
        tags=_tags(found.tags),
        level=governance.level(found.governance_level),
        allowed_roles=governance.roles(found.allowed_roles),
        user_rate_limit_per_min=_number(found, "user_rate_limit_per_min", high=_MAX_RATE),
        cache_ttl=_cache_ttl(found),
        min_isolation=_min_isolation(found.min_isolation),
        quota=Quota(
            total=_number(found, "quota_total", high=_MAX_QUOTA),
            per_day=_number(found, "quota_per_day", high=_MAX_QUOTA),
        ),
        changelog=fields.text(found.changelog, "tool.changelog", limit=2000),
        target=target(found),
    )


def _number(found: tool_pb2.Tool, field: str, *, high: int) -> int:
    return int(fields.within(getattr(found, field), f"tool.{field}", low=0, high=high))


def _examples(found: tool_pb2.Tool) -> tuple[dict[str, object], ...]:
    fields.at_most(len(found.examples), "tool.examples", limit=16)
    return tuple(
        {
            "description": fields.text(one.description, "tool.examples.description", limit=1000),
            "arguments": fields.mapping(one.arguments, "tool.examples.arguments"),
            "result": _whole_value(one.result),
        }
        for one in found.examples
    )


def _whole_value(found: struct_pb2.Value) -> object:
    return fields.mapping(struct_pb2.Struct(fields={"value": found}), "tool.examples.result").get("value")


def _tags(found: Sequence[str]) -> tuple[str, ...]:
    fields.at_most(len(found), "tool.tags", limit=32)
    return tuple(fields.required(tag, "tool.tags", limit=64) for tag in found)


def _cache_ttl(found: tool_pb2.Tool) -> timedelta:
    ttl = fields.span(found.cache_ttl, "tool.cache_ttl")
    if not timedelta() <= ttl <= _MAX_CACHE_TTL:
        raise InvalidArgument("cache_ttl must be from 0 to a day", field="tool.cache_ttl")
    if ttl and not found.idempotent:
        raise InvalidArgument("only results of idempotent tools are kept", field="tool.cache_ttl")
    return ttl


def _min_isolation(found: str) -> str:
    known = [kind.name.lower() for kind in Isolation if kind]
    if found and found not in known:
        raise InvalidArgument(f"min_isolation is one of {', '.join(known)}", field="tool.min_isolation")
    return found or known[0]


def _auth(found: tool_pb2.ToolAuth) -> dict[str, str]:
    if found.type != "api_key_ref":
        raise InvalidArgument("auth.type is api_key_ref; secrets are given by reference", field="tool.auth.type")
    return {"type": found.type, "key_id": fields.required(found.key_id, "tool.auth.key_id", limit=128)}


def _names(found: Sequence[str], field: str) -> tuple[str, ...]:
    fields.at_most(len(found), field, limit=256)
    return tuple(fields.required(name, field, limit=128) for name in found)


def _function(found: tool_pb2.Function, tool: str) -> Function:
    timeout = fields.span(found.timeout, "tool.function.timeout") if found.HasField("timeout") else _DEFAULT_TIMEOUT
    if not timedelta() < timeout <= _MAX_TIMEOUT:
        raise InvalidArgument("timeout must be above 0 and at most 10 minutes", field="tool.function.timeout")
    memory = found.memory_limit_mib or _DEFAULT_MEMORY_MIB
    code = fields.required(found.code, "tool.function.code", limit=_MAX_CODE)
    return Function(
        code=code,
        entry_point=found.entry_point or tool,
        memory_limit_mib=int(fields.within(memory, "tool.function.memory_limit_mib", low=64, high=_MAX_MEMORY_MIB)),
        timeout=timeout,
        allowed_imports=_names(found.allowed_imports, "tool.function.allowed_imports") or DEFAULT_IMPORTS,
        code_hash=hashlib.sha256(code.encode()).hexdigest(),
        requires_context=found.requires_context,
        safe_mode=found.safe_mode if found.HasField("safe_mode") else True,
        network=_hosts(found.network),
    )


def _hosts(found: Sequence[str]) -> tuple[str, ...]:
    fields.at_most(len(found), "tool.function.network", limit=16)
    form = "a host such as api.example.com or *.example.com"
    return tuple(fields.matching(host.lower(), "tool.function.network", _HOST, form=form) for host in found)


def reference(value: str) -> tuple[str, str]:
    name, _, version = value.partition("@")
    fields.matching(name, "name", fields.NAME, form=f"{_NAME_FORM}, and perhaps @ and a version")
    if version:
        fields.matching(version, "name", fields.VERSION, form="a name, @ and a semantic version")
    return name, version


def asked(request: pb.InvokeToolRequest, tool: Tool) -> Request:
    return Request(
        tool=tool,
        arguments=fields.mapping(request.arguments, "arguments", limit=1_048_576),
        agent=fields.text(request.agent, "agent", limit=100),
        session_id=fields.text(request.session_id, "session_id", limit=64),
        turn_id=fields.text(request.turn_id, "turn_id", limit=64),
        request_id=fields.request_id(request.request_id) or "",
    )


def override_token(request: pb.InvokeToolRequest) -> str:
    return fields.text(request.override_token, "override_token", limit=4096)


def artefact(request: artefact_pb2.GetToolArtefactRequest) -> tuple[str, str]:
    name = fields.matching(request.name, "name", ARTEFACT_NAME, form="the name of an artefact")
    return fields.identifier(request.invocation_id, "invocation_id"), name


def wanted(request: pb.ListToolsRequest) -> Wanted:
    return Wanted(
        agent=request.agent,
        exec_mode=request.exec_mode,
        state=governance.state_filter(request.state),
        tag=request.tag,
        query=fields.text(request.query, "query", limit=200),
    )


def list_response(request: pb.ListToolsRequest, found: Sequence[Tool]) -> pb.ListToolsResponse:
    if request.order_by not in ("", "name", "create_time desc"):
        raise InvalidArgument("order_by is name or create_time desc", field="order_by")
    filters = (request.agent, request.exec_mode, request.order_by, request.query, request.tag, str(request.state))
    scope = "|".join(("tools", *filters))
    asked = page(request.page_size, request.page_token, scope=scope)
    newest = request.order_by == "create_time desc"
    ordered = sorted(found, key=lambda one: one.created_at, reverse=True) if newest else list(found)
    shown = ordered[asked.skip : asked.skip + asked.size]
    end = asked.skip + len(shown)
    more = (str(end),) if end < len(ordered) else None
    token = next_page_token(more, scope=scope)
    return pb.ListToolsResponse(tools=[tool(one) for one in shown], next_page_token=token)


def tool(found: Tool) -> tool_pb2.Tool:
    message = tool_pb2.Tool(
        name=found.name,
        version=found.version,
        description=found.description,
        input_schema=fields.struct(dict(found.input_schema)),
        rate_limit_per_min=found.rate_limit_per_min,
        exec_mode=found.exec_mode,
        allowed_agents=found.allowed_agents,
        idempotent=found.idempotent,
        examples=[_example(one) for one in found.examples],
        tags=found.tags,
        governance_level=governance.level_message(found.level),
        state=governance.state_message(found.state),
        allowed_roles=found.allowed_roles,
        user_rate_limit_per_min=found.user_rate_limit_per_min,
        min_isolation=found.min_isolation,
        quota_total=found.quota.total,
        quota_per_day=found.quota.per_day,
        changelog=found.changelog,
        schema_hash=found.schema_hash,
    )
    message.create_time.FromDatetime(found.created_at)
    if found.cache_ttl:
        message.cache_ttl.FromTimedelta(found.cache_ttl)
    if found.target:
        put_target(message, found.exec_mode, found.target)
    if found.output_schema:
        message.output_schema.CopyFrom(fields.struct(dict(found.output_schema)))
    if found.auth:
        message.auth.CopyFrom(tool_pb2.ToolAuth(**found.auth))
    if found.function:
        message.function.CopyFrom(_function_message(found.function))
    return message


def _example(found: Mapping[str, Any]) -> tool_pb2.ToolExample:
    return json_format.ParseDict(dict(found), tool_pb2.ToolExample())


def _function_message(found: Function) -> tool_pb2.Function:
    message = tool_pb2.Function(
        code=found.code,
        entry_point=found.entry_point,
        memory_limit_mib=found.memory_limit_mib,
        allowed_imports=found.allowed_imports,
        code_hash=found.code_hash,
        is_async=found.is_async,
        requires_context=found.requires_context,
        safe_mode=found.safe_mode,
        network=found.network,
    )
    message.timeout.FromTimedelta(found.timeout)
    return message


def finished(outcome: Outcome) -> pb.ToolFinished:
    left = [
        artefact_pb2.ToolArtefact(name=one.name, size=one.size, sha256=one.sha256, invocation_id=one.invocation_id)
        for one in outcome.artefacts
    ]
    message = pb.ToolFinished(isolation=outcome.isolation, artefacts=left, replayed=outcome.replayed)
    message.elapsed.FromTimedelta(outcome.elapsed)
    if outcome.status is Status.OK:
        message.result.CopyFrom(_value(outcome.result))
    else:
        message.failure.CopyFrom(failed(outcome).failure())
    return message


def streamed(invocation_id: str, sequence: int, stream: str, text: str) -> pb.StreamToolResponse:
    """What a function printed or emitted, as the next event."""
    message = pb.StreamToolResponse(invocation_id=invocation_id, sequence=sequence)
    if stream == EMITTED:
        message.emitted.CopyFrom(emitted(text))
    else:
        message.output.CopyFrom(pb.ToolOutput(stream=STREAMS[stream], text=sanitise.text(text)))
    return message


def heartbeat(invocation_id: str, sequence: int, now: datetime) -> pb.StreamToolResponse:
    """That a silent call lives."""
    message = pb.StreamToolResponse(invocation_id=invocation_id, sequence=sequence)
    message.heartbeat.time.FromDatetime(now)
    return message


def emitted(text: str) -> pb.ToolEmitted:
    said = json.loads(text)
    return pb.ToolEmitted(kind=said["event"], data=_value(said["data"]))


def _value(data: Any) -> struct_pb2.Value:
    """A third of what json_format takes for it."""
    whole = struct_pb2.Struct()
    whole.update({"value": data})
    return whole.fields["value"]


def failed(outcome: Outcome) -> MeshError:
    """Why it failed, as an error of its own kind."""
    kind = _FAILURES.get(outcome.status, FunctionFailed)
    message = outcome.message or "the tool failed"
    return kind(message, status=outcome.status.value, trace=outcome.trace)


_FAILURES: Final[dict[Status, type[MeshError]]] = {
    Status.UPSTREAM_REFUSED: ToolFailed,
    Status.UPSTREAM_ERROR: ToolFailed,
    Status.UNREACHABLE: ToolUnreachable,
    Status.UNKNOWN: ToolOutcomeUnknown,
}
