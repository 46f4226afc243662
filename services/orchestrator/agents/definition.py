"""Files of agents: YAML or JSON in the form of agents.yaml, with the line of whatever is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from agentnet.orchestrator.v1 import agent_pb2
from services.orchestrator.agents.checks import check
from services.orchestrator.errors import AgentFileInvalid
from shared import fields
from shared.errors import MeshError

FIRST_VERSION: Final = "1.0.0"
_MAX_AGENTS: Final = 200
_MAX_DEPTH: Final = 32
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's where the wheel has it: twenty times as fast
_SAMPLING: Final = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "max_output_tokens", "seed")
_STATES: Final = {"draft": agent_pb2.AGENT_STATE_DRAFT, "active": agent_pb2.AGENT_STATE_ACTIVE}
# What the seeds write into config_data and what has a field of its own here.
_LIFTED: Final = ("type", "capabilities", "max_chain_depth", "chain_strategy", *_SAMPLING)

Place = tuple[str | int, ...]
Lines = Mapping[Place, int]


class _Sampling(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    max_output_tokens: int | None = None
    seed: int | None = None


class _ChainLimits(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    timeout_seconds: float = Field(default=0, ge=0, le=86_400)
    cost_micros_usd: int = Field(default=0, ge=0)
    max_runs: int = Field(default=0, ge=0)


class _Definition(_Sampling):
    """One agent as the file has it."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")
    version: str = Field(default=FIRST_VERSION, pattern=rf"^{fields.VERSION.pattern}$")
    description: str = ""
    system_prompt: str = Field(min_length=1)
    type: str = ""
    state: str = Field(default="active", pattern="^(draft|active)$")
    style: dict[str, float] = {}
    capabilities: list[str] = []
    tools: list[str] = []
    functions: list[str] = []
    monitors: list[str] = []
    input_schema: dict[str, Any] = {}
    output_schema: dict[str, Any] = {}
    sampling: _Sampling = _Sampling()
    model: str = ""
    engine: str = ""
    engine_config: dict[str, Any] = {}
    max_chain_depth: int = 0
    chain_strategy: str = ""
    chain_limits: _ChainLimits = _ChainLimits()
    skills_directories: list[str] = []
    subagents: list[str] = []
    max_concurrent_tasks: int = 0
    stop_tools_when: dict[str, str] = {}
    config: dict[str, Any] = {}
    profile: str = Field(default="", pattern="^[A-Za-z0-9_-]{0,64}$")  # of policy's bundles; kept in config

    @model_validator(mode="before")
    @classmethod
    def _as_the_seeds_write(cls, data: Any) -> Any:
        """`prompt` and `skills_dirs` are other names; what config_data says beside itself is lifted out of it."""
        if not isinstance(data, dict):
            return data
        data = dict(data)
        for other, name in (("prompt", "system_prompt"), ("skills_dirs", "skills_directories")):
            if other in data:
                data.setdefault(name, data.pop(other))
        config = data.pop("config_data", None)
        if isinstance(config, dict):
            rest = {key: value for key, value in config.items() if key not in _LIFTED}
            data = {key: config[key] for key in _LIFTED if key in config} | {"config": rest} | data
        return data

    @model_validator(mode="after")
    def _keeps_its_profile(self) -> _Definition:
        if self.profile:
            self.config = self.config | {"profile": self.profile}
        return self

    def agent(self) -> agent_pb2.Agent:
        plain = ("name", "version", "description", "system_prompt", "type", "capabilities", "tools", "functions",
                 "monitors", "model", "engine", "max_chain_depth", "chain_strategy", "skills_directories", "subagents",
                 "max_concurrent_tasks", "stop_tools_when")  # fmt: skip
        structs = ("style", "input_schema", "output_schema", "engine_config", "config")
        parts: dict[str, Any] = {name: getattr(self, name) for name in plain}
        parts |= {name: fields.struct(dict(found)) for name in structs if (found := getattr(self, name))}
        made = agent_pb2.Agent(**parts, state=_STATES[self.state])
        for name in _SAMPLING:
            given = getattr(self, name) if getattr(self, name) is not None else getattr(self.sampling, name)
            if given is not None:
                setattr(made.sampling, name, given)
        limits = self.chain_limits
        if limits != _ChainLimits():
            made.chain_limits.cost_micros_usd, made.chain_limits.max_runs = limits.cost_micros_usd, limits.max_runs
            if limits.timeout_seconds:
                made.chain_limits.timeout.FromTimedelta(timedelta(seconds=limits.timeout_seconds))
        return made


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    agents: list[_Definition] = Field(max_length=_MAX_AGENTS)


def read_agents(path: Path) -> list[agent_pb2.Agent]:
    """Agents of a file. Raises AgentFileInvalid, whose message has the path, every line at fault and why."""
    try:
        return parse_agents(path.read_text())
    except AgentFileInvalid as error:
        raise AgentFileInvalid(f"{path}: {error.message}", **error.facts) from None


def parse_agents(document: str) -> list[agent_pb2.Agent]:
    """Agents of a document, checked. Raises AgentFileInvalid."""
    lines = _lines(document)
    try:
        parsed = _File.model_validate(yaml.load(document, _Loader))  # noqa: S506 - a safe loader
    except ValidationError as error:
        raise _invalid([(fault["loc"], fault["msg"]) for fault in error.errors()], lines) from None
    made = [found.agent() for found in parsed.agents]
    if faults := list(_faults(made, lines)):
        raise _invalid(faults, lines)
    return made


def _faults(agents: Sequence[agent_pb2.Agent], lines: Lines) -> Iterator[tuple[Place, str]]:
    """What is wrong beyond the form: of each agent the first fault, and that it is there twice."""
    seen: set[str] = set()
    for place, agent in enumerate(agents):
        reference = f"{agent.name}@{agent.version}"
        if reference in seen:
            yield ("agents", place, "name"), f"{reference} is there twice"
        seen.add(reference)
        try:
            check(agent)
        except MeshError as error:
            yield _place(lines, place, error.field or ""), error.message


def _invalid(faults: Sequence[tuple[Place, str]], lines: Lines) -> AgentFileInvalid:
    """All faults in one message, each with its line; the facts are the first one's."""
    told = [(_line(lines, at), ".".join(map(str, at)), why.removeprefix("Value error, ")) for at, why in faults]
    message = "; ".join(f"line {line}: {path or 'the file'}: {why}" for line, path, why in told)
    return AgentFileInvalid(message[:4000], line=str(told[0][0]), path=told[0][1])


def _place(lines: Lines, number: int, field: str) -> Place:
    """Where the file has a field such as `agent.sampling.temperature`: in its place, or where the seeds write it."""
    parts = tuple(field.partition("[")[0].split(".")[1:])
    forms = (parts, parts[-1:], ("config_data", *parts[-1:]))
    found = next((form for form in forms if ("agents", number, *form) in lines), parts)
    return ("agents", number, *found)


def _line(lines: Lines, place: Place) -> int:
    """The line of a place, or of the closest thing around it that the document has."""
    while place and place not in lines:
        place = place[:-1]
    return lines.get(place, 1)


def _lines(document: str) -> Lines:
    """The line of everything in a document. Raises AgentFileInvalid when it is no YAML, or more than data."""
    try:
        depth = 0
        for event in yaml.parse(document, _Loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > _MAX_DEPTH:
                deep = depth > _MAX_DEPTH
                why = "it is nested too deeply" if deep else "aliases are not allowed; write the value out"
                raise _invalid([((), why)], {(): event.start_mark.line + 1 if event.start_mark else 1})
        root = yaml.compose(document, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "it is not YAML or JSON"
        raise _invalid([((), str(problem))], {(): mark.line + 1 if mark else 1}) from None
    found: dict[Place, int] = {}
    if root is not None:
        _walk(root, (), found)
    return found


def _walk(node: yaml.Node, place: Place, found: dict[Place, int]) -> None:
    found.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        for number, entry in enumerate(node.value):
            _walk(entry, (*place, number), found)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*place, str(key.value))
            if inner in found:
                raise _invalid([(inner, "it is there twice")], {inner: key.start_mark.line + 1})
            found[inner] = key.start_mark.line + 1
            _walk(value, inner, found)
