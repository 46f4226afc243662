"""TaskGraphService over the wire: plan, execute, watch, read, list, cancel, draw."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format
from grpc import StatusCode

from agentnet.orchestrator.v1 import checkpoint_service_pb2 as checkpoints
from agentnet.orchestrator.v1 import session_service_pb2 as sessions
from agentnet.orchestrator.v1 import task_graph_pb2
from agentnet.orchestrator.v1 import task_graph_service_pb2 as pb
from shared.errors import FailedPrecondition, MeshError, Reason
from tests.service.orchestrator.conftest import Mesh

SEED = {
    "nodes": [
        {"id": "root", "prompt": "Plan high availability design", "agent": "Athena", "deps": []},
        {"id": "analysis", "prompt": "Analyze failure modes", "agent": "Athena", "deps": ["root"]},
        {"id": "mitigations", "prompt": "Propose mitigations", "agent": "Apollo", "deps": ["analysis"]},
        {"id": "summary", "prompt": "Integrate plan & mitigations", "agent": "Hermes", "deps": ["mitigations"]},
    ]
}
DIAMOND = {
    "graph": {
        "goal": "Ship it",
        "nodes": [
            {"task_id": "a", "prompt": "Start.", "assigned_agent": "Athena"},
            {"task_id": "b", "prompt": "Left.", "assigned_agent": "Apollo", "dependencies": ["a"]},
            {"task_id": "c", "prompt": "Right.", "assigned_agent": "Hermes", "dependencies": ["a"]},
            {"task_id": "d", "prompt": "Join.", "agent_name": "Athena", "dependencies": ["b", "c"]},
        ],
    }
}


def parsed(data: dict[str, Any]) -> pb.ExecuteTasksRequest:
    return json_format.ParseDict(data, pb.ExecuteTasksRequest())


async def executed(mesh: Mesh, data: dict[str, Any]) -> pb.ExecuteTasksResponse:
    return await mesh.ask(mesh.task_graphs.ExecuteTasks, parsed(data))


async def watched(mesh: Mesh, session_id: str) -> list[Any]:
    request = sessions.WatchSessionRequest(session_id=session_id)
    call = mesh.sessions.WatchSession(request, metadata=mesh.me(), timeout=20)
    return [answer.event async for answer in call if answer.HasField("event")]


async def read(mesh: Mesh, graph_id: str) -> pb.GetTaskGraphResponse:
    return await mesh.ask(mesh.task_graphs.GetTaskGraph, pb.GetTaskGraphRequest(task_graph_id=graph_id))


def said(error: MeshError) -> tuple[StatusCode, str]:
    return error.code, error.reason_name


async def test_the_seeds_graph_runs_as_it_stands_and_its_log_tells_the_story(mesh: Mesh) -> None:
    accepted = await executed(mesh, SEED)
    events = await watched(mesh, accepted.session_id)
    found = await read(mesh, accepted.graph.id)

    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    finished = [event.task_finished for event in events if event.HasField("task_finished")]
    assert [one.result.node_id for one in finished] == ["root", "analysis", "mitigations", "summary"]
    assert [one.progress.ended for one in finished] == [1, 2, 3, 4]
    assert found.graph.status == task_graph_pb2.TASK_STATUS_COMPLETED
    assert [result.agent for result in found.results] == [
        "Athena@1.0.0",
        "Athena@1.0.0",
        "Apollo@1.0.0",
        "Hermes@1.0.0",
    ]
    assert {result.status for result in found.results} == {task_graph_pb2.TASK_STATUS_COMPLETED}
    assert all(result.output and result.cost_micros_usd == 7 and result.HasField("elapsed") for result in found.results)
    assert (found.session_id, found.progress.total, found.progress.ended) == (accepted.session_id, 4, 4)


async def test_partial_results_stream_under_the_key_of_their_try(mesh: Mesh) -> None:
    accepted = await executed(mesh, DIAMOND)
    events = await watched(mesh, accepted.session_id)
    keys = {
        event.task_started.turn_id: event.task_started.node_id for event in events if event.HasField("task_started")
    }
    texts: dict[str, str] = {}
    for event in events:
        if event.HasField("tokens_produced"):
            name = keys[event.tokens_produced.turn_id]
            texts[name] = texts.get(name, "") + event.tokens_produced.text
    results = {
        event.task_finished.result.node_id: event.task_finished.result.output
        for event in events
        if event.HasField("task_finished")
    }
    assert texts == results
    assert next(iter(results)) == "a"
    assert list(results)[-1] == "d"


async def test_the_same_request_id_is_the_same_graph(mesh: Mesh) -> None:
    first = await executed(mesh, {**DIAMOND, "request_id": "once"})
    second = await executed(mesh, {**DIAMOND, "request_id": "once"})
    other = await executed(mesh, {**DIAMOND, "request_id": "twice"})
    assert (second.graph.id, second.session_id) == (first.graph.id, first.session_id)
    assert other.graph.id != first.graph.id


async def test_graphs_are_listed_by_page_newest_first_and_by_status(mesh: Mesh) -> None:
    ids = []
    for _ in range(3):
        accepted = await executed(mesh, SEED)
        ids.append(accepted.graph.id)
        await watched(mesh, accepted.session_id)
    first = await mesh.ask(mesh.task_graphs.ListTaskGraphs, pb.ListTaskGraphsRequest(page_size=2))
    rest = await mesh.ask(
        mesh.task_graphs.ListTaskGraphs, pb.ListTaskGraphsRequest(page_size=2, page_token=first.next_page_token)
    )
    failed = pb.ListTaskGraphsRequest(status=task_graph_pb2.TASK_STATUS_FAILED)
    listed = [graph.id for page in (first, rest) for graph in page.graphs]
    assert sorted(listed) == sorted(ids)
    assert rest.next_page_token == ""
    assert not any(graph.nodes for graph in first.graphs)
    assert list((await mesh.ask(mesh.task_graphs.ListTaskGraphs, failed)).graphs) == []


@pytest.mark.parametrize(
    ("nodes", "fault", "path"),
    [
        ([{"id": "a", "deps": ["b"]}, {"id": "b", "deps": ["a"]}], "cycle", "a > b > a"),
        ([{"id": "a", "deps": ["ghost"]}], "missing dependency", "a > ghost"),
        ([{"id": "a", "condition": "1 +"}], "condition", "a.condition"),
    ],
)
async def test_a_graph_that_cannot_run_is_refused_with_the_path(
    mesh: Mesh, nodes: list[dict[str, Any]], fault: str, path: str
) -> None:
    data = {"nodes": [{"prompt": "p", "agent": "Athena", **node} for node in nodes]}
    error = await mesh.refused(mesh.task_graphs.ExecuteTasks, parsed(data))
    assert said(error) == (StatusCode.INVALID_ARGUMENT, "GRAPH_INVALID")
    assert error.facts["fault"] == fault
    assert error.facts["path"] in (path, "b > a > b")


NODE = {"id": "a", "prompt": "p", "agent": "Athena"}


@pytest.mark.parametrize(
    ("data", "field", "reason"),
    [
        ({}, "graph.nodes", "FIELD_REQUIRED"),
        ({"nodes": [{**NODE, "id": ""}]}, "graph.nodes[0].id", "FIELD_REQUIRED"),
        ({"nodes": [{**NODE, "id": "no spaces"}]}, "graph.nodes[0].id", "FIELD_INVALID"),
        ({"nodes": [{**NODE, "agent": "1"}]}, "graph.nodes[0].agent", "FIELD_INVALID"),
        ({"nodes": [{**NODE, "max_attempts": 11}]}, "graph.nodes[0].max_attempts", "FIELD_INVALID"),
        ({"nodes": [{**NODE, "max_retries": 10}]}, "graph.nodes[0].max_retries", "FIELD_INVALID"),
        ({"nodes": [{**NODE, "timeout_seconds": 4000}]}, "graph.nodes[0].timeout_seconds", "FIELD_INVALID"),
        ({"nodes": [{**NODE, "timeout": "4000s"}]}, "graph.nodes[0].timeout", "FIELD_INVALID"),
        ({"nodes": [{**NODE, "kind": 77}]}, "graph.nodes[0].kind", "FIELD_INVALID"),
        ({"nodes": [{**NODE, "prompt": "p" * 32_769}]}, "graph.nodes[0].prompt", "FIELD_TOO_LONG"),
        ({"nodes": [NODE] * 1001}, "graph.nodes", "FIELD_TOO_LONG"),
        ({"graph": {"max_parallel_tasks": 101, "nodes": [NODE]}}, "graph.max_parallel_tasks", "FIELD_INVALID"),
    ],
)
async def test_a_field_at_fault_is_named(mesh: Mesh, data: dict[str, Any], field: str, reason: str) -> None:
    error = await mesh.refused(mesh.task_graphs.ExecuteTasks, parsed(data))
    assert (error.field, error.reason_name) == (field, reason)


async def test_an_unknown_agent_or_graph_is_not_found_and_another_tenants_is_not_there(mesh: Mesh) -> None:
    unknown = await mesh.refused(mesh.task_graphs.ExecuteTasks, parsed({"nodes": [{**NODE, "agent": "Zeus"}]}))
    accepted = await executed(mesh, SEED)
    calls = (
        (mesh.task_graphs.GetTaskGraph, pb.GetTaskGraphRequest),
        (mesh.task_graphs.CancelTasks, pb.CancelTasksRequest),
        (mesh.task_graphs.DrawTaskGraph, pb.DrawTaskGraphRequest),
    )
    assert said(unknown) == (StatusCode.NOT_FOUND, "AGENT_NOT_FOUND")
    for call, request in calls:
        foreign = await mesh.refused(call, request(task_graph_id=accepted.graph.id), tenant="other")
        assert said(foreign) == (StatusCode.NOT_FOUND, "TASK_GRAPH_NOT_FOUND")


async def test_a_cancelled_node_ends_with_what_depends_on_it_and_the_rest_goes_on(mesh: Mesh) -> None:
    mesh.world.inference.held_at = 3
    data = {"nodes": [{**NODE}, {**NODE, "id": "b", "deps": ["a"]}, {**NODE, "id": "c"}]}
    accepted = await executed(mesh, data)
    while len(mesh.world.inference.started) < 2:
        await read(mesh, accepted.graph.id)
    running = await read(mesh, accepted.graph.id)
    ghost = pb.CancelTasksRequest(task_graph_id=accepted.graph.id, node_id="ghost")
    refused = await mesh.refused(mesh.task_graphs.CancelTasks, ghost)
    request = pb.CancelTasksRequest(task_graph_id=accepted.graph.id, node_id="a", request_id="once")
    await mesh.ask(mesh.task_graphs.CancelTasks, request)
    while not mesh.world.inference.cancelled:
        await read(mesh, accepted.graph.id)
    mesh.world.inference.release()
    await watched(mesh, accepted.session_id)
    found = await read(mesh, accepted.graph.id)
    again = await mesh.ask(mesh.task_graphs.CancelTasks, request)
    late = await mesh.refused(mesh.task_graphs.CancelTasks, pb.CancelTasksRequest(task_graph_id=accepted.graph.id))

    assert running.graph.status == task_graph_pb2.TASK_STATUS_RUNNING
    assert {result.status for result in running.results} == {task_graph_pb2.TASK_STATUS_RUNNING}
    assert (refused.field, refused.reason_name) == ("node_id", "FIELD_INVALID")
    states = {result.node_id: task_graph_pb2.TaskStatus.Name(result.status) for result in found.results}
    assert states == {"a": "TASK_STATUS_CANCELLED", "b": "TASK_STATUS_CANCELLED", "c": "TASK_STATUS_COMPLETED"}
    assert again.graph.id == accepted.graph.id
    assert said(late) == (StatusCode.FAILED_PRECONDITION, "SESSION_ENDED")


async def test_a_cancelled_graph_calls_off_what_is_generated(mesh: Mesh) -> None:
    mesh.world.inference.held_at = 3
    accepted = await executed(mesh, DIAMOND)
    while not mesh.world.inference.started:
        await read(mesh, accepted.graph.id)
    await mesh.ask(mesh.task_graphs.CancelTasks, pb.CancelTasksRequest(task_graph_id=accepted.graph.id))
    await watched(mesh, accepted.session_id)
    found = await read(mesh, accepted.graph.id)
    assert found.graph.status == task_graph_pb2.TASK_STATUS_CANCELLED
    assert len(found.results) == 4
    assert mesh.world.inference.cancelled == [mesh.world.inference.started[0].generation_id]


async def test_a_graph_is_paused_and_resumed_as_the_session_it_is(mesh: Mesh) -> None:
    mesh.world.inference.held_at = 3
    accepted = await executed(mesh, SEED)
    while not mesh.world.inference.started:
        await read(mesh, accepted.graph.id)
    await mesh.ask(mesh.sessions.PauseSession, sessions.PauseSessionRequest(session_id=accepted.session_id))
    while "signal_received" not in await mesh.world.kinds(accepted.session_id):
        await read(mesh, accepted.graph.id)
    mesh.world.inference.release()
    while "session_waiting" not in await mesh.world.kinds(accepted.session_id):
        await read(mesh, accepted.graph.id)
    assert len(mesh.world.inference.started) == 1
    await mesh.ask(mesh.sessions.ResumeSession, sessions.ResumeSessionRequest(session_id=accepted.session_id))
    await watched(mesh, accepted.session_id)
    assert (await read(mesh, accepted.graph.id)).graph.status == task_graph_pb2.TASK_STATUS_COMPLETED


async def test_a_picture_shows_the_live_states(mesh: Mesh) -> None:
    mesh.world.inference.held_at = 3
    accepted = await executed(mesh, DIAMOND)
    while not mesh.world.inference.started:
        await read(mesh, accepted.graph.id)
    request = pb.DrawTaskGraphRequest(task_graph_id=accepted.graph.id)
    live = await mesh.ask(mesh.task_graphs.DrawTaskGraph, request)
    mesh.world.inference.release()
    await watched(mesh, accepted.session_id)
    ended = await mesh.ask(mesh.task_graphs.DrawTaskGraph, request)
    assert (live.mermaid.count(":::running"), live.mermaid.count(":::pending")) == (1, 3)
    assert ended.mermaid.count(":::completed") == 4
    assert ended.svg.startswith("<svg")
    assert "Hermes@1.0.0" in ended.svg


PLAN = {"nodes": [
    {"id": "think", "prompt": "Think.", "agent": "Athena", "depends_on": []},
    {"id": "write", "prompt": "Write.", "agent": "Apollo", "depends_on": ["think"]},
]}  # fmt: skip


async def test_a_plan_is_a_valid_graph_that_runs(mesh: Mesh) -> None:
    mesh.world.inference.reply = lambda utterance: json.dumps(PLAN)
    planned = await mesh.ask(mesh.task_graphs.PlanTasks, pb.PlanTasksRequest(goal="Win"))
    accepted = await mesh.ask(mesh.task_graphs.ExecuteTasks, pb.ExecuteTasksRequest(graph=planned.graph))
    await watched(mesh, accepted.session_id)
    assert [(node.id, node.agent, list(node.depends_on)) for node in planned.graph.nodes] == [
        ("think", "Athena", []),
        ("write", "Apollo", ["think"]),
    ]
    assert (planned.graph.goal, planned.repaired) == ("Win", False)
    asked, worked = mesh.world.inference.started[:2]
    assert (asked.agent.name, worked.form) == ("Athena", None)
    assert asked.form is not None, "a model that can be held to a schema is"
    assert asked.form.read(json.dumps(PLAN)) == PLAN
    assert (await read(mesh, accepted.graph.id)).graph.status == task_graph_pb2.TASK_STATUS_COMPLETED


async def test_a_plan_that_cannot_run_is_sent_back_once_with_what_is_wrong(mesh: Mesh) -> None:
    looped = {"nodes": [{**PLAN["nodes"][0], "depends_on": ["write"]}, PLAN["nodes"][1]]}
    answers = [json.dumps(looped), json.dumps(PLAN)]
    mesh.world.inference.reply = lambda utterance: answers.pop(0)
    planned = await mesh.ask(mesh.task_graphs.PlanTasks, pb.PlanTasksRequest(goal="Win", planner="Hermes"))
    assert planned.repaired
    assert "there is a cycle" in mesh.world.inference.started[1].lines[-1].text
    assert {utterance.agent.name for utterance in mesh.world.inference.started} == {"Hermes"}


async def test_a_planner_that_fails_twice_is_a_typed_error(mesh: Mesh) -> None:
    request = pb.PlanTasksRequest(goal="Win", agents=["Athena", "Apollo@1.0.0"])
    error = await mesh.refused(mesh.task_graphs.PlanTasks, request)
    nobody = await mesh.refused(mesh.task_graphs.PlanTasks, pb.PlanTasksRequest(goal="Win", agents=["Zeus"]))
    empty = await mesh.refused(mesh.task_graphs.PlanTasks, pb.PlanTasksRequest())
    assert said(error) == (StatusCode.FAILED_PRECONDITION, "PLAN_INVALID")
    assert error.facts["fault"] == "shape"
    assert len(mesh.world.inference.started) == 2
    assert said(nobody) == (StatusCode.NOT_FOUND, "AGENT_NOT_FOUND")
    assert empty.field == "goal"


async def test_what_inference_could_not_hold_to_a_plans_form_is_sent_back_once_like_any_other_answer(
    mesh: Mesh,
) -> None:
    unheld = FailedPrecondition("the output is not JSON", reason=Reason.ERROR_REASON_OUTPUT_INVALID)
    answers = ["no", "no", "no", json.dumps(PLAN)]
    mesh.world.inference.reply = lambda utterance: answers.pop(0)
    mesh.world.inference.failures = [unheld, unheld, unheld, None]
    error = await mesh.refused(mesh.task_graphs.PlanTasks, pb.PlanTasksRequest(goal="Win"))
    planned = await mesh.ask(mesh.task_graphs.PlanTasks, pb.PlanTasksRequest(goal="Win"))
    assert (said(error), error.facts["fault"]) == ((StatusCode.FAILED_PRECONDITION, "PLAN_INVALID"), "shape")
    assert (planned.repaired, len(planned.graph.nodes)) == (True, 2)


async def test_checkpoints_are_made_listed_read_gone_on_from_and_deleted_over_the_wire(mesh: Mesh) -> None:
    accepted = await executed(mesh, SEED)
    await watched(mesh, accepted.session_id)
    made = []
    for number in range(3):
        request = checkpoints.CreateCheckpointRequest(run_id=accepted.graph.id)
        request.metadata["number"] = number
        made.append((await mesh.ask(mesh.checkpoints.CreateCheckpoint, request)).checkpoint)
    first = await mesh.ask(mesh.checkpoints.ListCheckpoints, checkpoints.ListCheckpointsRequest(page_size=2))
    token = first.next_page_token
    rest = await mesh.ask(
        mesh.checkpoints.ListCheckpoints, checkpoints.ListCheckpointsRequest(page_size=2, page_token=token)
    )
    by_run = checkpoints.ListCheckpointsRequest(run_id=accepted.graph.id, agent_name="Hermes")
    named = checkpoints.GetCheckpointRequest(checkpoint_id=made[0].id)
    found = await mesh.ask(mesh.checkpoints.GetCheckpoint, named)
    again = await mesh.ask(mesh.task_graphs.ExecuteTasks, pb.ExecuteTasksRequest(resume_from=made[0].id))
    await watched(mesh, again.session_id)
    foreign = await mesh.refused(mesh.checkpoints.GetCheckpoint, named, tenant="other")
    await mesh.ask(mesh.checkpoints.DeleteCheckpoint, checkpoints.DeleteCheckpointRequest(checkpoint_id=made[0].id))
    gone = await mesh.refused(mesh.checkpoints.GetCheckpoint, named)
    late = await mesh.refused(mesh.task_graphs.ExecuteTasks, pb.ExecuteTasksRequest(resume_from=made[0].id))

    assert {one.id for page in (first, rest) for one in page.checkpoints} == {one.id for one in made}
    assert len((await mesh.ask(mesh.checkpoints.ListCheckpoints, by_run)).checkpoints) == 2
    assert found.checkpoint == made[0]
    assert found.checkpoint.metadata["number"] == 0
    assert len(mesh.world.inference.started) == 4
    assert (await read(mesh, again.graph.id)).graph.status == task_graph_pb2.TASK_STATUS_COMPLETED
    for error in (foreign, gone, late):
        assert said(error) == (StatusCode.NOT_FOUND, "CHECKPOINT_NOT_FOUND")


async def test_a_checkpoint_of_an_unknown_version_is_refused_over_the_wire(mesh: Mesh) -> None:
    await mesh.world.checkpoint_store.save("acme", "chk_old", {"version": "0.1", "run_id": "", "agent_name": ""})
    error = await mesh.refused(mesh.task_graphs.ExecuteTasks, pb.ExecuteTasksRequest(resume_from="chk_old"))
    assert said(error) == (StatusCode.FAILED_PRECONDITION, "CHECKPOINT_INCOMPATIBLE")
    assert error.facts == {"version": "0.1", "known": "1.0, 1.1"}
