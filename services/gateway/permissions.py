"""Which role may call which method from outside. What is not here may not be called: deny is the default."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

ADMIN: Final = "admin"
OPERATOR: Final = "operator"
AUDITOR: Final = "auditor"
TENANT_USER: Final = "tenant_user"
ROLES: Final = frozenset({ADMIN, OPERATOR, AUDITOR, TENANT_USER})

_EVERYONE: Final = ROLES
_WORKERS: Final = frozenset({ADMIN, OPERATOR, TENANT_USER})
_OPERATORS: Final = frozenset({ADMIN, OPERATOR})
_OVERSEERS: Final = frozenset({ADMIN, OPERATOR, AUDITOR})
_ADMINS: Final = frozenset({ADMIN})
_NOBODY: Final[frozenset[str]] = frozenset()

_BY_SERVICE: Final[dict[str, dict[str, frozenset[str]]]] = {
    "agentnet.gateway.v1.IdentityService": {"GetCaller": _EVERYONE},
    "agentnet.gateway.v1.KeyService": {"CreateKey": _ADMINS, "ListKeys": _OVERSEERS, "RevokeKey": _ADMINS},
    "agentnet.gateway.v1.HealthService": {"GetHealth": _EVERYONE, "GetLiveness": _EVERYONE},
    "agentnet.orchestrator.v1.AgentService": {
        "CreateAgent": _OPERATORS,
        "GetAgent": _EVERYONE,
        "ListAgents": _EVERYONE,
        "UpdateAgent": _OPERATORS,
        "SetAgentState": _OPERATORS,
        "RunAgent": _WORKERS,
    },
    "agentnet.orchestrator.v1.SessionService": {
        "StartSession": _WORKERS,
        "GetSession": _EVERYONE,
        "ListSessions": _EVERYONE,
        "ListTurns": _EVERYONE,
        "WatchSession": _EVERYONE,
        "AdvanceSession": _WORKERS,
        "PauseSession": _WORKERS,
        "ResumeSession": _WORKERS,
        "CancelSession": _WORKERS,
    },
    "agentnet.orchestrator.v1.TaskGraphService": {
        "PlanTasks": _WORKERS,
        "ExecuteTasks": _WORKERS,
        "GetTaskGraph": _EVERYONE,
    },
    "agentnet.orchestrator.v1.EvaluationService": {"RunEvaluation": _OPERATORS, "GetEvaluation": _EVERYONE},
    "agentnet.inference.v1.InferenceService": {
        "Generate": _WORKERS,
        "GenerateText": _WORKERS,
        "Attach": _WORKERS,
        "CancelGeneration": _WORKERS,
        "Embed": _WORKERS,
        "ListModels": _EVERYONE,
    },
    "agentnet.policy.v1.PolicyService": {
        "CreateBundle": _OPERATORS,
        "GetBundle": _EVERYONE,
        "ListBundles": _EVERYONE,
        "LabelBundle": _OPERATORS,
        "Check": _WORKERS,
        "WatchBundles": _OVERSEERS,
        "RecordViolations": _NOBODY,
        "ListViolations": _OVERSEERS,
    },
    "agentnet.memory.v1.MemoryService": {
        "Remember": _WORKERS,
        "GetMemory": _EVERYONE,
        "ListMemories": _EVERYONE,
        "Recall": _WORKERS,
        "Forget": _WORKERS,
        "AppendTurn": _NOBODY,
        "GetContext": _WORKERS,
        "UpdateMemory": _WORKERS,
    },
    "agentnet.memory.v1.BulkService": {
        "RememberMany": _WORKERS,
        "ForgetMany": _OPERATORS,
        "GetMemoryUsage": _EVERYONE,
        "SetRetention": _OPERATORS,
        "PruneMemories": _OPERATORS,
        "ConsolidateMemories": _WORKERS,
        "ReembedMemories": _OPERATORS,
    },
    "agentnet.memory.v1.FactService": {
        "RecordFacts": _WORKERS,
        "ListFacts": _EVERYONE,
        "ListRelatedFacts": _EVERYONE,
        "EndFact": _WORKERS,
        "ForgetFacts": _OPERATORS,
    },
    "agentnet.memory.v1.ConversationService": {
        "GetConversation": _EVERYONE,
        "CompactConversation": _WORKERS,
    },
    "agentnet.memory.v1.EmbeddingSetService": {
        "AddToEmbeddingSet": _OPERATORS,
        "CompareWithEmbeddingSet": _WORKERS,
        "DeleteEmbeddingSet": _OPERATORS,
    },
    "agentnet.tools.v1.ToolService": {
        "RegisterTool": _OPERATORS,
        "GetTool": _EVERYONE,
        "ListTools": _EVERYONE,
        "InvokeTool": _OPERATORS,
        "StreamTool": _OPERATORS,
    },
    "agentnet.cost.v1.CostService": {
        "Reserve": _NOBODY,
        "ExtendLease": _NOBODY,
        "Settle": _NOBODY,
        "SummarizeCost": _OVERSEERS | _WORKERS,
        "ListCostEvents": _OVERSEERS,
        "GetBudget": _EVERYONE,
        "SetBudget": _ADMINS,
    },
    "grpc.reflection.v1alpha.ServerReflection": {"ServerReflectionInfo": _EVERYONE},
}

METHODS: Final = {
    f"/{service}/{method}": roles for service, methods in _BY_SERVICE.items() for method, roles in methods.items()
}


def allowed(path: str, roles: Collection[str]) -> bool:
    """Whether one of these roles may call the method at this gRPC path."""
    return bool(METHODS.get(path, _NOBODY).intersection(roles))
