"""The Python client: `from agentnet.client import AgentNet`."""

from __future__ import annotations

from agentnet.client.errors import (
    AgentNetError,
    ConfigError,
    LLMError,
    LLMRateLimitError,
    MeshNotFound,
    RateLimitError,
    ToolError,
)
from agentnet.client.graph import (
    AgentTask,
    Cel,
    InvalidGraph,
    TaskGraph,
    TaskResult,
    ToolTask,
    create_task_graph_from_dict,
)
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
from agentnet.client.registry import (
    Agent,
    AgentRegistry,
    AgentResponse,
    AIMessage,
    FunctionStore,
    HumanMessage,
    Message,
    RegisteredAgent,
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
    "AIMessage",
    "Agent",
    "AgentNet",
    "AgentNetError",
    "AgentOrchestrator",
    "AgentRegistry",
    "AgentResponse",
    "AgentTask",
    "Cel",
    "CheckpointManager",
    "ConfigError",
    "FunctionStore",
    "HumanMessage",
    "InvalidGraph",
    "LLMError",
    "LLMRateLimitError",
    "MeshNotFound",
    "Message",
    "PlannerAgent",
    "RateLimitError",
    "RegisteredAgent",
    "RunFailed",
    "RunResult",
    "StreamEvent",
    "StreamEventType",
    "TaskGraph",
    "TaskResult",
    "ToolCall",
    "ToolError",
    "ToolTask",
    "create_orchestrator",
    "create_task_graph_from_dict",
    "run_stream",
    "run_with_checkpointing",
    "stream_text",
    "stream_tool_calls",
]
