"""The published record of a turn: the seed's shape, its schema, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from agentnet.orchestrator.v1 import turn_pb2
from services.orchestrator import turn_records
from services.orchestrator.prompts import Known
from shared.paging import Page
from tests.support.orchestrator import TENANT, World

SCHEMA = json.loads((Path(__file__).parents[3] / "docs/schemas/turn.schema.json").read_text())
# Section 9 of the founding roadmap, as it stands there.
SEED = {
    "task_id": "uuid",
    "agent": "Athena",
    "input": {
        "prompt": "Analyze X",
        "context": {"short_term": ["..."], "semantic_refs": [{"id": "e1", "score": 0.83}], "episodic_refs": []},
    },
    "output": {
        "content": "Reasoned answer...",
        "confidence": 0.87,
        "style_insights": ["Applying rigorous logical validation"],
        "tokens": {"input": 324, "output": 512},
    },
    "monitors": [{"name": "keyword_guard", "status": "pass", "elapsed_ms": 2.1}],
    "cost": {"provider": "openai", "model": "gpt-4o", "usd": 0.01234},
    "timing": {"started": 1736981000.123, "completed": 1736981001.001, "latency_ms": 878},
    "version": "agent:Athena@1.0.0",
}


def check(record: Any) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(record)


def seeds_turn() -> turn_pb2.Turn:
    turn = turn_pb2.Turn(
        id="uuid", agent="Athena@1.0.0", prompt="Analyze X", content="Reasoned answer...", confidence=0.87,
        style_insights=["Applying rigorous logical validation"],
    )  # fmt: skip
    turn.context.short_term.append("...")
    turn.context.semantic_refs.add(id="e1", score=0.83)
    turn.usage.input_tokens, turn.usage.output_tokens = 324, 512
    turn.monitors.add(name="keyword_guard", status="pass").elapsed.FromMicroseconds(2100)
    turn.cost.provider, turn.cost.model, turn.cost.micros_usd = "openai", "gpt-4o", 12_340
    turn.start_time.FromMilliseconds(1736981000123)
    turn.end_time.FromMilliseconds(1736981001001)
    return turn


def test_the_seeds_example_is_rendered_exactly_and_fits_the_schema() -> None:
    made = turn_records.record(seeds_turn())
    assert made == SEED
    check(made)


def keys(value: Any) -> Any:
    """The shape alone, in order."""
    if isinstance(value, dict):
        return {name: keys(part) for name, part in value.items()}
    return [keys(value[0])] if isinstance(value, list) and value else type(value).__name__


def test_the_shape_keeps_the_seeds_order_of_keys() -> None:
    assert json.dumps(list(turn_records.record(seeds_turn()))) == json.dumps(list(SEED))


async def test_what_a_session_really_produces_fits_the_schema() -> None:
    world = World()
    world.memory.known = (
        Known("mem_1", "Chain replication keeps order.", 0.83),
        Known("mem_2", "We said so.", 0.5, episodic=True),
    )
    session_id = await world.start(max_rounds=2)
    await world.drive()

    turns = await world.store.turns(TENANT, session_id, agent="", round_number=0, page=Page())

    assert len(turns) == 4
    for turn in turns:
        made = turn_records.record(turn)
        check(made)
        assert (made["task_id"], made["version"]) == (turn.id, f"agent:{turn.agent}")
        assert made["input"]["context"]["semantic_refs"] == [{"id": "mem_1", "score": 0.83}]
        assert made["input"]["context"]["episodic_refs"] == [{"id": "mem_2", "score": 0.5}]
        assert 0 < made["output"]["confidence"] < 1


@pytest.mark.parametrize("path", [("output", "tokens"), ("timing",), ("input", "context"), ("cost",)])
def test_the_schema_refuses_what_is_missing_and_what_is_new(path: tuple[str, ...]) -> None:
    for change in ("remove", "add"):
        record = json.loads(json.dumps(SEED))
        place = record
        for name in path:
            place = place[name]
        if change == "add":
            place["extra"] = 1
        else:
            place.pop(next(iter(place)))
        with pytest.raises(jsonschema.ValidationError):
            check(record)


def test_the_schema_names_the_version_of_the_records() -> None:
    assert SCHEMA["$id"].endswith(turn_records.VERSION)
