"""What sessions and nodes of graphs that ended tell Prometheus."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from agentnet.orchestrator.v1 import session_pb2, task_graph_pb2
from services.orchestrator import toolwork
from services.orchestrator.drivers import graph, session
from tests.support.graphs import node
from tests.support.orchestrator import World
from tests.support.toolwork import asked, call


async def test_rounds_are_told_by_mode_and_by_whether_the_session_converged(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = InMemoryMetricReader()
    meter = MeterProvider(metric_readers=[reader]).get_meter("test")
    monkeypatch.setattr(session, "_rounds", meter.create_histogram(vars(session._rounds)["_name"]))
    world, count = World(), iter(range(1000))
    await world.start(max_rounds=5, measures=[session_pb2.MeasureRule(measure="jaccard")])
    await world.drive()
    world.inference.reply = lambda _: " ".join(f"word{next(count)}" for _ in range(5))
    await world.start(max_rounds=3)
    await world.drive()

    data: Any = reader.get_metrics_data()
    (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
    told = {
        (one.attributes["mode"], one.attributes["converged"]): (one.count, one.sum) for one in metric.data.data_points
    }
    assert metric.name == "session_rounds"
    assert told == {("brainstorm", "true"): (1, 2), ("brainstorm", "false"): (1, 3)}


async def test_the_time_of_each_node_is_told_by_agent_and_node_type(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = InMemoryMetricReader()
    meter = MeterProvider(metric_readers=[reader]).get_meter("test")
    monkeypatch.setattr(graph, "_durations", meter.create_histogram(vars(graph._durations)["_name"]))
    world = World()
    await world.execute(node("a"), node("b", "a", agent="Apollo", kind=task_graph_pb2.TASK_KIND_AGGREGATOR))
    await world.graph_driver().drive(await world.claim(), asyncio.Event())

    data: Any = reader.get_metrics_data()
    (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
    assert metric.name == "dag_node_duration_ms"
    assert {(one.attributes["agent"], one.attributes["node_type"], one.count) for one in metric.data.data_points} == {
        ("Athena@1.0.0", "worker", 1),
        ("Apollo@1.0.0", "aggregator", 1),
    }


async def test_names_of_tools_that_a_model_makes_up_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = InMemoryMetricReader()
    meter = MeterProvider(metric_readers=[reader]).get_meter("test")
    monkeypatch.setattr(toolwork, "_calls", meter.create_counter(vars(toolwork._calls)["_name"]))
    world, _ = await asked([call("search", q="raft"), call("rm_rf"), call("rm_rf_2")], "Sorry.")
    await world.drive()

    data: Any = reader.get_metrics_data()
    (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
    told = {(one.attributes["tool"], one.attributes["outcome"], one.value) for one in metric.data.data_points}
    assert told == {("search", "ok", 1), ("not offered", "TOOL_NOT_FOUND", 2)}
