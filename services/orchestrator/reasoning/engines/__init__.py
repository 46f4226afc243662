"""Reasoning engines by name: those that ship, and those of one's own by entry point.

An engine of one's own is an entry point in the group `agentnet.reasoning_engines`: a function that takes the agent's
engine_config and returns an Engine; `docs/agents.md` has the template.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any, Final

from pydantic import ValidationError

from agentnet.orchestrator.v1 import agent_pb2
from services.orchestrator.errors import EngineFailed, NameUnknown
from services.orchestrator.reasoning.engines.contract import Engine
from services.orchestrator.reasoning.engines.retrieval import Retrieval
from services.orchestrator.reasoning.engines.rules import Rules
from shared import fields
from shared.errors import InvalidArgument

GROUP: Final = "agentnet.reasoning_engines"
MODEL: Final = "llm"
_FIELD: Final = "agent.engine"
Factory = Callable[[Mapping[str, Any]], Engine]
_SHIPPED: Final[Mapping[str, Factory]] = {"rules": Rules, "retrieval": Retrieval}


def thinks_by_model(agent: agent_pb2.Agent) -> bool:
    """Whether a model speaks for the agent, and no engine."""
    return agent.engine in ("", MODEL)


def check(agent: agent_pb2.Agent) -> None:
    """Raises NameUnknown for an engine that is not installed, and InvalidArgument when it refuses its config."""
    config = fields.mapping(agent.engine_config, "agent.engine_config", limit=65_536)
    if not thinks_by_model(agent):
        _made(agent.engine, config)


def engine_of(agent: agent_pb2.Agent) -> Engine:
    """The agent's engine. Raises EngineFailed when this replica cannot make it."""
    config = fields.mapping(agent.engine_config, "agent.engine_config", limit=1 << 20)
    try:
        return _made(agent.engine, config)
    except InvalidArgument as error:
        raise EngineFailed(error.message, engine=agent.engine) from None


def _made(name: str, config: Mapping[str, Any]) -> Engine:
    factory = _SHIPPED.get(name) or _plugin(name)
    try:
        return factory(config)
    except (TypeError, ValueError, KeyError) as error:
        raise InvalidArgument(
            f"the engine {name} refuses its config: {_why(error)}", field="agent.engine_config"
        ) from None


def _why(error: Exception) -> str:
    """One line: every fault of form with its path, or the first line of what an engine of one's own says."""
    if isinstance(error, ValidationError):
        faults = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        return "; ".join(faults)[:2000]
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__


@lru_cache(maxsize=128)
def _plugin(name: str) -> Factory:
    for found in entry_points(group=GROUP, name=name):
        try:
            factory: Factory = found.load()
        except (ImportError, AttributeError) as error:
            raise InvalidArgument(f"the engine {name} does not load: {error}", field=_FIELD) from None
        return factory
    known = ", ".join(sorted({MODEL, *_SHIPPED, *(found.name for found in entry_points(group=GROUP))}))
    raise NameUnknown(f"no reasoning engine {name}; this mesh has {known}", field=_FIELD, known=known)
