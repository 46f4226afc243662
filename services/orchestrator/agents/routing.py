"""Who fits a task best: by capability, reputation, room and conversation. Pure, and it says why."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from agentnet.orchestrator.v1 import agent_pb2, delegation_pb2
from services.orchestrator.errors import NoAgentAble

_WEIGHTS: Final = {"relevance": 0.5, "reputation": 0.25, "availability": 0.15, "affinity": 0.1}
_ROOM: Final = 8
_SHOWN: Final = 20
_WORD: Final = re.compile(r"[a-z0-9]{3,}")
# What words of one kin have in common at their beginning: so many letters, and so much of the shorter one.
_KIN: Final = 4
_KIN_SHARE: Final = 0.75
# A capability named is worth as much as this many words of a description.
_NAMED: Final = 3

# Words by how they begin.
_Words = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be done. Empty capabilities: whatever the words ask for; empty agents: everybody may."""

    words: str
    capabilities: frozenset[str] = frozenset()
    agents: frozenset[str] = frozenset()
    known: frozenset[str] = frozenset()


def choose(
    agents: Sequence[agent_pb2.Agent],
    wanted: Wanted,
    *,
    reputations: Mapping[str, float],
    running: Mapping[str, int],
    allowed: Collection[str] | None = None,
) -> delegation_pb2.Choice:
    """The best of the agents. `allowed`: the only ones there may be, by name. Raises NoAgentAble with who could not and
    why.
    """
    rejected = {agent.name: why for agent in agents if (why := _refusal(agent, wanted, running, allowed))}
    fitting = [agent for agent in agents if agent.name not in rejected]
    if not fitting:
        raise _nobody(wanted, rejected)
    words = _by_beginning(wanted.words)
    found = [_candidate(agent, wanted, words, reputations, running) for agent in fitting]
    found.sort(key=lambda one: (-one.score, one.agent))
    best = found[0]
    return delegation_pb2.Choice(
        agent=best.agent,
        score=best.score,
        reason=_reason(best, found[1:]),
        candidates=found[:_SHOWN],
        rejected=dict(sorted(rejected.items())[:_SHOWN]),
    )


def closest(agents: Sequence[agent_pb2.Agent], words: str, *, limit: int) -> list[agent_pb2.Agent]:
    """At most so many of the agents: those whose capabilities and descriptions words of a task name most, by name."""
    if len(agents) <= limit:
        return list(agents)
    wanted, spelt = Wanted(words), _by_beginning(words)
    ranked = sorted(agents, key=lambda agent: (-_relevance(agent, wanted, spelt, _matched(agent, spelt)), agent.name))
    return sorted(ranked[:limit], key=lambda agent: agent.name)


def room(agent: agent_pb2.Agent) -> int:
    """How many tasks it takes at once."""
    return agent.max_concurrent_tasks or _ROOM


def _refusal(
    agent: agent_pb2.Agent, wanted: Wanted, running: Mapping[str, int], allowed: Collection[str] | None
) -> str:
    missing = wanted.capabilities - set(agent.capabilities)
    if wanted.agents and agent.name not in wanted.agents:
        return "it was not asked for"
    if allowed is not None and agent.name not in allowed:
        return "the one who delegates may not delegate to it"
    if missing:
        return f"it lacks {', '.join(sorted(missing))}"
    if running.get(agent.name, 0) >= room(agent):
        return f"it works on {running[agent.name]} tasks, as many as it takes"
    return ""


def _candidate(
    agent: agent_pb2.Agent, wanted: Wanted, words: _Words, reputations: Mapping[str, float], running: Mapping[str, int]
) -> delegation_pb2.Candidate:
    matched = _matched(agent, words)
    made = delegation_pb2.Candidate(
        agent=f"{agent.name}@{agent.version}",
        relevance=_relevance(agent, wanted, words, matched),
        reputation=reputations.get(agent.name, 0.5),
        availability=1 - running.get(agent.name, 0) / room(agent),
        affinity=float(agent.name in wanted.known),
        matched=sorted({*matched, *wanted.capabilities}),
    )
    made.score = sum(weight * getattr(made, part) for part, weight in _WEIGHTS.items())
    return made


def _matched(agent: agent_pb2.Agent, words: _Words) -> list[str]:
    return [name for name in agent.capabilities if _named(name, words)]


def _relevance(agent: agent_pb2.Agent, wanted: Wanted, words: _Words, matched: Sequence[str]) -> float:
    """Capabilities asked for are there already; beyond them words of the task count that the agent's have, too."""
    described = _named(f"{agent.name} {agent.description}", words)
    points = _NAMED * (len(matched) + len(wanted.capabilities)) + described
    return points / (points + _NAMED) if points else 0.0


def _spelt(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.lower().replace("_", " ")))


def _by_beginning(text: str) -> _Words:
    found: dict[str, list[str]] = {}
    for word in _spelt(text):
        found.setdefault(word[:_KIN], []).append(word)
    return found


def _named(text: str, words: _Words) -> int:
    """How many words of a text are named: "reviewing" names "review", and "archive" does not name "architecture"."""
    return sum(any(_kin(word, other) for other in words.get(word[:_KIN], ())) for word in _spelt(text))


def _kin(one: str, other: str) -> bool:
    least = max(_KIN, math.ceil(_KIN_SHARE * min(len(one), len(other))))
    return one[:least] == other[:least]


def _reason(best: delegation_pb2.Candidate, others: Sequence[delegation_pb2.Candidate]) -> str:
    name = best.agent.partition("@")[0]
    fits = f"can do {', '.join(best.matched)}" if best.matched else "fits the words" if best.relevance else "is there"
    told = [f"{name} {fits}", f"reputation {best.reputation:.2f}", f"{best.availability:.0%} of its room free"]
    if best.affinity:
        told.append("it answered in this conversation before")
    if others:
        told.append(f"next best {others[0].agent.partition('@')[0]} ({others[0].score:.2f} to {best.score:.2f})")
    return ", ".join(told) + "."


def _nobody(wanted: Wanted, rejected: Mapping[str, str]) -> NoAgentAble:
    asked = ", ".join(sorted(wanted.capabilities))
    relevant = {name: why for name, why in rejected.items() if not wanted.agents or name in wanted.agents}
    why = "; ".join(f"{name}: {why}" for name, why in sorted(relevant.items())[:_SHOWN]) or "there is no active agent"
    return NoAgentAble(f"no agent can take this: {why}"[:1000], capabilities=asked, why=why[:1000])
