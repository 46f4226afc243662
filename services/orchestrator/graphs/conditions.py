"""Conditions in CEL (github.com/google/cel-spec): compiled, without side effects, without eval."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any, Final

from agentnet.orchestrator.v1 import task_graph_pb2
from services.orchestrator.errors import ConditionFailed
from shared.expressions import compiled

LIMIT: Final = 2_000
_WORDS: Final = re.compile(r"[A-Za-z0-9_-]+")
# What the library raises, from parsing or from computing.
_TROUBLE: Final = (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, AttributeError)

Results = Mapping[str, task_graph_pb2.TaskResult]


def trouble(expression: str) -> str:
    """Why an expression does not compile, in one line; empty when it does."""
    try:
        _compiled(expression)
    except _TROUBLE as error:
        return str(error).splitlines()[0][:300]
    return ""


def holds(expression: str, results: Results, *, node_id: str, depends_on: Collection[str]) -> bool:
    """Whether a condition is true. Raises ConditionFailed when it cannot be computed or is no bool."""
    found = value(expression, results, node_id=node_id, depends_on=depends_on)
    if not isinstance(found, bool):
        raise ConditionFailed("the condition is not true or false", node_id=node_id)
    return found


def value(expression: str, results: Results, *, node_id: str, depends_on: Collection[str]) -> Any:
    """What an expression over results comes to. Raises ConditionFailed when it cannot be computed."""
    return _value(expression, {"results": _seen(expression, results, depends_on)}, node_id)


def score(expression: str, result: task_graph_pb2.TaskResult, *, node_id: str) -> float:
    """The score of one result. Raises ConditionFailed when it cannot be computed or is no number."""
    found = _value(expression, {"result": facts(result)}, node_id)
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise ConditionFailed("the score is not a number", node_id=node_id)
    return float(found)


def met(expression: str, seen: dict[str, Any]) -> bool:
    """Whether an expression over these is true. Raises ConditionFailed when it cannot be computed."""
    return _value(expression, seen, "") is True


def facts(result: task_graph_pb2.TaskResult) -> dict[str, Any]:
    """A result as expressions see it."""
    return {
        "output": result.output,
        "json": parsed(result.output),
        "success": result.status == task_graph_pb2.TASK_STATUS_COMPLETED,
        "status": task_graph_pb2.TaskStatus.Name(result.status).removeprefix("TASK_STATUS_"),
        "agent": result.agent,
        "retries": result.retries,
    }


def parsed(text: str) -> Any:
    """The JSON in a text, also inside a fenced block or after a sentence; None without."""
    for start in sorted(place for place in (text.find("{"), text.find("[")) if place >= 0):
        try:
            return json.JSONDecoder().raw_decode(text[start:])[0]
        except (ValueError, RecursionError):
            continue
    return None


def _seen(expression: str, results: Results, depends_on: Collection[str]) -> dict[str, Any]:
    """The results an expression may read: of what the node depends on, and of what it names."""
    named = {*depends_on, *_WORDS.findall(expression)}
    return {name: facts(results[name]) for name in named if name in results}


def _value(expression: str, seen: dict[str, Any], node_id: str) -> Any:
    try:
        return _compiled(expression).execute(seen)
    except _TROUBLE as error:
        told = str(error).splitlines()[0][:300]
        raise ConditionFailed(f"the condition cannot be computed: {told}", node_id=node_id) from None


@lru_cache(maxsize=1024)
def _compiled(expression: str) -> Any:
    if len(expression) > LIMIT:
        raise ValueError(f"it is longer than {LIMIT} characters")
    return compiled(expression)
