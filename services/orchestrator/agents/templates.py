"""Templates and personas: those of the mesh from a file, those of tenants from the store."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel, ConfigDict, Field

from agentnet.orchestrator.v1 import agent_pb2, template_service_pb2
from services.orchestrator.agents.checks import check
from services.orchestrator.agents.registry import Agents, next_patch, version_key
from services.orchestrator.agents.stores import Template, TemplateStore
from services.orchestrator.errors import AgentNotFound, AgentVersionExists, TemplateNotFound
from shared import fields
from shared.errors import InvalidArgument

Persona = template_service_pb2.AgentPersona
FILE: Final = Path(__file__).with_name("templates.yaml")
FIRST: Final = "1.0.0"
_SLOT: Final = re.compile(r"\{\{\s*([a-z][a-z0-9_]*)\s*\}\}")


class _Persona(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    description: str
    voice: str
    style: dict[str, float] = {}


class _Template(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    version: str = FIRST
    domain: str
    description: str
    parameters: dict[str, str] = {}
    agent: dict[str, Any]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    templates: list[_Template] = Field(min_length=1)
    personas: list[_Persona]


@dataclass(frozen=True, slots=True)
class Shelf:
    """What the mesh brings."""

    templates: tuple[Template, ...]
    personas: tuple[Persona, ...]


def read_shelf(path: Path = FILE) -> Shelf:
    """The file's templates and personas. Raises pydantic's ValidationError and InvalidArgument."""
    found = _File.model_validate(yaml.safe_load(path.read_text()))
    personas = tuple(
        Persona(name=one.name, description=one.description, voice=one.voice, style=fields.struct(dict(one.style)))
        for one in found.personas
    )
    return Shelf(tuple(_template(one) for one in found.templates), personas)


def _template(one: _Template) -> Template:
    agent = dict(one.agent)
    style = fields.struct(agent.pop("style", {}))
    sampling = agent_pb2.SamplingConfig(**agent.pop("sampling", {}))
    made = Template(
        name=one.name,
        version=one.version,
        domain=one.domain,
        description=one.description,
        parameters=one.parameters,
        agent=agent_pb2.Agent(style=style, sampling=sampling, **agent),
        builtin=True,
    )
    checked(made)
    return made


def checked(template: Template) -> None:
    """Raises InvalidArgument when it asks for what it does not declare, or its agent cannot be."""
    check(template.agent)
    slots = {*_SLOT.findall(template.agent.system_prompt), *_SLOT.findall(template.agent.description)}
    if unknown := sorted(slots - set(template.parameters)):
        why = f"the template asks for {', '.join(unknown)}, which parameters does not declare"
        raise InvalidArgument(why, field="template.parameters")


@dataclass(frozen=True, slots=True)
class Order:
    """What to make of which template."""

    template: str
    template_version: str
    name: str
    version: str
    persona: str
    parameters: Mapping[str, str]
    overrides: agent_pb2.Agent


@dataclass(frozen=True, slots=True)
class Templates:
    """The templates of all tenants, one tenant a call."""

    store: TemplateStore
    agents: Agents
    shelf: Shelf

    async def every(self, tenant: str, *, domain: str) -> Sequence[Template]:
        """By domain and name, with how often the tenant used each."""
        uses, found = await self.store.uses(tenant), list[Template]()
        for one in (*self.shelf.templates, *await self.store.every(tenant)):
            if domain in ("", one.domain):
                found.append(Template.FromString(one.SerializeToString()))
                found[-1].uses = uses.get((one.name, one.version), 0)
        return sorted(found, key=lambda one: (one.domain, one.name, version_key(one.version)))

    async def publish(self, tenant: str, template: Template) -> Template:
        """Raises AgentVersionExists, also for a version of the mesh's own."""
        taken = any((one.name, one.version) == (template.name, template.version) for one in self.shelf.templates)
        if taken or not await self.store.add(tenant, template):
            reference = f"{template.name}@{template.version}"
            raise AgentVersionExists(f"the template {reference} exists; versions never change", agent=reference)
        return template

    async def create(self, tenant: str, order: Order) -> agent_pb2.Agent:
        """Makes an agent. Raises TemplateNotFound, InvalidArgument and AgentVersionExists."""
        template = await self._find(tenant, order.template, order.template_version)
        made = agent_pb2.Agent()
        made.CopyFrom(template.agent)
        made.name = order.name or made.name
        values = _values(template, order.parameters)
        made.system_prompt = _filled(made.system_prompt, values)
        made.description = _filled(made.description, values)
        if order.persona:
            self._take_on(made, order.persona)
        for field, _ in order.overrides.ListFields():
            made.ClearField(field.name)  # type: ignore[arg-type] # a name of the message
        made.MergeFrom(order.overrides)
        made.name = order.name or made.name
        made.version = order.version or await self._free(tenant, made.name)
        made.state = made.state or agent_pb2.AGENT_STATE_ACTIVE
        made.template = f"{template.name}@{template.version}"
        check(made)
        stored = await self.agents.create(tenant, made)
        await self.store.used(tenant, template.name, template.version)
        return stored

    def _take_on(self, agent: agent_pb2.Agent, name: str) -> None:
        persona = next((one for one in self.shelf.personas if one.name == name), None)
        if persona is None:
            known = ", ".join(one.name for one in self.shelf.personas)
            raise InvalidArgument(f"no persona {name}; there are {known}", field="persona")
        agent.system_prompt = f"{agent.system_prompt}\n\n{persona.voice}"
        agent.style.update(dict(persona.style))

    async def _find(self, tenant: str, name: str, version: str) -> Template:
        """The tenant's own before the mesh's; without a version the newest."""
        for known in (await self.store.every(tenant), self.shelf.templates):
            found = [one for one in known if one.name == name and version in ("", one.version)]
            if found:
                return max(found, key=lambda one: version_key(one.version))
        reference = f"{name}@{version}" if version else name
        raise TemplateNotFound(f"no template {reference}", template=reference)

    async def _free(self, tenant: str, name: str) -> str:
        try:
            newest = await self.agents.newest(tenant, name)
        except AgentNotFound:
            return FIRST
        return next_patch(newest.version)


def _values(template: Template, given: Mapping[str, str]) -> dict[str, str]:
    """What stands for each parameter. Raises InvalidArgument for one that is missing or unknown."""
    for name in given:
        if name not in template.parameters:
            known = ", ".join(sorted(template.parameters)) or "none"
            raise InvalidArgument(f"the template has no parameter {name}; it has {known}", field="parameters")
    values = {**template.parameters, **given}
    if missing := sorted(name for name, value in values.items() if not value):
        raise InvalidArgument(f"the template needs {', '.join(missing)}", field="parameters")
    return values


def _filled(text: str, values: Mapping[str, str]) -> str:
    return _SLOT.sub(lambda slot: values[slot[1]], text)
