"""What facades need of Envoy: the HTTP status of an answer that gRPC calls a success."""

from __future__ import annotations

from deploy.envoy.bodies import rest_scripts
from deploy.envoy.contract import BYTES, Method
from deploy.envoy.inputs import Config, EnvoyInputs, typed

_LUA = "envoy.filters.http.lua"
_STATUS = """
function envoy_on_response(handle)
  local status = handle:headers():get("x-agentnet-status")
  if status then
    handle:headers():remove("x-agentnet-status")
    handle:headers():replace(":status", status)
  end
end
"""


def status_filter(inputs: EnvoyInputs) -> Config:
    """Does nothing but on the routes of facades, and of what is to be transcoded, which name their script."""
    scripts = {name: {"inline_string": script} for name, script in rest_scripts(inputs).items()}
    return {"name": _LUA, "typed_config": typed("envoy.extensions.filters.http.lua.v3.Lua", source_codes=scripts)}


def with_status(found: Config, method: Method) -> Config:
    """The route, with the status of the answer taken from gateway's header where the method answers with bytes."""
    if method.output != BYTES:
        return found
    script = typed("envoy.extensions.filters.http.lua.v3.LuaPerRoute", source_code={"inline_string": _STATUS})
    return found | {"typed_per_filter_config": {**found.get("typed_per_filter_config", {}), _LUA: script}}
