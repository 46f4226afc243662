"""The Python client: `from agentnet.client import AgentNet`."""

from __future__ import annotations

from agentnet.client.errors import AgentNetError, MeshNotFound
from agentnet.client.graph import AgentTask, InvalidGraph, TaskGraph, TaskResult, create_task_graph_from_dict
from agentnet.client.mesh import AgentNet
from agentnet.client.orchestrator import (
    AgentOrchestrator,
    CheckpointManager,
    PlannerAgent,
    RunFailed,
    RunResult,
    create_orchestrator,
    run_with_checkpointing,
)

__all__ = [
    "AgentNet",
    "AgentNetError",
    "AgentOrchestrator",
    "AgentTask",
    "CheckpointManager",
    "InvalidGraph",
    "MeshNotFound",
    "PlannerAgent",
    "RunFailed",
    "RunResult",
    "TaskGraph",
    "TaskResult",
    "create_orchestrator",
    "create_task_graph_from_dict",
    "run_with_checkpointing",
]
