"""What a tool calls, between the contract and the registry: plain data, checked."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration

from agentnet.tools.v1 import target_pb2, tool_pb2
from shared import fields
from shared.errors import FieldRequired, InvalidArgument

Target = Mapping[str, Any]
# The field of Tool that says what each mode calls.
FIELDS: Final = {"external_api": "http", "sql": "sql", "shell": "shell", "mcp": "mcp", "grpc": "grpc", "wasm": "wasm"}
_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
_MAX_CODE: Final = 262_144
_MAX_MODULE: Final = 2 * 1024 * 1024
_WASM: Final = b"\0asm\x01\0\0\0"
_DEFAULT_TIMEOUT: Final = timedelta(seconds=30)
_HEADER: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
_GRPC_METHOD: Final = re.compile(r"[A-Za-z_][\w.]*/[A-Za-z_]\w*")


def target(found: tool_pb2.Tool) -> Target | None:
    """What the tool's mode calls; None when it is not said, as in a tool that is to be completed later."""
    field = FIELDS.get(found.exec_mode)
    given = [name for name in FIELDS.values() if found.HasField(name)]  # type: ignore[arg-type] # all are fields
    if wrong := [name for name in given if name != field]:
        raise InvalidArgument(f"exec_mode {found.exec_mode} has no {wrong[0]}", field=f"tool.{wrong[0]}")
    if not given:
        return None
    return _READERS[found.exec_mode](getattr(found, given[0]))


def put_target(message: tool_pb2.Tool, mode: str, found: Target) -> None:
    """The same as it was given."""
    data = {**found, "timeout": f"{found['timeout']:g}s"}
    json_format.ParseDict(data, getattr(message, FIELDS[mode]))


def _http(found: target_pb2.HttpTarget) -> Target:
    method = found.method or "GET"
    if method not in _METHODS:
        raise InvalidArgument(f"method is one of {', '.join(_METHODS)}", field="tool.http.method")
    for name in (*found.headers, *filter(None, (found.auth_header, found.idempotency_header))):
        fields.matching(name, "tool.http.headers", _HEADER, form="letters, digits and -")
    return {
        "url": _url(found.url, "tool.http.url"),
        "method": method,
        "headers": {name: fields.text(value, "tool.http.headers", limit=1024) for name, value in found.headers.items()},
        "auth_header": found.auth_header,
        "idempotency_header": found.idempotency_header,
        "timeout": _timeout(found, found.timeout, "tool.http.timeout", most=timedelta(minutes=5)),
    }


def _sql(found: target_pb2.SqlTarget) -> Target:
    return {
        "dsn_key_id": fields.required(found.dsn_key_id, "tool.sql.dsn_key_id", limit=128),
        "query": fields.required(found.query, "tool.sql.query", limit=16_384),
        "parameters": [fields.required(name, "tool.sql.parameters", limit=64) for name in found.parameters],
        "row_limit": int(fields.within(found.row_limit or 100, "tool.sql.row_limit", low=1, high=10_000)),
        "timeout": _timeout(found, found.timeout, "tool.sql.timeout", most=timedelta(minutes=5)),
    }


def _shell(found: target_pb2.ShellTarget) -> Target:
    fields.at_most(len(found.command), "tool.shell.command", limit=64)
    if not found.command:
        raise FieldRequired("tool.shell.command")
    memory = fields.within(found.memory_limit_mib or 256, "tool.shell.memory_limit_mib", low=16, high=4096)
    processes = fields.within(found.process_limit or 16, "tool.shell.process_limit", low=1, high=64)
    return {
        "command": [fields.text(word, "tool.shell.command", limit=4096) for word in found.command],
        "memory_limit_mib": int(memory),
        "process_limit": int(processes),
        "timeout": _timeout(found, found.timeout, "tool.shell.timeout", most=timedelta(minutes=10)),
    }


def _mcp(found: target_pb2.McpTarget) -> Target:
    if bool(found.url) == bool(found.stdio_code):
        raise InvalidArgument("an MCP server has a url or stdio_code", field="tool.mcp")
    return {
        "url": _url(found.url, "tool.mcp.url") if found.url else "",
        "stdio_code": fields.text(found.stdio_code, "tool.mcp.stdio_code", limit=_MAX_CODE),
        "tool": fields.text(found.tool, "tool.mcp.tool", limit=128),
        "timeout": _timeout(found, found.timeout, "tool.mcp.timeout", most=timedelta(minutes=5)),
    }


def _wasm(found: target_pb2.WasmTarget) -> Target:
    fields.at_most(len(found.module), "tool.wasm.module", limit=_MAX_MODULE)
    if not found.module.startswith(_WASM):
        raise InvalidArgument("module is a WebAssembly module in its binary form, version 1", field="tool.wasm.module")
    memory = fields.within(found.memory_limit_mib or 64, "tool.wasm.memory_limit_mib", low=1, high=2048)
    return {
        "module": base64.b64encode(found.module).decode(),
        "memory_limit_mib": int(memory),
        "fuel": int(fields.within(found.fuel, "tool.wasm.fuel", low=0, high=10**15)),
        "timeout": _timeout(found, found.timeout, "tool.wasm.timeout", most=timedelta(minutes=10)),
    }


def _grpc(found: target_pb2.GrpcTarget) -> Target:
    host, _, port = found.address.rpartition(":")
    if not host or not port.isdecimal():
        raise InvalidArgument("address must be host:port", field="tool.grpc.address")
    return {
        "address": found.address,
        "method": fields.matching(found.method, "tool.grpc.method", _GRPC_METHOD, form="package.Service/Method"),
        "timeout": _timeout(found, found.timeout, "tool.grpc.timeout", most=timedelta(minutes=5)),
    }


def _url(value: str, field: str) -> str:
    fields.required(value, field, limit=2048)
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or "{" in parts.netloc or "@" in parts.netloc:
        raise InvalidArgument(f"{field} must be an http or https address with a fixed host", field=field)
    return value


def _timeout(message: Any, found: Duration, field: str, *, most: timedelta) -> float:
    """Seconds, as stored."""
    timeout = fields.span(found, field) if message.HasField("timeout") else _DEFAULT_TIMEOUT
    if not timedelta() < timeout <= most:
        raise InvalidArgument(f"timeout must be above 0 and at most {most}", field=field)
    return timeout.total_seconds()


_READERS: Final[Mapping[str, Callable[[Any], Target]]] = {
    "external_api": _http,
    "sql": _sql,
    "shell": _shell,
    "mcp": _mcp,
    "grpc": _grpc,
    "wasm": _wasm,
}
