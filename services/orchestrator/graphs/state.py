"""The state of a graph: a pure fold over its log. Any prefix folds to the state the live graph had there.

Each change copies only the maps it touches, so that a step of a large graph costs little more than one of a
small one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final, TypeVar

from agentnet.common.v1 import failure_pb2
from agentnet.orchestrator.v1 import event_pb2, session_pb2, task_event_pb2, task_graph_pb2

COMPLETED: Final = task_graph_pb2.TASK_STATUS_COMPLETED
FAILED: Final = task_graph_pb2.TASK_STATUS_FAILED
SKIPPED: Final = task_graph_pb2.TASK_STATUS_SKIPPED
CANCELLED: Final = task_graph_pb2.TASK_STATUS_CANCELLED

Event = event_pb2.SessionEvent
Value = TypeVar("Value")
Names = tuple[str, ...]
# A set that keeps the order in which its members came.
Queue = Mapping[str, None]


@dataclass(frozen=True, slots=True)
class Trying:
    """A try of a node, at work. `heard` is the last event of its generation that is in the log."""

    turn_id: str
    agent: str
    attempt: int
    fallback: bool
    prompt: str
    first_started_at: datetime
    started_at: datetime
    retries: int
    text: str = ""
    heard: int = 0


@dataclass(frozen=True, slots=True)
class Broken:
    """A node whose last try broke off."""

    last: Trying
    failure: failure_pb2.Failure


@dataclass(frozen=True, slots=True)
class GraphState:
    """Everything `next_step` looks at."""

    session: session_pb2.Session = field(default_factory=session_pb2.Session)
    last_sequence: int = 0
    graph: task_graph_pb2.TaskGraph = field(default_factory=task_graph_pb2.TaskGraph)
    nodes: Mapping[str, task_graph_pb2.TaskNode] = field(default_factory=dict)
    depends_on: Mapping[str, Names] = field(default_factory=dict)
    dependents: Mapping[str, Names] = field(default_factory=dict)
    blocked: Mapping[str, int] = field(default_factory=dict)
    ready: Queue = field(default_factory=dict)
    doomed: Queue = field(default_factory=dict)
    trying: Mapping[str, Trying] = field(default_factory=dict)
    broken: Mapping[str, Broken] = field(default_factory=dict)
    results: Mapping[str, task_graph_pb2.TaskResult] = field(default_factory=dict)
    started: Queue = field(default_factory=dict)
    failed: int = 0
    paused: bool = False
    cancelled: bool = False
    waiting: bool = False
    takeovers: int = 0
    # Takeovers since something last ended: a long graph may outlive many owners, one that kills its owners may not.
    fruitless: int = 0
    signals: frozenset[str] = frozenset()
    finished: bool = False
    keys: Mapping[str, str] = field(default_factory=dict)
    checkpoint_id: str = ""
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_micros_usd: int = 0

    @property
    def progress(self) -> task_graph_pb2.GraphProgress:
        running = len(self.trying) + len(self.broken)
        return task_graph_pb2.GraphProgress(
            total=len(self.nodes), running=running, ended=len(self.results), failed=self.failed
        )

    def node_of(self, turn_id: str) -> str:
        """The node a try belongs to; empty when it is not at work."""
        return next((name for name, known in self.trying.items() if known.turn_id == turn_id), "")


def fold(state: GraphState, events: Iterable[Event]) -> GraphState:
    """The state after these events."""
    for event in events:
        state = replace(state, last_sequence=event.sequence)
        if change := _CHANGES.get(event.WhichOneof("payload") or ""):
            state = change(state, event)
    return state


def descendants(state: GraphState, name: str) -> list[str]:
    """A node and all that depend on it, near ones first."""
    found, place = [name], 0
    seen = {name}
    while place < len(found):
        for after in state.dependents.get(found[place], ()):
            if after not in seen:
                seen.add(after)
                found.append(after)
        place += 1
    return found


def _session_started(state: GraphState, event: Event) -> GraphState:
    began = event.session_started
    results = {result.node_id: result for result in began.task_results}
    state = replace(
        state,
        session=began.session,
        graph=began.task_graph,
        results=results,
        started=dict.fromkeys(results),
        keys=dict(began.task_keys),
    )
    return _joined(state, began.task_graph.nodes, rewired=())


def _joined(
    state: GraphState, nodes: Sequence[task_graph_pb2.TaskNode], *, rewired: Sequence[task_event_pb2.Dependencies]
) -> GraphState:
    """With these nodes, and what depends on them; everything that follows is worked out anew."""
    depends_on = dict(state.depends_on)
    depends_on.update({node.id: tuple(node.depends_on) for node in nodes})
    depends_on.update({change.node_id: tuple(change.depends_on) for change in rewired})
    dependents: dict[str, list[str]] = {}
    for name, wanted in depends_on.items():
        for before in wanted:
            dependents.setdefault(before, []).append(name)
    blocked = {
        name: sum(before not in state.results for before in wanted)
        for name, wanted in depends_on.items()
        if name not in state.results
    }
    begun = state.trying.keys() | state.broken.keys()
    return replace(
        state,
        nodes={**state.nodes, **{node.id: node for node in nodes}},
        depends_on=depends_on,
        dependents={name: tuple(after) for name, after in dependents.items()},
        blocked=blocked,
        ready={name: None for name, count in blocked.items() if not count and name not in begun},
    )


def _task_started(state: GraphState, event: Event) -> GraphState:
    began = event.task_started
    now = event.time.ToDatetime(UTC)
    before = state.broken.get(began.node_id)
    trying = Trying(
        began.turn_id,
        began.agent,
        began.attempt,
        began.fallback,
        began.prompt,
        first_started_at=before.last.first_started_at if before else now,
        started_at=now,
        retries=before.last.retries + 1 if before else 0,
    )
    return replace(
        state,
        trying={**state.trying, began.node_id: trying},
        broken=_without(state.broken, began.node_id),
        ready=_without(state.ready, began.node_id),
        started={**state.started, began.node_id: None},
        waiting=False,
    )


def _tokens_produced(state: GraphState, event: Event) -> GraphState:
    tokens = event.tokens_produced
    return _heard(state, tokens.turn_id, tokens.generation_sequence, tokens.text)


def _monitor_verdict(state: GraphState, event: Event) -> GraphState:
    verdict = event.monitor_verdict
    return _heard(state, verdict.turn_id, verdict.generation_sequence, "")


def _heard(state: GraphState, turn_id: str, sequence: int, text: str) -> GraphState:
    name = state.node_of(turn_id)
    if not name:
        return state
    known = state.trying[name]
    now = replace(known, text=known.text + text, heard=max(known.heard, sequence))
    return replace(state, trying={**state.trying, name: now})


def _failed_over(state: GraphState, event: Event) -> GraphState:
    name = state.node_of(event.failed_over.turn_id)
    if not name or not event.failed_over.restarted:
        return state
    return replace(state, trying={**state.trying, name: replace(state.trying[name], text="")})


def _task_interrupted(state: GraphState, event: Event) -> GraphState:
    broke = event.task_interrupted
    last = state.trying.get(broke.node_id)
    if last is None:
        return state
    return replace(
        state,
        trying=_without(state.trying, broke.node_id),
        broken={**state.broken, broke.node_id: Broken(last, broke.failure)},
        calls=state.calls + 1,
    )


def _task_finished(state: GraphState, event: Event) -> GraphState:
    result = event.task_finished.result
    name = result.node_id
    blocked = dict(state.blocked)
    blocked.pop(name, None)
    ready = _without(state.ready, name)
    for after in state.dependents.get(name, ()):
        if after in blocked:
            blocked[after] -= 1
            if not blocked[after]:
                ready = {**ready, after: None}
    return replace(
        state,
        results={**state.results, name: result},
        started={**state.started, name: None},
        trying=_without(state.trying, name),
        broken=_without(state.broken, name),
        doomed=_without(state.doomed, name),
        blocked=blocked,
        ready=ready,
        failed=state.failed + (result.status == FAILED),
        fruitless=0,
        calls=state.calls + (name in state.trying),
        input_tokens=state.input_tokens + result.usage.input_tokens,
        output_tokens=state.output_tokens + result.usage.output_tokens,
        cost_micros_usd=state.cost_micros_usd + result.cost_micros_usd,
    )


def _graph_grown(state: GraphState, event: Event) -> GraphState:
    grown = event.graph_grown
    return _joined(state, grown.nodes, rewired=grown.rewired)


def _signal_received(state: GraphState, event: Event) -> GraphState:
    received = event.signal_received
    state = replace(state, signals=state.signals | {received.signal_id}, waiting=False)
    match received.signal:
        case "pause":
            return replace(state, paused=True)
        case "resume":
            return replace(state, paused=False)
        case "cancel":
            return replace(state, cancelled=True)
        case "cancel_task" if received.target in state.nodes:
            lost = {name: None for name in descendants(state, received.target) if name not in state.results}
            return replace(state, doomed={**state.doomed, **lost})
        case _:
            return state


def _session_waiting(state: GraphState, _event: Event) -> GraphState:
    """A run that came as far as waiting is no poison: its takeovers count from anew, as in its lease."""
    return replace(state, waiting=True, takeovers=0, fruitless=0)


def _session_taken_over(state: GraphState, event: Event) -> GraphState:
    return replace(state, takeovers=event.session_taken_over.takeovers, fruitless=state.fruitless + 1)


def _checkpoint_saved(state: GraphState, event: Event) -> GraphState:
    return replace(state, checkpoint_id=event.checkpoint_saved.checkpoint_id)


def _session_finished(state: GraphState, event: Event) -> GraphState:
    return replace(state, session=event.session_finished.session, finished=True)


def _without(values: Mapping[str, Value], name: str) -> Mapping[str, Value]:
    return {key: value for key, value in values.items() if key != name} if name in values else values


_CHANGES: Final[dict[str, Callable[[GraphState, Event], GraphState]]] = {
    "session_started": _session_started,
    "task_started": _task_started,
    "tokens_produced": _tokens_produced,
    "monitor_verdict": _monitor_verdict,
    "failed_over": _failed_over,
    "task_interrupted": _task_interrupted,
    "task_finished": _task_finished,
    "graph_grown": _graph_grown,
    "signal_received": _signal_received,
    "session_waiting": _session_waiting,
    "session_taken_over": _session_taken_over,
    "checkpoint_saved": _checkpoint_saved,
    "session_finished": _session_finished,
}
