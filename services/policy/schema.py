"""The form of a bundle document: what may stand in it, and what each type of rule needs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeGuard

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from shared.monitors.rules import Action, Mode, Rule, RuleType, Severity, Target
from shared.monitors.suspicion import SOURCES

NAME: Final = r"^[A-Za-z0-9_-]{1,64}$"
_MAX_RULES: Final = 1000
_MAX_PROFILES: Final = 256
_MAX_PATTERN: Final = 4096
_MAX_KEYWORDS: Final = 1000
_RESOURCES: Final = ("tokens", "cost_micros_usd", "iterations", "tool_calls", "seconds", "output_characters")
_VALIDATIONS: Final = frozenset(
    {"must_match", "must_not_match", "max_characters", "min_characters", "json", "citations", "supported_by"}
)


class RuleEntry(BaseModel):
    """One rule as it is written."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=NAME)
    type: RuleType
    severity: Severity
    action: Action | None = None
    target: Target | None = None
    pattern: str = Field(default="", max_length=_MAX_PATTERN)
    keywords: list[str] = Field(default=[], max_length=_MAX_KEYWORDS)
    entities: list[str] = Field(default=[], max_length=64)
    allow_macros: list[str] = Field(default=[], max_length=256)
    replacement: str = Field(default="", max_length=256)
    case_insensitive: bool = False
    params: dict[str, JsonValue] = {}

    @model_validator(mode="after")
    def _complete(self) -> RuleEntry:
        problem = _NEEDS[self.type](self) if self.type in _NEEDS else ""
        if problem:
            raise ValueError(problem)
        return self

    def rule(self) -> Rule:
        words = self.keywords or self.entities or self.allow_macros
        return Rule(
            name=self.name,
            type=self.type,
            severity=self.severity,
            action=self.action,
            target=self.target,
            pattern=self.pattern,
            keywords=tuple(words),
            replacement=self.replacement,
            case_insensitive=self.case_insensitive,
            params=self.params,
        )


class ProfileEntry(BaseModel):
    """A domain's choice of rules."""

    model_config = ConfigDict(extra="forbid")

    rules: list[str] = []
    extends: list[str] = []
    mode: Mode | None = None


class AgentEntry(BaseModel):
    """An entry of agents.yaml: only its name and profile matter here."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field(pattern=NAME)
    profile: str = ""


class DocumentEntry(BaseModel):
    """The whole document."""

    model_config = ConfigDict(extra="forbid")

    rules: list[RuleEntry] = Field(min_length=1, max_length=_MAX_RULES)
    mode: Mode = Mode.STRICT
    profiles: dict[str, ProfileEntry] = Field(default={}, max_length=_MAX_PROFILES)
    agents: list[AgentEntry] = []
    embedding_sets: dict[str, list[str]] = {}


def _needs_pattern(entry: RuleEntry) -> str:
    return "" if entry.pattern else "a regex rule needs a pattern"


def _needs_keywords(entry: RuleEntry) -> str:
    return "" if all(entry.keywords or [""]) else "a keyword rule needs keywords"


def _needs_similarity(entry: RuleEntry) -> str:
    if not isinstance(entry.params.get("embedding_set"), str):
        return "a semantic_similarity rule needs params.embedding_set, the name of a set of texts"
    return _share(entry.params, "max_similarity")


def _needs_classifier(entry: RuleEntry) -> str:
    if not isinstance(entry.params.get("model"), str):
        return "an llm_classifier rule needs params.model"
    return _share(entry.params, "threshold")


def _needs_threshold(entry: RuleEntry) -> str:
    params = entry.params
    bounds = [params[name] for name in ("min", "max") if name in params]
    if not bounds or not all(_is_number(bound) for bound in bounds):
        return "a numerical_threshold rule needs the number params.min or params.max"
    if not entry.pattern and not isinstance(params.get("metric"), str):
        return "a numerical_threshold rule needs params.metric, or a pattern that finds the number in the text"
    return ""


def _needs_resource(entry: RuleEntry) -> str:
    if entry.params.get("resource") not in _RESOURCES:
        return f"a resource rule needs params.resource, one of {', '.join(_RESOURCES)}"
    if not _is_number(entry.params.get("limit")):
        return "a resource rule needs the number params.limit"
    return ""


def _needs_validation(entry: RuleEntry) -> str:
    unknown = sorted(set(entry.params) - _VALIDATIONS)
    if unknown or not entry.params:
        return f"an output_validation rule takes params {', '.join(sorted(_VALIDATIONS))}, at least one"
    return ""


def _needs_expression(entry: RuleEntry) -> str:
    when = entry.params.get("when")
    return "" if isinstance(when, str) and when else "a tool_arguments rule needs params.when, a CEL expression"


def _needs_source(entry: RuleEntry) -> str:
    if entry.params.get("source", "prompt") not in SOURCES:
        return f"params.source of an injection_score rule is one of {', '.join(SOURCES)}"
    return _share(entry.params, "threshold") if "threshold" in entry.params else ""


def _needs_onnx(entry: RuleEntry) -> str:
    if not re.fullmatch(NAME, str(entry.params.get("model", ""))):
        return "an onnx_classifier rule needs params.model, the name of a file in the folder of classifiers"
    return _share(entry.params, "threshold")


def _needs_plugin(entry: RuleEntry) -> str:
    name = entry.params.get("plugin")
    if not isinstance(name, str) or not name:
        return "a custom rule needs params.plugin, the name of an entry point"
    return ""


def _share(params: Mapping[str, Any], name: str) -> str:
    value = params.get(name)
    return "" if _is_number(value) and 0 <= value <= 1 else f"params.{name} must be a number from 0 to 1"


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


_NEEDS: Final[dict[RuleType, Callable[[RuleEntry], str]]] = {
    RuleType.REGEX: _needs_pattern,
    RuleType.KEYWORD: _needs_keywords,
    RuleType.SEMANTIC_SIMILARITY: _needs_similarity,
    RuleType.LLM_CLASSIFIER: _needs_classifier,
    RuleType.NUMERICAL_THRESHOLD: _needs_threshold,
    RuleType.RESOURCE: _needs_resource,
    RuleType.OUTPUT_VALIDATION: _needs_validation,
    RuleType.TOOL_ARGUMENTS: _needs_expression,
    RuleType.CUSTOM: _needs_plugin,
    RuleType.INJECTION_SCORE: _needs_source,
    RuleType.ONNX_CLASSIFIER: _needs_onnx,
}
