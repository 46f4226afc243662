"""The tree of a turn: what was asked, what the agent was given, what it did, what it said; all of it from the log."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Final

from agentnet.orchestrator.v1 import event_pb2, reasoning_service_pb2, turn_pb2
from services.orchestrator.agents.outcome import effect
from services.orchestrator.reasoning import confidence
from shared.errors import Reason

Event = event_pb2.SessionEvent
Node = reasoning_service_pb2.ReasoningNode
Tree = reasoning_service_pb2.ReasoningTree
_SHOWN: Final = 2_000


def generate_reasoning_tree(turn: turn_pb2.Turn, context: Sequence[Event]) -> Tree:
    """The tree of a finished turn, from the turn and the events of its log up to its end."""
    tree = Tree(turn_id=turn.id, session_id=turn.session_id, agent=turn.agent, round=turn.round, time=turn.end_time)
    tree.nodes.append(_node("question", "", reasoning_service_pb2.REASONING_NODE_KIND_QUESTION, turn.prompt))
    tree.nodes.extend(_given(turn))
    tree.nodes.extend(_done(turn, context))
    tree.nodes.append(_node("answer", "question", reasoning_service_pb2.REASONING_NODE_KIND_ANSWER, turn.content))
    for place, insight in enumerate(turn.style_insights, start=1):
        kind = reasoning_service_pb2.REASONING_NODE_KIND_STYLE
        tree.nodes.append(_node(f"style-{place}", "answer", kind, insight))
    supported = confidence.steps(turn)
    tree.nodes.extend(_steps(supported))
    verdicts = sum(node.kind == reasoning_service_pb2.REASONING_NODE_KIND_VERDICT for node in tree.nodes)
    tree.factors.update(confidence.factors(turn, supported, verdicts=verdicts))
    tree.confidence = turn.confidence if turn.HasField("confidence") else fmean(tree.factors.values())
    tree.confidence_basis = turn.confidence_basis or confidence.EVIDENCE
    return tree


def edges(trees: Sequence[Tree], events: Sequence[Event]) -> Sequence[reasoning_service_pb2.ReasoningEdge]:
    """How the turns of a session rest on one another."""
    found: list[reasoning_service_pb2.ReasoningEdge] = []
    for place, tree in enumerate(trees):
        read = {node.text for node in tree.nodes if node.kind == reasoning_service_pb2.REASONING_NODE_KIND_CONTEXT}
        for earlier in trees[:place]:
            name, said = earlier.agent.partition("@")[0], _answer(earlier)
            if f"{name}: {said}"[:_SHOWN] in read:
                edge = {"from_turn_id": earlier.turn_id, "to_turn_id": tree.turn_id, "kind": "read"}
                found.append(reasoning_service_pb2.ReasoningEdge(**edge))
    return [*found, *_handoffs(trees, events)]


def _handoffs(trees: Sequence[Tree], events: Sequence[Event]) -> list[reasoning_service_pb2.ReasoningEdge]:
    """A hand-over joins the source's last turn before it with the target's first one after it."""
    found: list[reasoning_service_pb2.ReasoningEdge] = []
    for event in events:
        passed = event.handed_off
        if not event.HasField("handed_off"):
            continue
        at = event.time.ToNanoseconds()
        before = [t for t in trees if t.agent == passed.source and t.time.ToNanoseconds() <= at]
        after = [t for t in trees if t.agent == passed.target and t.time.ToNanoseconds() > at]
        if before and after:
            edge = {"from_turn_id": before[-1].turn_id, "to_turn_id": after[0].turn_id, "kind": "handed_off"}
            found.append(reasoning_service_pb2.ReasoningEdge(**edge))
    return found


def _given(turn: turn_pb2.Turn) -> list[Node]:
    said = turn.context.short_term
    kinds = reasoning_service_pb2
    nodes = [
        _node(f"context-{place}", "question", kinds.REASONING_NODE_KIND_CONTEXT, line, source=line.partition(":")[0])
        for place, line in enumerate(said, start=1)
    ]
    for place, found in enumerate((*turn.context.semantic_refs, *turn.context.episodic_refs), start=1):
        kind = kinds.REASONING_NODE_KIND_MEMORY
        nodes.append(_node(f"memory-{place}", "question", kind, "", source=found.id, score=found.score))
    return nodes


def _done(turn: turn_pb2.Turn, context: Sequence[Event]) -> list[Node]:
    """Tries that broke off, calls of tools and verdicts of policy, in their order."""
    nodes: list[Node] = []
    ended = {effect(event.tool_finished): event.tool_finished for event in context if event.HasField("tool_finished")}
    for event in context:
        place = len(nodes) + 1
        if event.HasField("turn_interrupted") and event.turn_interrupted.turn_id == turn.id:
            broken = event.turn_interrupted.failure
            why = f"{Reason.Name(broken.reason).removeprefix('ERROR_REASON_')}: {broken.message}"
            kind = reasoning_service_pb2.REASONING_NODE_KIND_ATTEMPT
            source = str(event.turn_interrupted.attempt)
            nodes.append(_node(f"attempt-{place}", "question", kind, why, source=source, score=0))
        elif event.HasField("tool_started") and event.tool_started.turn_id == turn.id:
            used, last = event.tool_started, ended.get(effect(event.tool_started))
            told = f"{used.tool}: {last.failure.message}" if last and last.failure.reason else used.tool
            score = None if last is None else float(not last.failure.reason)
            kind = reasoning_service_pb2.REASONING_NODE_KIND_TOOL
            nodes.append(_node(f"tool-{place}", "question", kind, told, source=effect(used), score=score))
        elif event.HasField("monitor_verdict") and event.monitor_verdict.turn_id == turn.id:
            acted = event.monitor_verdict
            told = f"{acted.action} of the {acted.target}, {acted.severity}"
            kind = reasoning_service_pb2.REASONING_NODE_KIND_VERDICT
            nodes.append(_node(f"verdict-{place}", "question", kind, told, source=f"{acted.bundle}/{acted.rule}"))
    return nodes


def _steps(supported: Sequence[tuple[str, float | None]]) -> list[Node]:
    kind = reasoning_service_pb2.REASONING_NODE_KIND_STEP
    return [
        _node(f"step-{place}", "answer", kind, sentence, score=share)
        for place, (sentence, share) in enumerate(supported, start=1)
    ]


def _answer(tree: Tree) -> str:
    kind = reasoning_service_pb2.REASONING_NODE_KIND_ANSWER
    return next((node.text for node in tree.nodes if node.kind == kind), "")


def _node(
    identifier: str,
    parent: str,
    kind: reasoning_service_pb2.ReasoningNodeKind.ValueType,
    text: str,
    *,
    source: str = "",
    score: float | None = None,
) -> Node:
    return Node(id=identifier, parent_id=parent, kind=kind, text=text[:_SHOWN], source=source, score=score)
