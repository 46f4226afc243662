"""AgentTemplateService: convert in, one call of the domain, convert out."""

from __future__ import annotations

from typing import Any, Final

from agentnet.orchestrator.v1 import template_service_pb2 as pb
from agentnet.orchestrator.v1 import template_service_pb2_grpc
from services.orchestrator import convert
from services.orchestrator.agents.templates import FIRST, Order, Templates, checked
from shared import fields
from shared.identity import current
from shared.paging import paged

TEMPLATES: Final = "agentnet.orchestrator.v1.AgentTemplateService"
_FORM: Final = "a letter, then letters, digits, _ or -, at most 64 characters"


class AgentTemplateService(template_service_pb2_grpc.AgentTemplateServiceServicer):
    """Ready-made agents."""

    def __init__(self, templates: Templates) -> None:
        self._templates = templates

    async def ListAgentTemplates(
        self, request: pb.ListAgentTemplatesRequest, context: Any
    ) -> pb.ListAgentTemplatesResponse:
        domain = fields.text(request.domain, "domain", limit=64)
        found = await self._templates.every(current().tenant_id, domain=domain)
        shown, token = paged(
            found, request, scope=f"templates|{domain}", name=lambda template: f"{template.name}@{template.version}"
        )
        personas = () if request.page_token else self._templates.shelf.personas
        return pb.ListAgentTemplatesResponse(templates=shown, personas=personas, next_page_token=token)

    async def CreateAgentFromTemplate(
        self, request: pb.CreateAgentFromTemplateRequest, context: Any
    ) -> pb.CreateAgentFromTemplateResponse:
        template, version = convert.reference(request.template, "template")
        for name, value in request.parameters.items():
            fields.text(value, f"parameters[{name}]", limit=1000)
        if request.name:
            fields.matching(request.name, "name", fields.NAME, form=_FORM)
        if request.version:
            fields.matching(request.version, "version", fields.VERSION, form="a semantic version such as 1.0.0")
        order = Order(
            template,
            version,
            request.name,
            request.version,
            fields.text(request.persona, "persona", limit=64),
            dict(request.parameters),
            convert.agent(request.overrides, partial=True),
        )
        return pb.CreateAgentFromTemplateResponse(agent=await self._templates.create(current().tenant_id, order))

    async def PublishAgentTemplate(
        self, request: pb.PublishAgentTemplateRequest, context: Any
    ) -> pb.PublishAgentTemplateResponse:
        published = await self._templates.publish(current().tenant_id, _template(request.template))
        return pb.PublishAgentTemplateResponse(template=published)


def _template(found: pb.AgentTemplate) -> pb.AgentTemplate:
    made = pb.AgentTemplate()
    made.CopyFrom(found)
    fields.matching(found.name, "template.name", fields.NAME, form=_FORM)
    made.version = found.version or FIRST
    fields.matching(made.version, "template.version", fields.VERSION, form="a semantic version such as 1.0.0")
    fields.required(found.domain, "template.domain", limit=64)
    fields.text(found.description, "template.description", limit=1000)
    made.agent.CopyFrom(convert.agent(found.agent))
    made.builtin, made.uses = False, 0
    checked(made)
    return made
