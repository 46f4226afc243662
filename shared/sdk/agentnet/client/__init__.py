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
from agentnet.client.streaming import (
    StreamEvent,
    StreamEventType,
    ToolCall,
    run_stream,
    stream_text,
    stream_tool_calls,
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
    "StreamEvent",
    "StreamEventType",
    "TaskGraph",
    "TaskResult",
    "ToolCall",
    "create_orchestrator",
    "create_task_graph_from_dict",
    "run_stream",
    "run_with_checkpointing",
    "stream_text",
    "stream_tool_calls",
]
