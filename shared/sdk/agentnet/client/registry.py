"""Agents and functions as a program has them: a registry that finds who answers, a store of functions.

registry = AgentRegistry(mesh)
await registry.register_agent(Agent(name="SearchAgent", system_prompt="You are a search assistant..."))
response = await registry.process(messages=[HumanMessage("Search for...")], conversation_id="123")
agent = await registry.get_agent("SearchAgent")
result = await agent.process_message("Search for...")
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import json_format, struct_pb2

from agentnet.client.errors import AgentNetError, from_failure
from agentnet.client.mesh import AgentNet
from agentnet.orchestrator.v1 import agent_pb2, delegation_pb2, dispatch_service_pb2, event_pb2, turn_pb2
from agentnet.tools.v1 import tool_pb2

_CONFIGURED = ("type", "capabilities", "max_chain_depth", "chain_strategy")
_SAMPLED = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "max_output_tokens", "seed")


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    content: str
    role: str = "user"
    name: str = ""


class HumanMessage(Message):
    """What a person said."""


class AIMessage(Message):
    """What an agent said."""

    def __init__(self, content: str, name: str = "") -> None:
        super().__init__(content, "assistant", name)


@dataclass(frozen=True, slots=True)
class Agent:
    """The definition of an agent. What config_data says beside itself counts where the agent says nothing else."""

    name: str
    system_prompt: str
    description: str = ""
    version: str = ""
    input_schema: Mapping[str, Any] = field(default_factory=dict[str, Any])
    output_schema: Mapping[str, Any] = field(default_factory=dict[str, Any])
    config_data: Mapping[str, Any] = field(default_factory=dict[str, Any])
    max_chain_depth: int = 0
    model: str = ""

    def to_proto(self) -> agent_pb2.Agent:
        """As the mesh takes it."""
        plain = {name: self.config_data[name] for name in _CONFIGURED if name in self.config_data}
        sampling = {name: self.config_data[name] for name in _SAMPLED if name in self.config_data}
        rest = {name: value for name, value in self.config_data.items() if name not in (*_CONFIGURED, *_SAMPLED)}
        made = agent_pb2.Agent(
            name=self.name,
            version=self.version,
            description=self.description,
            system_prompt=self.system_prompt,
            model=self.model,
            input_schema=_struct(self.input_schema),
            output_schema=_struct(self.output_schema),
            config=_struct(rest),
            sampling=agent_pb2.SamplingConfig(**sampling) if sampling else None,
            **plain,
        )
        made.max_chain_depth = self.max_chain_depth or made.max_chain_depth
        return made


@dataclass(frozen=True, slots=True)
class AgentResponse:
    """What an agent answered, in one form for all of them. `data` is the content parsed, when it is JSON."""

    content: str
    agent: str
    session_id: str
    turn: turn_pb2.Turn
    data: Any = None
    delegation: delegation_pb2.Delegation | None = None

    @classmethod
    def of(cls, turn: turn_pb2.Turn, delegation: delegation_pb2.Delegation | None = None) -> AgentResponse:
        try:
            data: Any = json.loads(turn.content)
        except ValueError:
            data = None
        return cls(turn.content, turn.agent, turn.session_id, turn, data, delegation)


@dataclass(frozen=True, slots=True)
class RegisteredAgent:
    """An agent of the mesh, to be asked."""

    mesh: AgentNet
    definition: agent_pb2.Agent

    @property
    def name(self) -> str:
        """With its version, as `Athena@1.0.0`."""
        return f"{self.definition.name}@{self.definition.version}"

    async def process_message(self, message: str | Mapping[str, Any], *, timeout: float = 120.0) -> AgentResponse:
        """One question, one answer; a mapping for an agent that takes data. `timeout` in seconds."""
        prompt = message if isinstance(message, str) else json.dumps(message)
        return AgentResponse.of(await self.mesh.agents.run(self.name, prompt, timeout=timeout))

    def process_message_sync(self, message: str | Mapping[str, Any]) -> AgentResponse:
        """The same for programs without a loop of their own, over a connection of its own."""

        async def ask() -> AgentResponse:
            async with self.mesh.again() as mesh:
                return await RegisteredAgent(mesh, self.definition).process_message(message)

        return asyncio.run(ask())

    async def stream(self, message: str) -> AsyncIterator[str]:
        """The answer as it is spoken. Raises AgentNetError when it fails."""
        session = await self.mesh.sessions.start(message, agents=[self.name], mode="single")
        async for event in self.mesh.sessions.watch(session.id):
            if event.HasField("tokens_produced"):
                yield event.tokens_produced.text
            _check(event)


class AgentRegistry:
    """The mesh's agents: registered, found, and given messages to whoever fits them best."""

    def __init__(self, mesh: AgentNet) -> None:
        self._mesh = mesh

    async def register_agent(self, agent: Agent) -> RegisteredAgent:
        """Makes the agent, or finds it as it is; a definition that says something else becomes the next version."""
        wanted = agent.to_proto()
        try:
            return RegisteredAgent(self._mesh, await self._mesh.agents.create(wanted))
        except AgentNetError as error:
            if error.reason != "AGENT_VERSION_EXISTS":
                raise
        known = await self._mesh.agents.get(agent.name)
        if _says_the_same(known, wanted):
            return RegisteredAgent(self._mesh, known)
        return RegisteredAgent(self._mesh, await self._mesh.agents.update(agent.name, wanted))

    async def get_agent(self, name: str) -> RegisteredAgent:
        """An agent by name, or by name and version. Raises AgentNetError (AGENT_NOT_FOUND)."""
        return RegisteredAgent(self._mesh, await self._mesh.agents.get(name))

    async def process(
        self,
        messages: Sequence[Message],
        conversation_id: str = "",
        *,
        capabilities: Sequence[str] = (),
        timeout: float = 120.0,
    ) -> AgentResponse:
        """Gives the messages to the agent that fits them best; `response.delegation.choice.reason` says why it."""
        told = [dispatch_service_pb2.DispatchMessage(role=m.role, content=m.content, name=m.name) for m in messages]
        request = dispatch_service_pb2.DispatchRequest(
            messages=told, conversation_id=conversation_id, capabilities=capabilities
        )
        answer = await self._mesh.dispatch.dispatch(request, timeout=timeout)
        return AgentResponse.of(answer.turn, answer.delegation)

    async def archive_agent(self, name: str) -> None:
        """It starts nothing new: a version, or by the bare name all. Raises AgentNetError (AGENT_NOT_FOUND)."""
        versions = [name]
        if "@" not in name:
            known = [f"{found.name}@{found.version}" async for found in self._mesh.agents.list(name=name)]
            versions = known or versions
        for version in versions:
            await self._mesh.agents.set_state(version, agent_pb2.AGENT_STATE_ARCHIVED)


class FunctionStore:
    """Functions in the mesh's sandbox: stored by version, run by name."""

    def __init__(self, mesh: AgentNet) -> None:
        self._mesh = mesh

    async def store_function(
        self,
        name: str,
        code: str,
        description: str,
        *,
        input_schema: Mapping[str, Any],
        output_schema: Mapping[str, Any] | None = None,
        is_async: bool = False,
        version: str = "1.0.0",
        config: Mapping[str, Any] | None = None,
        allowed_agents: Sequence[str] = (),
    ) -> tool_pb2.Tool:
        """Stores a version of a function; its entry is the function of that name. Raises AgentNetError
        (FUNCTION_REJECTED, TOOL_VERSION_EXISTS).
        """
        function = tool_pb2.Function(code=code, entry_point=name, is_async=is_async)
        limits = dict(config or {})
        if "memory_limit" in limits:
            function.memory_limit_mib = int(limits["memory_limit"])
        if "timeout" in limits:
            function.timeout.FromMilliseconds(int(float(limits["timeout"]) * 1000))
        function.allowed_imports.extend(limits.get("allowed_imports", ()))
        function.requires_context = bool(limits.get("requires_context", False))
        if "safe_mode" in limits:
            function.safe_mode = bool(limits["safe_mode"])
        tool = tool_pb2.Tool(
            name=name,
            version=version,
            description=description,
            input_schema=_struct(input_schema),
            output_schema=_struct(output_schema or {}),
            exec_mode="python",
            allowed_agents=allowed_agents,
            function=function,
        )
        return await self._mesh.tools.register(tool)

    async def execute_function(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Runs a function and returns what it returned. Raises AgentNetError (FUNCTION_FAILED)."""
        answer = await self._mesh.tools.invoke(name, dict(arguments))
        if answer.finished.HasField("failure"):
            raise from_failure(answer.finished.failure)
        return json_format.MessageToDict(answer.finished.result)


def _says_the_same(known: agent_pb2.Agent, wanted: agent_pb2.Agent) -> bool:
    """Whether everything that is wanted is there already."""
    return all(
        getattr(known, name.name) == value
        for name, value in wanted.ListFields()
        if name.name not in ("version", "state")
    )


def _check(event: event_pb2.SessionEvent) -> None:
    if event.HasField("session_finished") and event.session_finished.session.HasField("failure"):
        raise from_failure(event.session_finished.session.failure)


def _struct(value: Mapping[str, Any]) -> struct_pb2.Struct:
    return json_format.ParseDict(dict(value), struct_pb2.Struct())
