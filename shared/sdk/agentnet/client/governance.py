"""What governs agents: tools, policies, keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from google.protobuf import json_format, struct_pb2

from agentnet.client.calls import stream, unary
from agentnet.client.transport import Transport
from agentnet.gateway.v1 import key_service_pb2, key_service_pb2_grpc
from agentnet.policy.v1 import (
    access_service_pb2,
    access_service_pb2_grpc,
    bundle_pb2,
    policy_service_pb2,
    policy_service_pb2_grpc,
    simulation_service_pb2,
    simulation_service_pb2_grpc,
    violation_pb2,
)
from agentnet.tools.v1 import artefact_pb2, governance_pb2, tool_pb2, tool_service_pb2, tool_service_pb2_grpc


class Tools:
    """Registers and invokes tools."""

    def __init__(self, transport: Transport) -> None:
        self._stub = tool_service_pb2_grpc.ToolServiceStub(transport.channel)
        self._call = transport.options

    async def register(self, tool: tool_pb2.Tool) -> tool_pb2.Tool:
        """Stores a version of a tool."""
        return (
            await unary(self._stub.RegisterTool(tool_service_pb2.RegisterToolRequest(tool=tool), **self._call()))
        ).tool

    async def get(self, name: str) -> tool_pb2.Tool:
        """One version: `search` or `search@1.0.0`."""
        return (await unary(self._stub.GetTool(tool_service_pb2.GetToolRequest(name=name), **self._call()))).tool

    async def list(self, *, agent: str = "") -> Sequence[tool_pb2.Tool]:
        """The tools an agent may call; all without an agent. At most 500."""
        request = tool_service_pb2.ListToolsRequest(agent=agent, page_size=500)
        return (await unary(self._stub.ListTools(request, **self._call()))).tools

    async def invoke(
        self,
        name: str,
        arguments: Mapping[str, Any],
        *,
        agent: str = "",
        request_id: str = "",
        override_token: str = "",
        timeout: float = 60.0,
    ) -> tool_service_pb2.InvokeToolResponse:
        """Invokes a tool and waits for its result; `timeout` is in seconds. With a `request_id` it is done once; an
        `override_token` excuses rules, as after CALL_APPROVAL_REQUIRED.
        """
        request = tool_service_pb2.InvokeToolRequest(
            name=name,
            arguments=json_format.ParseDict(dict(arguments), struct_pb2.Struct()),
            agent=agent,
            request_id=request_id,
            override_token=override_token,
        )
        return await unary(self._stub.InvokeTool(request, **self._call(timeout=timeout)))

    async def stream(
        self, name: str, arguments: Mapping[str, Any], *, agent: str = "", override_token: str = ""
    ) -> AsyncIterator[tool_service_pb2.StreamToolResponse]:
        """Invokes a tool and gives its output as it comes; the last event is `finished`."""
        invocation = tool_service_pb2.InvokeToolRequest(
            name=name,
            arguments=json_format.ParseDict(dict(arguments), struct_pb2.Struct()),
            agent=agent,
            override_token=override_token,
        )
        request = tool_service_pb2.StreamToolRequest(invocation=invocation)
        async for event in stream(self._stub.StreamTool(request, **self._call(timeout=None))):
            yield event

    async def set_state(self, name: str, state: tool_pb2.ToolState.ValueType, *, note: str = "") -> tool_pb2.Tool:
        """Moves a version on, as its governance allows."""
        request = governance_pb2.SetToolStateRequest(name=name, state=state, note=note)
        return (await unary(self._stub.SetToolState(request, **self._call()))).tool

    async def review(self, name: str, *, approve: bool, note: str = "") -> governance_pb2.ReviewToolResponse:
        """Says yes or no to a version that waits for reviews."""
        request = governance_pb2.ReviewToolRequest(name=name, approve=approve, note=note)
        return await unary(self._stub.ReviewTool(request, **self._call()))

    async def usage(self, name: str) -> governance_pb2.ToolUsage:
        """How much a tool was used, beside its quotas."""
        request = governance_pb2.GetToolUsageRequest(name=name)
        return (await unary(self._stub.GetToolUsage(request, **self._call()))).usage

    async def artefact(self, invocation_id: str, name: str) -> bytes:
        """What a call left by `attach(name, content)`."""
        request = artefact_pb2.GetToolArtefactRequest(invocation_id=invocation_id, name=name)
        return (await unary(self._stub.GetToolArtefact(request, **self._call()))).content


class Policies:
    """Bundles of rules, and what they caught."""

    def __init__(self, transport: Transport) -> None:
        self._stub = policy_service_pb2_grpc.PolicyServiceStub(transport.channel)
        self._access = access_service_pb2_grpc.AccessServiceStub(transport.channel)
        self._simulation = simulation_service_pb2_grpc.SimulationServiceStub(transport.channel)
        self._call = transport.options

    async def create(
        self, name: str, document: str, *, version: str = "", labels: Sequence[str] = ()
    ) -> bundle_pb2.Bundle:
        """Stores a bundle from YAML or JSON text. Label it "production" to have it enforced."""
        request = policy_service_pb2.CreateBundleRequest(name=name, version=version, document=document, labels=labels)
        return (await unary(self._stub.CreateBundle(request, **self._call()))).bundle

    async def get(self, name: str) -> bundle_pb2.Bundle:
        """One version: `default` or `default@1.0.0`."""
        return (
            await unary(self._stub.GetBundle(policy_service_pb2.GetBundleRequest(name=name), **self._call()))
        ).bundle

    async def list(self, *, name: str = "") -> AsyncIterator[bundle_pb2.Bundle]:
        """All versions of all bundles, or of one, page by page."""
        token = ""
        while True:
            request = policy_service_pb2.ListBundlesRequest(name=name, page_token=token)
            page = await unary(self._stub.ListBundles(request, **self._call()))
            for bundle in page.bundles:
                yield bundle
            if not (token := page.next_page_token):
                return

    async def label(self, name: str, label: str, *, remove: bool = False) -> bundle_pb2.Bundle:
        """Moves a label to a version, such as "production", which is enforced; or takes it off."""
        request = policy_service_pb2.LabelBundleRequest(name=name, label=label, remove=remove)
        return (await unary(self._stub.LabelBundle(request, **self._call()))).bundle

    async def check(self, text: str) -> policy_service_pb2.CheckResponse:
        """Judges a text by what is enforced."""
        return await unary(self._stub.Check(policy_service_pb2.CheckRequest(text=text), **self._call()))

    async def validate(self, document: str) -> simulation_service_pb2.ValidateBundleResponse:
        """Checks a document as `create` does and stores nothing; for every role."""
        request = simulation_service_pb2.ValidateBundleRequest(document=document)
        return await unary(self._simulation.ValidateBundle(request, **self._call(timeout=60.0)))

    async def simulate(self, document: str, *, timeout: float = 300.0) -> simulation_service_pb2.SimulateBundleResponse:
        """What a bundle would have done to the last day's decisions; nothing is stored. `timeout` is in seconds."""
        request = simulation_service_pb2.SimulateBundleRequest(document=document)
        return await unary(self._simulation.SimulateBundle(request, **self._call(timeout=timeout)))

    async def verify_audit(self, *, timeout: float = 300.0) -> access_service_pb2.VerifyAuditResponse:
        """Checks every seal of the audit trail, archive and all; `timeout` is in seconds."""
        request = access_service_pb2.VerifyAuditRequest()
        return await unary(self._access.VerifyAudit(request, **self._call(timeout=timeout)))

    async def violations(
        self, *, session_id: str = "", rule: str = "", shadow: bool = False
    ) -> AsyncIterator[violation_pb2.Violation]:
        """What was caught, newest first, page by page; with `shadow` what bundles that are only tried would have."""
        token = ""
        while True:
            request = policy_service_pb2.ListViolationsRequest(
                session_id=session_id, monitor_name=rule, shadow=shadow, page_token=token
            )
            page = await unary(self._stub.ListViolations(request, **self._call()))
            for violation in page.violations:
                yield violation
            if not (token := page.next_page_token):
                return


class Keys:
    """API keys of the tenant."""

    def __init__(self, transport: Transport) -> None:
        self._stub = key_service_pb2_grpc.KeyServiceStub(transport.channel)
        self._call = transport.options

    async def create(self, display_name: str, *, roles: Sequence[str]) -> key_service_pb2.CreateKeyResponse:
        """Makes a key. Its secret is in the answer and nowhere else."""
        request = key_service_pb2.CreateKeyRequest(display_name=display_name, roles=roles)
        return await unary(self._stub.CreateKey(request, **self._call()))

    async def revoke(self, key_id: str) -> None:
        """Revokes a key; it fails within 5 seconds."""
        await unary(self._stub.RevokeKey(key_service_pb2.RevokeKeyRequest(key_id=key_id), **self._call()))
