"""Bodies of REST calls for gateway to read. The transcoder drops a body's unknown fields, so gateway sees the JSON as
it came, in the question that it answers on each call anyway, and judges it once it knows who asks.
"""

from __future__ import annotations

import re

from deploy.envoy.admission import BODY, identified
from deploy.envoy.contract import Template
from deploy.envoy.inputs import Config, EnvoyInputs, typed
from deploy.envoy.values import values_script

_BUFFER = "envoy.filters.http.buffer"
_LUA = "envoy.filters.http.lua"
_READ = "read"
_VALUED = "valued"
_LONG = 64 * 1024
_MOST = 4 * 1024 * 1024
# Of a long body only names matter: long strings are handed over empty, so that documents and files cost little.
_SCRIPT = """
local function shortened(text)
  local parts, from, at = {}, 1, 1
  while true do
    local open = string.find(text, '"', at, true)
    if not open then break end
    local close, before = open, open
    repeat
      close = string.find(text, '"', close + 1, true)
      if not close then return text end
      before = close - 1
      while string.byte(text, before) == 92 do before = before - 1 end
    until (close - before) % 2 == 1
    if close - open > 256 then
      parts[#parts + 1] = string.sub(text, from, open)
      from = close
    end
    at = close + 1
  end
  parts[#parts + 1] = string.sub(text, from)
  return table.concat(parts)
end

function envoy_on_request(handle)
  local body = handle:body()
  if not body then return end
  local text = body:getBytes(0, body:length())
  if #text > LONG then text = shortened(text) end
  if #text > MOST then
    handle:respond({[":status"] = "413"}, "the body holds over MOST bytes besides its long strings; send it in parts")
    return
  end
  handle:streamInfo():dynamicMetadata():set("BODY", "body", handle:base64Escape(text))
end
"""


def buffer_filter(inputs: EnvoyInputs) -> Config:
    """Off, but on the route below."""
    kind = "envoy.extensions.filters.http.buffer.v3.Buffer"
    return {"name": _BUFFER, "disabled": True, "typed_config": typed(kind, max_request_bytes=inputs.max_request_bytes)}


def rest_routes(inputs: EnvoyInputs, facades: list[Template], refuse: Config) -> list[Config]:
    """What a REST call matches before it is transcoded: as nothing's, with its body read unless it is a facade's. One
    that is long, or does not say how long it is, is read of those only who may come in.
    """
    with_body = {"name": ":method", "string_match": {"safe_regex": {"regex": "POST|PUT|PATCH|DELETE"}}}
    no_grpc = {
        "name": "content-type",
        "string_match": {"prefix": "application/grpc"},
        "invert_match": True,
        "treat_missing_header_as_empty": True,
    }
    short = {"name": "content-length", "range_match": {"start": 0, "end": _LONG + 1}}
    left = [refuse | {"match": _matching(template)} for template in facades]
    for headers, most, more in (([short], _LONG, {}), ([], inputs.max_request_bytes, identified())):
        match = {"prefix": "/", "headers": [with_body, no_grpc, *headers]}
        left.append(refuse | {"match": match, "typed_per_filter_config": {**_buffered(most), **_lua(_READ), **more}})
    return left


def rest_scripts(inputs: EnvoyInputs) -> dict[str, str]:
    """What is run on these routes, by name."""
    script = _SCRIPT.replace("LONG", str(_LONG)).replace("MOST", str(_MOST)).replace("BODY", BODY)
    values = values_script(inputs.descriptors)
    return {_READ: script + values, _VALUED: values}


def valued() -> Config:
    """On routes that say nothing else: what the transcoder cannot read is told in everyone's words."""
    return _lua(_VALUED)


def _lua(script: str) -> Config:
    return {_LUA: typed("envoy.extensions.filters.http.lua.v3.LuaPerRoute", name=script)}


def _buffered(most: int) -> Config:
    kind = "envoy.extensions.filters.http.buffer.v3.BufferPerRoute"
    return {_BUFFER: typed(kind, buffer={"max_request_bytes": most})}


def _matching(template: Template) -> Config:
    if "{" not in template:
        return {"path": template}
    parts = re.split(r"\{[^}]*\}", template)
    return {"safe_regex": {"regex": "[^/]+".join(re.escape(part) for part in parts)}}
