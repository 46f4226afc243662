"""What a REST call says and the transcoder cannot read, told as every other error: with the field, and what it takes.

The transcoder answers before gateway is asked, in words of its own: `tenant.standing: invalid value "X" for type …`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorSet

_KINDS = {
    "TYPE_INT32": "a whole number of 32 bits",
    "TYPE_INT64": "a whole number",
    "TYPE_UINT32": "a whole number of 32 bits, not negative",
    "TYPE_UINT64": "a whole number, not negative",
    "TYPE_DOUBLE": "a number",
    "TYPE_FLOAT": "a number",
    "TYPE_BOOL": "true or false",
    "TYPE_STRING": "a string",
    "TYPE_BYTES": "a string in base64",
    "google.protobuf.Timestamp": "a time, for example 2026-01-31T12:00:00Z",
    "google.protobuf.Duration": "a duration in seconds, for example 1.5s",
    "google.protobuf.Struct": "an object",
}
_SCRIPT = """
local kinds = {KINDS}

local function told(text)
  local path, value, kind = string.match(text, '^([^:]*): invalid value (.*) for type ([%w_./]+)$')
  if not path then return "body", "the body cannot be read: " .. string.match(text, '^:? ?(.*)$') end
  kind = string.match(kind, '[^/]*$')
  if string.find(value, '^Starting an? ') then
    -- In a list it names the list twice, and as its place that of another one.
    path = string.gsub(path, '%[%d+%]$', "")
    local field = path == "" and kind or path .. "." .. kind
    if string.match(path, '[^.]*$') == kind then field = path end
    return field, field .. " takes no " .. string.match(value, '^Starting an? (%a+)') .. "; send one plain value"
  end
  local said = string.find(value, "^Field '") and path or path .. ": " .. value
  return path, said .. " is not " .. (kinds[kind] or "of the type " .. kind)
end

function envoy_on_response(handle)
  if handle:headers():get(":status") ~= "400" then return end
  local body = handle:body()
  if not body then return end
  local text = string.match(body:getBytes(0, body:length()), '^{"code":3,"details":%[%],"message":"(.*)"}%s*$')
  if not text then return end
  local field, message = told(text)
  local kind = '{"@type": "type.googleapis.com/google.rpc.'
  local size = body:setBytes('{"code": 3, "message": "' .. message .. '", "details": [' .. kind
    .. 'ErrorInfo", "reason": "FIELD_INVALID", "domain": "agentnet", "metadata": {}}, ' .. kind
    .. 'BadRequest", "field_violations": [{"field": "' .. field .. '", "description": "' .. message .. '"}]}]}')
  handle:headers():replace("content-length", size)
end
"""


def values_script(descriptors: Path) -> str:
    """Lua for the routes of calls that are not transcoded yet."""
    kinds = [*_KINDS.items(), *_enums(descriptors)]
    return _SCRIPT.replace("KINDS", ",\n".join(f'["{name}"] = "{words}"' for name, words in kinds))


def _enums(descriptors: Path) -> Iterator[tuple[str, str]]:
    for file in FileDescriptorSet.FromString(descriptors.read_bytes()).file:
        if file.package.startswith("agentnet."):
            for name, enum in _in(file.package, file.enum_type, file.message_type):
                yield name, "one of " + ", ".join(value.name for value in enum.value if value.number)


def _in(
    package: str, enums: Iterable[EnumDescriptorProto], messages: Iterable[DescriptorProto]
) -> Iterator[tuple[str, EnumDescriptorProto]]:
    yield from ((f"{package}.{enum.name}", enum) for enum in enums)
    for message in messages:
        yield from _in(f"{package}.{message.name}", message.enum_type, message.nested_type)
