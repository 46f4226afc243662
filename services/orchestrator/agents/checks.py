"""What must hold of an agent beyond the form of its texts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import jsonschema
from google.protobuf import json_format, struct_pb2
from jsonschema.validators import Draft202012Validator

from agentnet.orchestrator.v1 import agent_pb2
from services.orchestrator.graphs import conditions
from services.orchestrator.reasoning import engines
from shared import fields
from shared.errors import InvalidArgument

_LIMITS: Final = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "max_output_tokens": (1, 131_072),
}
_TEXTS: Final = {"system_prompt": 32_768, "description": 1000, "model": 255, "type": 64}
_NAMES: Final = {"capabilities": 32, "tools": 64, "functions": 64, "monitors": 16}
_DOCUMENTS: Final = {"style": 16_384, "config": 65_536}
_NAME: Final = 255
_STRATEGIES: Final = ("", "sequential", "parallel")
_FOLDER: Final = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")
_SHOWN: Final = 200


def check(agent: agent_pb2.Agent) -> None:
    """Raises InvalidArgument, NameUnknown and FieldTooLong with the field at fault."""
    for name, limit in _TEXTS.items():
        fields.text(getattr(agent, name), f"agent.{name}", limit=limit)
    for name, limit in _NAMES.items():
        all_named(getattr(agent, name), f"agent.{name}", limit=limit)
    for name, limit in _DOCUMENTS.items():
        fields.mapping(getattr(agent, name), f"agent.{name}", limit=limit)
    fields.within(agent.max_chain_depth, "agent.max_chain_depth", low=0, high=16)
    if agent.chain_strategy not in _STRATEGIES:
        raise InvalidArgument("chain_strategy is sequential or parallel", field="agent.chain_strategy")
    for name, (low, high) in _LIMITS.items():
        if agent.sampling.HasField(name):  # type: ignore[arg-type] # a name of the message
            fields.within(getattr(agent.sampling, name), f"agent.sampling.{name}", low=low, high=high)
    fields.within(agent.max_concurrent_tasks, "agent.max_concurrent_tasks", low=0, high=1000)
    _style(agent)
    _chain_limits(agent.chain_limits)
    _rules(agent)
    for name in ("input_schema", "output_schema"):
        _schema(getattr(agent, name), f"agent.{name}")
    _many(agent)
    engines.check(agent)


def all_named(entries: Sequence[str], field: str, *, limit: int) -> None:
    """A few names, none of them empty."""
    fields.at_most(len(entries), field, limit=limit)
    for place, entry in enumerate(entries):
        fields.required(entry, f"{field}[{place}]", limit=_NAME)


def _style(agent: agent_pb2.Agent) -> None:
    for trait, weight in json_format.MessageToDict(agent.style).items():
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise InvalidArgument(f"agent.style.{trait} must be a weight from 0 to 1", field=f"agent.style.{trait}")
        fields.within(weight, f"agent.style.{trait}", low=0, high=1)


def _rules(agent: agent_pb2.Agent) -> None:
    fields.at_most(len(agent.stop_tools_when), "agent.stop_tools_when", limit=64)
    for tool, rule in sorted(agent.stop_tools_when.items()):
        if fault := conditions.trouble(rule):
            field = f"agent.stop_tools_when.{tool}"
            raise InvalidArgument(f"{field} is no expression: {fault}", field=field)


def _chain_limits(limits: agent_pb2.ChainLimits) -> None:
    field = "agent.chain_limits"
    timeout = fields.span(limits.timeout, f"{field}.timeout")
    fields.within(timeout.total_seconds(), f"{field}.timeout", low=0, high=86_400)
    fields.within(limits.cost_micros_usd, f"{field}.cost_micros_usd", low=0, high=1_000_000_000_000)
    fields.within(limits.max_runs, f"{field}.max_runs", low=0, high=256)


def _many(agent: agent_pb2.Agent) -> None:
    fields.at_most(len(agent.skills_directories), "agent.skills_directories", limit=16)
    for place, folder in enumerate(agent.skills_directories):
        form = "names of folders, joined by /"
        fields.matching(folder, f"agent.skills_directories[{place}]", _FOLDER, form=form)
    fields.at_most(len(agent.subagents), "agent.subagents", limit=64)
    for place, name in enumerate(agent.subagents):
        fields.matching(name, f"agent.subagents[{place}]", fields.NAME, form="the name of an agent")


def _schema(found: struct_pb2.Struct, field: str) -> None:
    try:
        Draft202012Validator.check_schema(fields.mapping(found, field, limit=65_536))
    except jsonschema.exceptions.SchemaError as error:
        why = f"{field} is no JSON Schema: {error.json_path}: {error.message[:_SHOWN]}"
        raise InvalidArgument(why, field=field) from None


@lru_cache(maxsize=4096)
def _validator(schema: bytes) -> Draft202012Validator:
    found = struct_pb2.Struct.FromString(schema)
    return Draft202012Validator(fields.mapping(found, "schema", limit=1 << 20))


def misfit(schema: struct_pb2.Struct, value: Any) -> str | None:
    """Where and why a value does not fit a schema, as `$.a.b: why`; None when it fits. Compiled once a schema."""
    if not schema.fields:
        return None
    validator = _validator(schema.SerializeToString(deterministic=True))
    error = jsonschema.exceptions.best_match(validator.iter_errors(value))
    return None if error is None else f"{error.json_path}: {error.message[:_SHOWN]}"


def as_text(value: Mapping[str, Any]) -> str:
    """Data as the prompt of an agent that takes data."""
    return json_format.MessageToJson(fields.struct(dict(value)), indent=None, ensure_ascii=False)
