"""A graph played without I/O: the scheduler decides, a script answers, the log is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from agentnet.common.v1 import failure_pb2
from agentnet.inference.v1 import generation_pb2
from agentnet.orchestrator.v1 import event_pb2, session_pb2, task_event_pb2, task_graph_pb2
from services.orchestrator.graphs import asking, outcome, schedule, shapes
from services.orchestrator.graphs.schedule import Await, Begin, Done, Finish, Grow, Settle, Wait
from services.orchestrator.graphs.state import GraphState, fold
from shared.clock import FakeClock
from shared.errors import Reason

Event = event_pb2.SessionEvent
Answer = str | failure_pb2.Failure
Script = Callable[[str, str], Answer]


def node(name: str, *depends_on: str, agent: str = "Athena", **parts: Any) -> task_graph_pb2.TaskNode:
    """A node by its first names, with defaults."""
    given = task_graph_pb2.TaskNode(id=name, prompt=f"Do {name}.", agent=agent, depends_on=depends_on, **parts)
    return shapes.node(given)


def failure(
    reason: Reason.ValueType = Reason.ERROR_REASON_PROVIDER_UNAVAILABLE, *, retryable: bool = True
) -> failure_pb2.Failure:
    return failure_pb2.Failure(reason=reason, message="it broke", retryable=retryable)


@dataclass(slots=True)
class Play:
    """One graph. `begun` is every try in order, as `node:agent`; `most` the most that ran at once."""

    nodes: Sequence[task_graph_pb2.TaskNode]
    script: Script = lambda name, agent: f"{name} by {agent}"
    parallel: int = 5
    results: Sequence[task_graph_pb2.TaskResult] = ()
    state: GraphState = field(default_factory=GraphState)
    log: list[Event] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)
    most: int = 0
    clock: FakeClock = field(default_factory=FakeClock)

    def __post_init__(self) -> None:
        graph = task_graph_pb2.TaskGraph(
            id="tgr_1", goal="All of it", nodes=self.nodes, max_parallel_tasks=self.parallel
        )
        began = event_pb2.SessionStarted(
            session=session_pb2.Session(id="ses_1"), task_graph=graph, task_results=self.results
        )
        self.write(Event(session_started=began))

    def write(self, event: Event) -> None:
        event.sequence = self.state.last_sequence + 1
        event.time.FromDatetime(self.clock.now())
        self.log.append(event)
        self.state = fold(self.state, [event])

    def signal(self, kind: str, target: str = "") -> None:
        received = event_pb2.SignalReceived(signal=kind, signal_id=f"{kind}{len(self.log)}", target=target)
        self.write(Event(signal_received=received))

    def decide(self) -> schedule.Step:
        return schedule.next_step(self.state, max_takeovers=5)

    def step(self) -> schedule.Step:
        """Takes the next step; of what is at work the first answers when nothing else can start."""
        step = self.decide()
        match step:
            case Begin():
                self.begin(step)
            case Settle():
                self.write(outcome.settled(self.state, step, now=self.clock.now()))
            case Grow():
                self.write(Event(graph_grown=step.grown))
            case Await():
                self.answer(next(iter(self.state.trying)))
            case Finish():
                session = session_pb2.Session(id="ses_1", status=step.status, stop_reason=step.reason)
                self.write(Event(session_finished=event_pb2.SessionFinished(session=session)))
            case Wait() | Done():
                pass
        return step

    def begin(self, step: Begin) -> None:
        asked = asking.question(self.state, self.state.nodes[step.node_id])
        key = asking.effect_key(
            "tgr_1", step.node_id, agent=step.agent, attempt=step.attempt, fallback=step.fallback, asked=asked
        )
        began = task_event_pb2.TaskStarted(
            node_id=step.node_id,
            agent=step.agent,
            attempt=step.attempt,
            fallback=step.fallback,
            turn_id=key,
            prompt=asked,
        )
        self.begun.append(f"{step.node_id}:{step.agent}")
        self.write(Event(task_started=began))
        self.most = max(self.most, len(self.state.trying))

    def answer(self, name: str) -> None:
        trying = self.state.trying[name]
        said = self.script(name, trying.agent)
        self.clock.advance(timedelta(seconds=1))
        if isinstance(said, failure_pb2.Failure):
            self.write(outcome.broke_off(name, trying, said))
            return
        self.write(
            Event(tokens_produced=event_pb2.TokensProduced(turn_id=trying.turn_id, text=said, generation_sequence=1))
        )
        finished = generation_pb2.GenerationFinished()
        finished.usage.output_tokens, finished.cost.micros_usd = 3, 7
        now = self.clock.now()
        for event in outcome.answered(
            self.state, name, finished, agents={"Athena": "Athena", "Apollo": "Apollo"}, now=now
        ):
            self.write(event)

    def run(self) -> GraphState:
        """To its end, or as far as it goes without a signal."""
        for _ in range(100_000):
            if isinstance(self.step(), Done | Wait):
                return self.state
        raise AssertionError("the graph never ends")

    def status(self, name: str) -> str:
        result = self.state.results.get(name)
        return task_graph_pb2.TaskStatus.Name(result.status).removeprefix("TASK_STATUS_") if result else "PENDING"

    @property
    def ended(self) -> str:
        return session_pb2.SessionStatus.Name(self.state.session.status).removeprefix("SESSION_STATUS_")
