"""PromptService: convert in, one call of the registry, convert out."""

from __future__ import annotations

from typing import Any

from agentnet.inference.v1 import prompt_service_pb2 as pb
from agentnet.inference.v1 import prompt_service_pb2_grpc as rpc
from services.inference.prompts import convert
from services.inference.prompts.registry import PromptRegistry
from shared.identity import current

NAME = "agentnet.inference.v1.PromptService"


class PromptService(rpc.PromptServiceServicer):
    """What is a model asked, exactly?"""

    def __init__(self, registry: PromptRegistry) -> None:
        self._registry = registry

    async def CreatePrompt(self, request: pb.CreatePromptRequest, context: Any) -> pb.CreatePromptResponse:
        caller, name, content = current(), convert.name(request.name), convert.content(request.content)
        version, created = await self._registry.add(
            caller.tenant_id,
            name,
            content,
            comment=convert.comment(request),
            author=caller.subject,
            labels=convert.labels(request),
        )
        return pb.CreatePromptResponse(version=convert.prompt_version(version), created=created)

    async def GetPrompt(self, request: pb.GetPromptRequest, context: Any) -> pb.GetPromptResponse:
        reference, tenant = convert.reference(request.reference), current().tenant_id
        version = await self._registry.resolve(tenant, reference, key=convert.key(request.key))
        return convert.prompt_response(version, await self._registry.labels(tenant, reference.name))

    async def ListPrompts(self, request: pb.ListPromptsRequest, context: Any) -> pb.ListPromptsResponse:
        asked = convert.listing(request.page_size, request.page_token)
        return convert.prompts_response(await self._registry.prompts(current().tenant_id, asked.page), asked)

    async def ListVersions(self, request: pb.ListVersionsRequest, context: Any) -> pb.ListVersionsResponse:
        name = convert.name(request.name)
        asked = convert.listing(request.page_size, request.page_token, "versions", name)
        return convert.versions_response(await self._registry.versions(current().tenant_id, name, asked.page), asked)

    async def LabelPrompt(self, request: pb.LabelPromptRequest, context: Any) -> pb.LabelPromptResponse:
        name, label = convert.name(request.name), convert.label(request.label)
        pointed = await self._registry.point(current().tenant_id, name, label, convert.targets(request))
        return pb.LabelPromptResponse(label=convert.prompt_label(label, pointed))

    async def Diff(self, request: pb.DiffRequest, context: Any) -> pb.DiffResponse:
        before, after = convert.reference(request.before, "before"), convert.reference(request.after, "after")
        return convert.diff_response(await self._registry.compare(current().tenant_id, before, after))

    async def Render(self, request: pb.RenderRequest, context: Any) -> pb.RenderResponse:
        rendered = await self._registry.render(
            current().tenant_id,
            convert.reference(request.reference),
            convert.values(request),
            key=convert.key(request.key),
            generation_id=convert.generation_id(request),
        )
        return convert.render_response(rendered)

    async def ListPromptGenerations(
        self, request: pb.ListPromptGenerationsRequest, context: Any
    ) -> pb.ListPromptGenerationsResponse:
        name, version = convert.name(request.name), request.version and convert.version(request.version)
        asked = convert.listing(request.page_size, request.page_token, "generations", name, version)
        found = await self._registry.generations(current().tenant_id, name, version, asked.page)
        return convert.generations_response(found, asked)
