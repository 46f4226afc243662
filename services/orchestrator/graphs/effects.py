"""The call a node makes of a tool: its arguments, the key it happens under once, what is known of its outcome."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from google.protobuf import json_format, struct_pb2

from agentnet.common.v1 import failure_pb2
from agentnet.orchestrator.v1 import task_graph_pb2
from services.orchestrator.errors import ConditionFailed
from services.orchestrator.graphs import conditions
from shared import fields
from shared.errors import InvalidArgument, Reason

ARGUMENT_CHARACTERS: Final = 65_536
DONE: Final = task_graph_pb2.EFFECT_OUTCOME_DONE
FAILED: Final = task_graph_pb2.EFFECT_OUTCOME_FAILED
UNKNOWN: Final = task_graph_pb2.EFFECT_OUTCOME_UNKNOWN

ToolEffect = task_graph_pb2.ToolEffect
# Of a refusal that says nothing of whether somebody else had made the call.
IN_DOUBT: Final = "in_doubt"
# What the tool itself said of this call, whatever was said before.
ANSWERED: Final = (Reason.ERROR_REASON_TOOL_FAILED, Reason.ERROR_REASON_FUNCTION_FAILED)
# A call that was not even tried.
_LEFT_ALONE: Final = (Reason.ERROR_REASON_TOOL_CIRCUIT_OPEN, Reason.ERROR_REASON_OVERLOADED)
_DOUBTFUL: Final = (Reason.ERROR_REASON_TOOL_OUTCOME_UNKNOWN, Reason.ERROR_REASON_INTERNAL)


def reserved(
    graph_id: str,
    node: task_graph_pb2.TaskNode,
    results: conditions.Results,
    *,
    depends_on: Sequence[str],
    before: task_graph_pb2.ToolEffect | None,
) -> task_graph_pb2.ToolEffect:
    """The call a node makes now, which is that of `before` when an earlier run had begun one: same key, whatever the
    arguments, so that tools refuses another call under it. Raises ConditionFailed when an argument cannot be computed.
    """
    arguments = _arguments(node, results, depends_on)
    digest = hashlib.sha256(f"{node.tool}\x00{arguments}".encode()).hexdigest()
    effect = ToolEffect(tool=node.tool, arguments=arguments, arguments_digest=digest)
    if before is not None:
        effect.request_id, effect.outcome = before.request_id, UNKNOWN
        effect.reserve_time.CopyFrom(before.reserve_time)
        return effect
    key = f"{graph_id}\x00{node.id}\x00{digest}"
    effect.request_id = f"eff_{hashlib.blake2b(key.encode(), digest_size=20).hexdigest()}"
    return effect


def after(effect: task_graph_pb2.ToolEffect, failure: failure_pb2.Failure | None) -> task_graph_pb2.ToolEffect:
    """The effect after a try that broke off, or, without a failure, that was called off under way."""
    known = ToolEffect()
    known.CopyFrom(effect)
    known.outcome = UNKNOWN if _in_doubt(effect, failure) else FAILED
    return known


def renewed(effect: task_graph_pb2.ToolEffect) -> task_graph_pb2.ToolEffect:
    """The effect of a call that a person let go on; one that cannot have been made is as old as that."""
    known = ToolEffect()
    known.CopyFrom(effect)
    if known.outcome != UNKNOWN:
        known.ClearField("reserve_time")
    return known


def unknown(effect: task_graph_pb2.ToolEffect, last: failure_pb2.Failure) -> failure_pb2.Failure:
    """The failure of a node whose effect may have happened."""
    failure = failure_pb2.Failure(
        reason=Reason.ERROR_REASON_TOOL_OUTCOME_UNKNOWN,
        message=f"{effect.tool} may have done it or not, and is not called again: {last.message}"[:1000],
        metadata=last.metadata,
    )
    failure.metadata["request_id"] = effect.request_id
    failure.metadata["cause"] = Reason.Name(last.reason).removeprefix("ERROR_REASON_")
    return failure


def open_in(results: Mapping[str, task_graph_pb2.TaskResult]) -> dict[str, task_graph_pb2.ToolEffect]:
    """The calls of ended nodes whose outcome is unknown, by node."""
    return {name: result.effect for name, result in results.items() if result.effect.outcome == UNKNOWN}


def _in_doubt(effect: task_graph_pb2.ToolEffect, failure: failure_pb2.Failure | None) -> bool:
    if failure is None or failure.reason in _DOUBTFUL or IN_DOUBT in failure.metadata:
        return True
    if failure.reason in ANSWERED:
        return False
    return effect.outcome == UNKNOWN or (failure.retryable and failure.reason not in _LEFT_ALONE)


def _arguments(node: task_graph_pb2.TaskNode, results: conditions.Results, depends_on: Sequence[str]) -> str:
    try:
        given: dict[str, Any] = dict(fields.mapping(node.arguments, "arguments", limit=ARGUMENT_CHARACTERS))
    except InvalidArgument as error:
        raise ConditionFailed(error.message, node_id=node.id) from None
    for name, expression in node.argument_expressions.items():
        given[name] = conditions.value(expression, results, node_id=node.id, depends_on=depends_on)
    try:
        said = json.dumps(given, sort_keys=True, separators=(",", ":"), allow_nan=False)
        # As tools will read it: whole numbers are whole, and there is nothing in it that JSON has not.
        read = fields.mapping(json_format.Parse(said, struct_pb2.Struct()), "arguments", limit=ARGUMENT_CHARACTERS)
    except (TypeError, ValueError, RecursionError, json_format.ParseError, InvalidArgument) as error:
        told = str(error).splitlines()[0][:300]
        raise ConditionFailed(f"the arguments are no JSON that a tool takes: {told}", node_id=node.id) from None
    return json.dumps(read, sort_keys=True, separators=(",", ":"))
