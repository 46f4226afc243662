"""What the `params` of a new rule must be for the rule to be judged here, beyond the form of every document."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from shared.monitors import plugin
from shared.monitors.ambiguity import refuse_ambiguous
from shared.monitors.pattern import PatternInvalid, read
from shared.monitors.rules import Rule, RuleType

_TAKES: Final = {
    RuleType.PII: ("pseudonyms",),
    RuleType.SEMANTIC_SIMILARITY: ("embedding_set", "max_similarity"),
    RuleType.LLM_CLASSIFIER: ("model", "threshold", "question"),
    RuleType.ONNX_CLASSIFIER: ("model", "threshold"),
    RuleType.INJECTION_SCORE: ("source", "threshold"),
    RuleType.NUMERICAL_THRESHOLD: ("metric", "min", "max"),
    RuleType.RESOURCE: ("resource", "limit", "warn_at"),
    RuleType.TOOL_ARGUMENTS: ("tool", "when"),
}
_FREE: Final = frozenset({RuleType.CUSTOM, RuleType.OUTPUT_VALIDATION})  # a plug-in's own; refused by the schema


@dataclass(frozen=True, slots=True)
class Flaw:
    """Why a rule cannot be judged as it is, and which of its params to mend."""

    problem: str
    param: str


def flaw_of(rule: Rule, *, has_model: Callable[[str], bool]) -> Flaw | None:
    """The first flaw; None when the rule can be judged. Loads the plug-in that a rule names."""
    takes = _TAKES.get(rule.type, ())
    unknown = sorted(set(rule.params) - set(takes))
    if unknown and rule.type not in _FREE:
        known = f"it takes {', '.join(takes)}" if takes else "it takes none"
        return Flaw(f"{unknown[0]} is not a param of a rule of type {rule.type}; {known}", unknown[0])
    for param, value in rule.params.items():
        form = _FORMS.get((rule.type, param))
        if form and not form[0](value):
            return Flaw(f"params.{param} must be {form[1]}", param)
    return _pattern_flaw(rule) or _absent(rule, has_model)


def _absent(rule: Rule, has_model: Callable[[str], bool]) -> Flaw | None:
    """What the rule names and is not here."""
    if rule.type is RuleType.ONNX_CLASSIFIER and not has_model(str(rule.params["model"])):
        return Flaw(f"there is no classifier {rule.params['model']} where policy runs", "model")
    if rule.type is RuleType.CUSTOM:
        try:
            plugin.load(str(rule.params["plugin"]), rule.params)
        except plugin.PluginUnavailable as error:
            return Flaw(f"{error.message} (where policy runs)", "plugin")
    return None


def _pattern_flaw(rule: Rule) -> Flaw | None:
    if rule.type is not RuleType.OUTPUT_VALIDATION:
        return None
    for param in ("must_match", "must_not_match"):
        try:
            if param in rule.params:
                refuse_ambiguous(read(str(rule.params[param])))
        except PatternInvalid as error:
            return Flaw(f"the pattern does not compile: {error}", param)
    return None


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _is_length(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


_SHARE: Final = (_is_share, "a number from 0 to 1")
_LENGTH: Final = (_is_length, "a whole number, 0 or more")
_TEXT: Final = (_is_text, "a text")
_BOOL: Final = (_is_bool, "true or false")
_VALIDATION: Final = RuleType.OUTPUT_VALIDATION
_FORMS: Final[Mapping[tuple[RuleType, str], tuple[Callable[[Any], bool], str]]] = {
    (RuleType.PII, "pseudonyms"): _BOOL,
    (RuleType.RESOURCE, "warn_at"): _SHARE,
    (RuleType.CUSTOM, "threshold"): _SHARE,
    (RuleType.TOOL_ARGUMENTS, "tool"): _TEXT,
    (RuleType.LLM_CLASSIFIER, "question"): _TEXT,
    (_VALIDATION, "must_match"): _TEXT,
    (_VALIDATION, "must_not_match"): _TEXT,
    (_VALIDATION, "max_characters"): _LENGTH,
    (_VALIDATION, "min_characters"): _LENGTH,
    (_VALIDATION, "json"): _BOOL,
    (_VALIDATION, "citations"): _BOOL,
    (_VALIDATION, "supported_by"): (lambda value: value == "sources", "sources"),
}
