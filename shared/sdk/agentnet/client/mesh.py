"""The client of a mesh: `async with AgentNet.connect() as mesh`."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from agentnet.client.calls import unary
from agentnet.client.costs import Costs
from agentnet.client.credentials import find_target
from agentnet.client.dispatch import Dispatch, History, Relationships, Templates
from agentnet.client.evaluations import Evaluations
from agentnet.client.governance import Keys, Policies, Tools
from agentnet.client.histories import Histories
from agentnet.client.inference import Inference
from agentnet.client.knowledge import Memories
from agentnet.client.memories import MemoryManager
from agentnet.client.sessions import Agents, Sessions
from agentnet.client.task_graphs import Checkpoints, TaskGraphs
from agentnet.client.transport import Transport
from agentnet.common.v1 import principal_pb2
from agentnet.gateway.v1 import (
    health_service_pb2,
    health_service_pb2_grpc,
    identity_service_pb2,
    identity_service_pb2_grpc,
)


class AgentNet:
    """One mesh, one caller. Close it, or use it as a context manager.

    Every method raises AgentNetError, with the code, the reason, the field at fault and a suggestion.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.agents = Agents(transport)
        self.sessions = Sessions(transport)
        self.histories = Histories(transport)
        self.task_graphs = TaskGraphs(transport, self.sessions)
        self.checkpoints = Checkpoints(transport)
        self.evaluations = Evaluations(transport)
        self.inference = Inference(transport)
        self.tools = Tools(transport)
        self.policies = Policies(transport)
        self.memories = Memories(transport)
        self.costs = Costs(transport)
        self.keys = Keys(transport)
        self.dispatch = Dispatch(transport)
        self.relationships = Relationships(transport)
        self.history = History(transport)
        self.templates = Templates(transport)

    @classmethod
    def connect(cls, address: str | None = None, *, credential: str | None = None) -> Self:
        """A client of the mesh at `address`, host:port, or https://host:port over TLS, with a token or an API key.

        Without them: AGENTNET_ADDRESS, AGENTNET_TOKEN or AGENTNET_API_KEY, else the local mesh. The connection is made
        by the first call.
        """
        return cls(Transport(find_target(address, credential)))

    def again(self) -> Self:
        """Another client of the same mesh and caller, over a connection of its own."""
        return type(self)(Transport(self._transport.target))

    @property
    def address(self) -> str:
        """Where the mesh is."""
        return self._transport.target.address

    def memory_of(self, agent: str, *, auto_store_interactions: bool = True, max_tokens: int = 2_000) -> MemoryManager:
        """The memory of an agent that this program runs itself."""
        return MemoryManager(
            self._transport, agent, auto_store_interactions=auto_store_interactions, max_tokens=max_tokens
        )

    async def caller(self) -> principal_pb2.Principal:
        """Who the mesh takes this client for."""
        stub = identity_service_pb2_grpc.IdentityServiceStub(self._transport.channel)
        call = stub.GetCaller(identity_service_pb2.GetCallerRequest(), **self._transport.options())
        return (await unary(call)).principal

    async def health(self) -> health_service_pb2.GetHealthResponse:
        """How the mesh is, part by part."""
        stub = health_service_pb2_grpc.HealthServiceStub(self._transport.channel)
        return await unary(stub.GetHealth(health_service_pb2.GetHealthRequest(), **self._transport.options(timeout=5)))

    async def close(self) -> None:
        """Ends the connection."""
        await self._transport.channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
