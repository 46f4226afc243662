"""Rules and bundles as values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class RuleType(StrEnum):
    KEYWORD = "keyword"
    REGEX = "regex"
    SEMANTIC_SIMILARITY = "semantic_similarity"
    LLM_CLASSIFIER = "llm_classifier"
    NUMERICAL_THRESHOLD = "numerical_threshold"


class Severity(StrEnum):
    MINOR = "minor"
    MAJOR = "major"
    SEVERE = "severe"


class Action(StrEnum):
    WARN = "warn"
    REDACT = "redact"
    BLOCK = "block"
    ESCALATE = "escalate"
    REQUIRE_APPROVAL = "require_approval"


class Target(StrEnum):
    PROMPT = "prompt"
    OUTPUT = "output"
    TOOL_ARGUMENTS = "tool_arguments"


ENFORCED: Final = frozenset({RuleType.KEYWORD, RuleType.REGEX})


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. Without an action its severity decides; without a target it judges everything."""

    name: str
    type: RuleType
    severity: Severity
    action: Action | None = None
    target: Target | None = None
    pattern: str = ""
    keywords: tuple[str, ...] = ()
    replacement: str = ""
    case_insensitive: bool = False

    @property
    def enforced(self) -> bool:
        """Whether the engine can judge this type."""
        return self.type in ENFORCED

    def acts_on(self, target: Target) -> Action:
        """What a match does: minor rules warn, others redact output and block everything else."""
        if self.action is not None:
            return self.action
        if self.severity is Severity.MINOR:
            return Action.WARN
        return Action.REDACT if target is Target.OUTPUT else Action.BLOCK

    def judges(self, target: Target) -> bool:
        return self.enforced and self.target in (None, target)


@dataclass(frozen=True, slots=True)
class Bundle:
    """One version of a set of rules."""

    name: str
    version: str
    rules: tuple[Rule, ...]

    @property
    def label(self) -> str:
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One match: which rule did what, where in the original text, in characters."""

    rule: Rule
    bundle: str
    action: Action
    target: Target
    start: int
    end: int
