"""Answers of agents by what is asked of them, and what the log says of a mode."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from agentnet.orchestrator.v1 import decision_pb2
from services.orchestrator.peers import Utterance
from tests.support.orchestrator import World

THREE = ("Athena", "Apollo", "Hermes")


Answers = dict[str, Callable[[Utterance], str] | str]


def scripted(world: World, **answers: Callable[[Utterance], str] | str) -> World:
    """Answers by form, as `form_Agent` or `form`; without a form by agent's name, else a plain sentence."""

    def reply(utterance: Utterance) -> str:
        form, name = utterance.form.name if utterance.form else "plain", utterance.agent.name
        found = answers.get(f"{form}_{name}", answers.get(form, f"{name} has one idea about it."))
        return found(utterance) if callable(found) else found

    world.inference.reply = reply
    return world


async def events(world: World, session_id: str, kind: str) -> list[Any]:
    return [getattr(event, kind) for event in await world.log(session_id) if event.WhichOneof("payload") == kind]


async def order(world: World, session_id: str) -> list[tuple[str, str]]:
    """Who began which part, in order."""
    return [(one.agent.partition("@")[0], one.phase) for one in await events(world, session_id, "turn_started")]


async def decision(world: World, session_id: str) -> decision_pb2.Decision:
    return (await events(world, session_id, "decision_reached"))[-1].decision


def points(*found: str) -> str:
    return json.dumps({"points": found})


def asked(world: World, place: int) -> str:
    return world.inference.started[place].lines[-1].text


VERDICT = json.dumps({"winner": "Apollo", "verdict": "Failover must be rehearsed.", "reason": "It had evidence."})


def ballot(choice: str, reason: str = "It is safe.") -> str:
    return json.dumps({"choice": choice, "reason": reason})


PLAN = json.dumps(
    {
        "nodes": [
            {"id": "risks", "prompt": "List risks.", "agent": "Apollo", "depends_on": []},
            {"id": "costs", "prompt": "List costs.", "agent": "Hermes", "depends_on": []},
            {"id": "choice", "prompt": "Choose.", "agent": "Apollo", "depends_on": ["risks", "costs"]},
        ]
    }
)
