"""What an agent is given to read for one node: who it is, its part, what others found, what is asked."""

from __future__ import annotations

import hashlib
from typing import Final

from agentnet.orchestrator.v1 import task_graph_pb2
from services.orchestrator.graphs.schedule import completed
from services.orchestrator.graphs.state import GraphState
from services.orchestrator.prompts import Line

_RESULTS_CHARACTERS: Final = 24_000
_PARTS: Final = {
    task_graph_pb2.TASK_KIND_AGGREGATOR: "Make one result of the results you are given.",
    task_graph_pb2.TASK_KIND_VALIDATOR: (
        "Judge the results you are given. Answer with PASS or FAIL as the first word, then why in one sentence."
    ),
}


def question(state: GraphState, node: task_graph_pb2.TaskNode) -> str:
    """The last message: results of what it depends on, each as much as fits, then the prompt."""
    names = completed(state, node.id)
    share = _RESULTS_CHARACTERS // max(1, len(names))
    found = "\n\n".join(f"## {name}\n{state.results[name].output.strip()[:share]}" for name in names)
    return f"Results so far:\n{found}\n\n{node.prompt}" if found else node.prompt


def lines(node: task_graph_pb2.TaskNode, *, goal: str, system_prompt: str, asked: str) -> tuple[Line, ...]:
    """The messages of a try."""
    aim = goal and f"You work on a part of this goal: {goal}"
    system = "\n\n".join(part for part in (system_prompt, aim, _PARTS.get(node.kind, "")) if part)
    return tuple(Line(role, text) for role, text in (("system", system), ("user", asked)) if text)


def effect_key(
    graph_id: str, node_id: str, *, agent: str, attempt: int, fallback: bool, asked: str, leave: str = ""
) -> str:
    """The key a try's effect happens under once: a digest of the run, the call, its arguments, and by whose `leave`."""
    parts = "\x00".join((graph_id, node_id, agent, "fallback" if fallback else "", str(attempt), leave + asked))
    return f"tsk_{hashlib.blake2b(parts.encode(), digest_size=20).hexdigest()}"
