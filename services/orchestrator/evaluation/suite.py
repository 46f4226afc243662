"""Suites: what is run, and what counts as success. The shape is the seed's; every limit stands here."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import ConfigDict, Field

STRICT: Final = ConfigDict(extra="forbid")
MAX_SCENARIOS: Final = 200
MAX_CASES: Final = 2_000
_AGENT: Final = r"^[A-Za-z][A-Za-z0-9_-]{0,63}(@\d{1,6}\.\d{1,6}\.\d{1,6})?$"
_NAME: Final = r"^[A-Za-z][A-Za-z0-9_-]{0,63}$"
_LONGEST: Final = 32_768

Word = Annotated[str, Field(min_length=1, max_length=255)]
Words = Annotated[tuple[Word, ...], Field(min_length=1, max_length=64)]
Text = Annotated[str, Field(min_length=1, max_length=_LONGEST)]
Name = Annotated[str, Field(pattern=_NAME)]
StopReasonName = Literal[
    "completed",
    "converged",
    "max_rounds",
    "stagnated",
    "limit_reached",
    "cancelled",
    "turn_failed",
    "policy_blocked",
    "budget_exhausted",
    "poisoned",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeywordPresence:
    """Every word is said."""

    __pydantic_config__ = STRICT
    type: Literal["keyword_presence"] = "keyword_presence"
    must_include: Words


@dataclass(frozen=True, slots=True, kw_only=True)
class KeywordAbsence:
    """No word is said."""

    __pydantic_config__ = STRICT
    type: Literal["keyword_absence"] = "keyword_absence"
    must_exclude: Words


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticScore:
    """A turn comes near a reference, which is named or stands here."""

    __pydantic_config__ = STRICT
    type: Literal["semantic_score"] = "semantic_score"
    min_score: Annotated[float, Field(ge=0, le=1)]
    reference_id: Name | None = None
    reference: Text | None = None

    def __post_init__(self) -> None:
        if (self.reference_id is None) == (self.reference is None):
            raise ValueError("name a reference_id or write a reference, one of them")


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleViolations:
    """Policy acts so often and no more. Without either number: never."""

    __pydantic_config__ = STRICT
    type: Literal["rule_violations"] = "rule_violations"
    max_violations: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    min_violations: Annotated[int, Field(ge=0, le=1_000_000)] = 0

    @property
    def most(self) -> int | None:
        """None: any number."""
        if self.max_violations is None and not self.min_violations:
            return 0
        return self.max_violations


@dataclass(frozen=True, slots=True, kw_only=True)
class CostLimit:
    """The session costs no more."""

    __pydantic_config__ = STRICT
    type: Literal["cost_limit"] = "cost_limit"
    max_micros_usd: Annotated[int, Field(ge=0, le=10**15)]


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyLimit:
    """The session takes no longer."""

    __pydantic_config__ = STRICT
    type: Literal["latency_limit"] = "latency_limit"
    max_seconds: Annotated[float, Field(gt=0, le=3600)]


@dataclass(frozen=True, slots=True, kw_only=True)
class StopReason:
    """The session ends in one of these ways."""

    __pydantic_config__ = STRICT
    type: Literal["stop_reason"] = "stop_reason"
    any_of: Annotated[tuple[StopReasonName, ...], Field(min_length=1, max_length=8)]


Criterion: TypeAlias = (
    KeywordPresence | KeywordAbsence | SemanticScore | RuleViolations | CostLimit | LatencyLimit | StopReason
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One situation. An empty mode and 0 rounds leave the choice to the session."""

    __pydantic_config__ = STRICT
    name: Name
    agents: Annotated[tuple[Annotated[str, Field(pattern=_AGENT)], ...], Field(min_length=1, max_length=16)]
    topic: Text
    mode: Annotated[str, Field(max_length=64)] = ""
    success_criteria: Annotated[
        tuple[Annotated[Criterion, Field(discriminator="type")], ...], Field(max_length=32)
    ] = ()
    max_rounds: Annotated[int, Field(ge=0, le=50)] = 0
    repeats: Annotated[int, Field(ge=0, le=100)] = 1
    timeout_seconds: Annotated[int, Field(ge=0, le=3600)] = 600

    def __post_init__(self) -> None:
        names = [agent.partition("@")[0] for agent in self.agents]
        if len(set(names)) < len(names):
            raise ValueError("each agent takes part once")


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Scenarios under one name."""

    __pydantic_config__ = STRICT
    suite: Name
    scenarios: Annotated[tuple[Scenario, ...], Field(min_length=1, max_length=MAX_SCENARIOS)]
    references: Annotated[Mapping[Name, Text], Field(max_length=100)] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [scenario.name for scenario in self.scenarios]
        if len(set(names)) < len(names):
            raise ValueError("each scenario has a name of its own")

    @property
    def digest(self) -> str:
        """SHA-256 of what is said: layout, order of keys and comments do not count."""
        data = json.dumps(dataclasses.asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(data.encode()).hexdigest()


def recast(suite: Suite, agents: Mapping[str, str], *, repeats: int) -> Suite:
    """The suite with others in place of those named, each scenario run `repeats` times unless that is 0."""
    scenarios = tuple(
        dataclasses.replace(
            scenario,
            agents=tuple(_in_place_of(agent, agents) for agent in scenario.agents),
            repeats=repeats or scenario.repeats or 1,
            timeout_seconds=scenario.timeout_seconds or 600,
        )
        for scenario in suite.scenarios
    )
    return dataclasses.replace(suite, scenarios=scenarios)


def _in_place_of(agent: str, agents: Mapping[str, str]) -> str:
    return agents.get(agent) or agents.get(agent.partition("@")[0]) or agent
