"""Mode "planning": a planner cuts the topic into tasks, agents do them, the planner makes one result of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from agentnet.orchestrator.v1 import event_pb2, progress_pb2, task_graph_pb2
from services.orchestrator.forms import Form
from services.orchestrator.graphs import planning, validate
from services.orchestrator.modes import cast
from services.orchestrator.modes.contract import Mode, Order, Part, Phase
from services.orchestrator.state import SessionState, Spoken

_TASKS: Final = 12
_TASK: Final = "task:"

Event = event_pb2.SessionEvent


class Planning(Mode):
    rounds = 1
    takes_strategy = False

    def phases(self, state: SessionState, number: int) -> Sequence[Phase]:
        del number
        planner = _planner(state)
        plan = Phase("plan", (Part(planner, "plan"),), Order.IN_ORDER)
        if state.plan is None:
            return (plan,)
        summary = Phase("summary", (Part(planner, "summary"),), Order.IN_ORDER)
        return (plan, *_waves(state.plan.nodes, planner), summary)

    def facts(self, state: SessionState, number: int, *, closing: bool) -> Sequence[Event]:
        if closing or state.plan is not None:
            return ()
        (turn, *_) = state.turns(number, "plan")
        by_name = {cast.short(agent): agent for agent in state.session.agents}
        nodes = planning.read(turn.content, list(by_name), max_nodes=_TASKS)
        for node in nodes:
            node.agent = by_name[node.agent]
        return (Event(plan_made=progress_pb2.PlanMade(nodes=nodes, planner=turn.agent)),)

    def directive(self, state: SessionState, number: int, part: Part) -> str:
        del number
        if part.phase == "plan":
            return "You plan work for others. You answer with JSON only."
        aim = f"You work with others towards this goal: {state.session.topic_start}"
        return "Make one result of what the others found." if part.phase == "summary" else aim

    def question(self, state: SessionState, number: int, part: Part) -> str:
        if part.phase == "plan":
            names = ", ".join(cast.short(agent) for agent in state.session.agents)
            return (
                f"Goal: {state.session.topic_start}\n\nCut it into at most {_TASKS} tasks for these agents: {names}. "
                "A task may depend on others and reads their results; those that depend on nothing run at once."
            )
        found = {turn.phase.removeprefix(_TASK): turn.content.strip() for turn in state.spoken}
        if part.phase == "summary":
            return f"The goal: {state.session.topic_start}\n\n{_shown(found, _tasks(state))}\n\nGive the result."
        node = _tasks(state)[part.phase.removeprefix(_TASK)]
        known_results = _shown(found, {name: _tasks(state)[name] for name in node.depends_on})
        return f"{known_results}\n\n{node.prompt}".strip()

    def form(self, state: SessionState, number: int, part: Part) -> Form | None:
        del number
        if part.phase != "plan":
            return None
        names = [cast.short(agent) for agent in state.session.agents]

        def check(answer: str) -> object:
            return planning.read(answer, names, max_nodes=_TASKS)

        return Form("plan", _schema(names), check)

    def heard(self, state: SessionState, part: Part) -> tuple[Spoken, ...]:
        del part
        return tuple(turn for turn in state.spoken if turn.by_person)

    def result(self, state: SessionState) -> str:
        return next((turn.content for turn in reversed(state.spoken) if turn.phase == "summary"), "")


def _planner(state: SessionState) -> str:
    return cast.of(state.session, "planner") or state.session.agents[0]


def _tasks(state: SessionState) -> dict[str, task_graph_pb2.TaskNode]:
    return {node.id: node for node in state.plan.nodes} if state.plan else {}


def _shown(found: Mapping[str, str], tasks: Mapping[str, task_graph_pb2.TaskNode]) -> str:
    return "\n\n".join(f"## {name}\n{found[name]}" for name in tasks if name in found)


def _schema(names: list[str]) -> dict[str, Any]:
    """That of a task graph's plan, without what only a graph can do."""
    schema = planning.schema(names, max_nodes=_TASKS)
    node = schema["properties"]["nodes"]["items"]["properties"]
    for key in ("kind", "condition"):
        node.pop(key)
    return schema


def _waves(nodes: Sequence[task_graph_pb2.TaskNode], planner: str) -> list[Phase]:
    """Tasks that do not wait for each other, wave by wave."""
    by_id = {node.id: node for node in nodes}
    waves = validate.levels({node.id: list(node.depends_on) for node in nodes})
    return [
        Phase(f"tasks {number}", tuple(_part(by_id[name], planner) for name in wave), Order.TOGETHER)
        for number, wave in enumerate(waves, start=1)
    ]


def _part(node: task_graph_pb2.TaskNode, planner: str) -> Part:
    return Part(node.agent, _TASK + node.id, "" if node.agent == planner else planner, f"task {node.id} of the plan")
