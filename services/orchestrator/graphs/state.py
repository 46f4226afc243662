"""The state of a graph: a fold over its log. Any prefix folds to the state the live graph had there.

The fold moves the state on in place and touches only what an event is about, so that a step of a graph of a thousand
nodes costs what one of ten does. Whoever wants an earlier state folds a shorter log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from agentnet.common.v1 import failure_pb2, usage_pb2
from agentnet.orchestrator.v1 import event_pb2, input_pb2, session_pb2, task_event_pb2, task_graph_pb2
from services.orchestrator.graphs import effects

COMPLETED: Final = task_graph_pb2.TASK_STATUS_COMPLETED
FAILED: Final = task_graph_pb2.TASK_STATUS_FAILED
SKIPPED: Final = task_graph_pb2.TASK_STATUS_SKIPPED
CANCELLED: Final = task_graph_pb2.TASK_STATUS_CANCELLED

Event = event_pb2.SessionEvent
Names = tuple[str, ...]
# A set that keeps the order in which its members came.
Queue = dict[str, None]


@dataclass(slots=True)
class Trying:
    """A try of a node, at work. `heard` is the last event of its generation that is in the log; `effect` the call of a
    tool it is instead.
    """

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
    effect: task_graph_pb2.ToolEffect | None = None
    # What a person's leave excuses it from rules by, and how often people were asked before.
    override_id: str = ""
    asks: int = 0
    # What the tries before it spent; with its own, once it broke off.
    usage: usage_pb2.Usage = field(default_factory=usage_pb2.Usage)
    cost_micros_usd: int = 0

    @property
    def generation_id(self) -> str:
        """What inference knows it by."""
        return self.turn_id


@dataclass(frozen=True, slots=True)
class Broken:
    """A node whose last try broke off; `answer` is what a person said to that, if anybody was asked."""

    last: Trying
    failure: failure_pb2.Failure
    answer: event_pb2.InputGiven | None = None

    @property
    def agent(self) -> str:
        """Whose try it was."""
        return self.last.agent


@dataclass(slots=True)
class GraphState:
    """Everything `next_step` looks at."""

    session: session_pb2.Session = field(default_factory=session_pb2.Session)
    last_sequence: int = 0
    graph: task_graph_pb2.TaskGraph = field(default_factory=task_graph_pb2.TaskGraph)
    # Made anew when the graph grows.
    nodes: dict[str, task_graph_pb2.TaskNode] = field(default_factory=dict)
    depends_on: dict[str, Names] = field(default_factory=dict)
    dependents: dict[str, Names] = field(default_factory=dict)
    # Every node that has not ended, with how many of its dependencies have not.
    blocked: dict[str, int] = field(default_factory=dict)
    ready: Queue = field(default_factory=dict)
    doomed: Queue = field(default_factory=dict)
    trying: dict[str, Trying] = field(default_factory=dict)
    broken: dict[str, Broken] = field(default_factory=dict)
    # Those that broke off and wait for a person, and what people are asked.
    held: dict[str, Broken] = field(default_factory=dict)
    inputs: dict[str, input_pb2.HumanInput] = field(default_factory=dict)
    results: dict[str, task_graph_pb2.TaskResult] = field(default_factory=dict)
    started: Queue = field(default_factory=dict)
    failed: int = 0
    paused: bool = False
    cancelled: bool = False
    waiting: bool = False
    takeovers: int = 0
    # Takeovers since something last ended: a long graph may outlive many owners, one that kills its owners may not.
    fruitless: int = 0
    signals: set[str] = field(default_factory=set)
    finished: bool = False
    keys: dict[str, str] = field(default_factory=dict)
    # Calls of tools that an earlier run began and whose outcome it never knew.
    effects: dict[str, task_graph_pb2.ToolEffect] = field(default_factory=dict)
    checkpoint_id: str = ""
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_micros_usd: int = 0
    _speaking: dict[str, str] = field(default_factory=dict)

    @property
    def progress(self) -> task_graph_pb2.GraphProgress:
        running = len(self.trying) + len(self.broken) + len(self.held)
        return task_graph_pb2.GraphProgress(
            total=len(self.nodes), running=running, ended=len(self.results), failed=self.failed
        )

    def node_of(self, turn_id: str) -> str:
        """The node a try belongs to; empty when it is not at work."""
        return self._speaking.get(turn_id, "")

    @property
    def interrupted(self) -> dict[str, Broken]:
        """Every node between two tries."""
        return {**self.broken, **self.held}

    def began(self, name: str, trying: Trying) -> None:
        """A node is at work."""
        self.trying[name] = trying
        self._speaking[trying.turn_id] = name
        self.started[name] = None
        self.broken.pop(name, None)
        self.ready.pop(name, None)

    def stopped(self, name: str) -> Trying | None:
        """A node is no longer at work; what it was at, if it was."""
        trying = self.trying.pop(name, None)
        if trying is not None:
            self._speaking.pop(trying.turn_id, None)
        return trying


def fold(state: GraphState, events: Iterable[Event]) -> GraphState:
    """Moves the state on by these events, in place, and returns it."""
    for event in events:
        state.last_sequence = event.sequence
        if change := _CHANGES.get(event.WhichOneof("payload") or ""):
            change(state, event)
    return state


def together(one: usage_pb2.Usage, other: usage_pb2.Usage) -> usage_pb2.Usage:
    """The tokens of both."""
    return usage_pb2.Usage(
        input_tokens=one.input_tokens + other.input_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
        cached_input_tokens=one.cached_input_tokens + other.cached_input_tokens,
        reasoning_tokens=one.reasoning_tokens + other.reasoning_tokens,
        estimated=one.estimated or other.estimated,
    )


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


def _session_started(state: GraphState, event: Event) -> None:
    began = event.session_started
    state.session, state.graph = began.session, began.task_graph
    state.results = {result.node_id: result for result in began.task_results}
    state.started = dict.fromkeys(state.results)
    state.keys = dict(began.task_keys)
    state.effects = dict(began.task_effects)
    _joined(state, began.task_graph.nodes, rewired=())


def _joined(
    state: GraphState, nodes: Sequence[task_graph_pb2.TaskNode], *, rewired: Sequence[task_event_pb2.Dependencies]
) -> None:
    """With these nodes, and what depends on them; everything that follows is worked out anew."""
    depends_on = state.depends_on
    depends_on.update({node.id: tuple(node.depends_on) for node in nodes})
    depends_on.update({change.node_id: tuple(change.depends_on) for change in rewired})
    dependents: dict[str, list[str]] = {}
    for name, wanted in depends_on.items():
        for before in wanted:
            dependents.setdefault(before, []).append(name)
    state.blocked = {
        name: sum(before not in state.results for before in wanted)
        for name, wanted in depends_on.items()
        if name not in state.results
    }
    begun = state.trying.keys() | state.interrupted.keys()
    state.nodes = {**state.nodes, **{node.id: node for node in nodes}}
    state.dependents = {name: tuple(after) for name, after in dependents.items()}
    state.ready = {name: None for name, count in state.blocked.items() if not count and name not in begun}


def _task_started(state: GraphState, event: Event) -> None:
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
        effect=began.effect if began.HasField("effect") else None,
    )
    if before is not None:
        trying.usage, trying.cost_micros_usd = before.last.usage, before.last.cost_micros_usd
        trying.asks = before.last.asks
        if before.answer is not None:
            trying.override_id, trying.asks = before.answer.override_id, before.last.asks + 1
    state.began(began.node_id, trying)
    state.waiting = False


def _tokens_produced(state: GraphState, event: Event) -> None:
    tokens = event.tokens_produced
    _heard(state, tokens.turn_id, tokens.generation_sequence, tokens.text)


def _monitor_verdict(state: GraphState, event: Event) -> None:
    verdict = event.monitor_verdict
    _heard(state, verdict.turn_id, verdict.generation_sequence, "")


def _heard(state: GraphState, turn_id: str, sequence: int, text: str) -> None:
    if name := state.node_of(turn_id):
        known = state.trying[name]
        known.text += text
        known.heard = max(known.heard, sequence)


def _failed_over(state: GraphState, event: Event) -> None:
    name = state.node_of(event.failed_over.turn_id)
    if name and event.failed_over.restarted:
        state.trying[name].text = ""


def _task_interrupted(state: GraphState, event: Event) -> None:
    broke = event.task_interrupted
    last = state.stopped(broke.node_id)
    if last is not None:
        if last.effect is not None:
            last.effect = effects.after(last.effect, broke.failure)
        last.usage = together(last.usage, broke.usage)
        last.cost_micros_usd += broke.cost_micros_usd
        state.broken[broke.node_id] = Broken(last, broke.failure)
        state.calls += 1


def _input_requested(state: GraphState, event: Event) -> None:
    asked = event.input_requested.input
    state.inputs[asked.id] = asked
    for name in [name for name, one in state.broken.items() if one.last.turn_id == asked.turn_id]:
        state.held[name] = state.broken.pop(name)


def _input_given(state: GraphState, event: Event) -> None:
    asked = state.inputs.pop(event.input_given.input_id, None)
    for name in [name for name, one in state.held.items() if asked and one.last.turn_id == asked.turn_id]:
        state.broken[name] = replace(state.held.pop(name), answer=event.input_given)


def _task_finished(state: GraphState, event: Event) -> None:
    result = event.task_finished.result
    name = result.node_id
    for queue in (state.blocked, state.ready, state.broken, state.doomed):
        queue.pop(name, None)
    if held := state.held.pop(name, None):
        state.inputs = {key: one for key, one in state.inputs.items() if one.turn_id != held.last.turn_id}
    state.results[name] = result
    state.started[name] = None
    state.calls += state.stopped(name) is not None
    state.failed += result.status == FAILED
    state.fruitless = 0
    state.input_tokens += result.usage.input_tokens
    state.output_tokens += result.usage.output_tokens
    state.cost_micros_usd += result.cost_micros_usd
    for after in state.dependents.get(name, ()):
        if after in state.blocked:
            state.blocked[after] -= 1
            if not state.blocked[after]:
                state.ready[after] = None


def _graph_grown(state: GraphState, event: Event) -> None:
    grown = event.graph_grown
    _joined(state, grown.nodes, rewired=grown.rewired)


def _signal_received(state: GraphState, event: Event) -> None:
    received = event.signal_received
    state.signals.add(received.signal_id)
    state.waiting = False
    match received.signal:
        case "pause":
            state.paused = True
        case "resume":
            state.paused = False
        case "cancel":
            state.cancelled = True
        case "cancel_task" if received.target in state.nodes:
            state.doomed.update({name: None for name in descendants(state, received.target) if name in state.blocked})


def _session_waiting(state: GraphState, _event: Event) -> None:
    """A run that came as far as waiting is no poison: its takeovers count from anew, as in its lease."""
    state.waiting, state.takeovers, state.fruitless = True, 0, 0


def _session_taken_over(state: GraphState, event: Event) -> None:
    state.takeovers = event.session_taken_over.takeovers
    state.fruitless += 1


def _checkpoint_saved(state: GraphState, event: Event) -> None:
    state.checkpoint_id = event.checkpoint_saved.checkpoint_id


def _session_finished(state: GraphState, event: Event) -> None:
    state.session, state.finished = event.session_finished.session, True


_CHANGES: Final[dict[str, Callable[[GraphState, Event], None]]] = {
    "session_started": _session_started,
    "task_started": _task_started,
    "tokens_produced": _tokens_produced,
    "monitor_verdict": _monitor_verdict,
    "failed_over": _failed_over,
    "task_interrupted": _task_interrupted,
    "input_requested": _input_requested,
    "input_given": _input_given,
    "task_finished": _task_finished,
    "graph_grown": _graph_grown,
    "signal_received": _signal_received,
    "session_waiting": _session_waiting,
    "session_taken_over": _session_taken_over,
    "checkpoint_saved": _checkpoint_saved,
    "session_finished": _session_finished,
}
