"""Rules and bundles as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, NamedTuple


class RuleType(StrEnum):
    """What kind of judge a rule is. The first five read text as it flows; the sets below say where the rest do."""

    KEYWORD = "keyword"
    REGEX = "regex"
    PII = "pii"
    SECRET = "secret"  # noqa: S105 - a type, not a secret
    INJECTION = "injection"
    SEMANTIC_SIMILARITY = "semantic_similarity"
    LLM_CLASSIFIER = "llm_classifier"
    NUMERICAL_THRESHOLD = "numerical_threshold"
    RESOURCE = "resource"
    OUTPUT_VALIDATION = "output_validation"
    TOOL_ARGUMENTS = "tool_arguments"
    CUSTOM = "custom"
    INJECTION_SCORE = "injection_score"
    ONNX_CLASSIFIER = "onnx_classifier"


class Severity(StrEnum):
    MINOR = "minor"
    MAJOR = "major"
    SEVERE = "severe"


class Action(StrEnum):
    ALLOW = "allow"
    WARN = "warn"
    REDACT = "redact"
    BLOCK = "block"
    ESCALATE = "escalate"
    REQUIRE_APPROVAL = "require_approval"


RANK: Final = (Action.ALLOW, Action.WARN, Action.ESCALATE, Action.REDACT, Action.REQUIRE_APPROVAL, Action.BLOCK)


PASS: Final = "pass"  # noqa: S105 - a status, not a secret
EXCUSED: Final = "excused"  # an override lets pass whatever the rule finds


class Target(StrEnum):
    PROMPT = "prompt"
    OUTPUT = "output"
    TOOL_ARGUMENTS = "tool_arguments"


class Mode(StrEnum):
    """Strict: blocks block, and so does a rule that cannot be judged. Permissive: both are warnings."""

    STRICT = "strict"
    PERMISSIVE = "permissive"


STREAMED: Final = frozenset(
    {RuleType.KEYWORD, RuleType.REGEX, RuleType.PII, RuleType.SECRET, RuleType.INJECTION}
)  # judged on every character, in process
WINDOWED: Final = frozenset(
    {
        RuleType.SEMANTIC_SIMILARITY,
        RuleType.LLM_CLASSIFIER,
        RuleType.CUSTOM,
        RuleType.INJECTION_SCORE,
        RuleType.ONNX_CLASSIFIER,
    }
)  # a sentence
WHOLE: Final = frozenset({RuleType.OUTPUT_VALIDATION})  # a finished text
MEASURED: Final = frozenset({RuleType.NUMERICAL_THRESHOLD, RuleType.RESOURCE})  # numbers, not text
ENFORCED: Final = frozenset(RuleType)


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
    params: Mapping[str, object] = field(default_factory=dict, hash=False)

    @property
    def enforced(self) -> bool:
        """Whether this mesh can judge this type."""
        return self.type in ENFORCED

    def acts_on(self, target: Target) -> Action:
        """What a match does: minor rules warn, others redact output and block everything else."""
        if self.action is not None:
            return self.action
        if self.severity is Severity.MINOR:
            return Action.WARN
        return Action.REDACT if target is Target.OUTPUT else Action.BLOCK

    def judges(self, target: Target) -> bool:
        """Whether the rule reads the target as it flows."""
        streamed = self.type in STREAMED or (self.type is RuleType.NUMERICAL_THRESHOLD and bool(self.pattern))
        return streamed and self.target in (None, target)


@dataclass(frozen=True, slots=True)
class Profile:
    """A named choice of a bundle's rules, those of what it extends among them. Without a mode the bundle's holds."""

    name: str
    rules: tuple[str, ...]
    extends: tuple[str, ...] = ()
    mode: Mode | None = None


@dataclass(frozen=True, slots=True)
class Bundle:
    """One version of a set of rules. `agents` names the profile of agents that do not get all of them."""

    name: str
    version: str
    rules: tuple[Rule, ...]
    mode: Mode = Mode.STRICT
    profiles: tuple[Profile, ...] = ()
    agents: Mapping[str, str] = field(default_factory=dict, hash=False)
    embedding_sets: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)

    @property
    def label(self) -> str:
        return f"{self.name}@{self.version}"

    def for_agent(self, agent: str) -> Bundle:
        """What holds for the agent: its profile, or everything."""
        return self.profiled(self.agents[agent]) if agent in self.agents else self

    def profiled(self, name: str) -> Bundle:
        """Only the rules of one profile; everything when there is no such profile."""
        for profile in self.profiles:
            if profile.name == name:
                chosen = frozenset(profile.rules)
                rules = tuple(rule for rule in self.rules if rule.name in chosen)
                return replace(self, rules=rules, mode=profile.mode or self.mode, agents={})
        return self


class Verdict(NamedTuple):
    """One match: which rule did what, where in the original text, in characters. `kind` says what was found, for rules
    that look for several things.
    """

    rule: Rule
    bundle: str
    action: Action
    target: Target
    start: int
    end: int
    kind: str = ""
