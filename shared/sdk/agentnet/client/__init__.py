"""The Python client: `from agentnet.client import AgentNet`."""

from __future__ import annotations

from agentnet.client.errors import AgentNetError, MeshNotFound
from agentnet.client.mesh import AgentNet

__all__ = ["AgentNet", "AgentNetError", "MeshNotFound"]
