"""Bundle documents: YAML or JSON text into rules, with the line of what is wrong."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from services.policy.errors import BundleInvalid
from shared.monitors.rules import Action, Rule, RuleType, Severity, Target
from shared.monitors.stream import PatternInvalid, compile_pattern

_MAX_RULES = 500
_MAX_PATTERN = 4096
_MAX_KEYWORDS = 1000

Path = tuple[str | int, ...]


class _Rule(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    type: RuleType
    severity: Severity
    action: Action | None = None
    target: Target | None = None
    pattern: str = Field(default="", max_length=_MAX_PATTERN)
    keywords: list[str] = Field(default=[], max_length=_MAX_KEYWORDS)
    replacement: str = Field(default="", max_length=256)
    case_insensitive: bool = False
    params: dict[str, Any] = {}

    @model_validator(mode="after")
    def _complete(self) -> _Rule:
        if self.type is RuleType.REGEX and not self.pattern:
            raise ValueError("a regex rule needs a pattern")
        if self.type is RuleType.KEYWORD and not all(self.keywords or [""]):
            raise ValueError("a keyword rule needs keywords")
        return self


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")

    rules: list[_Rule] = Field(min_length=1, max_length=_MAX_RULES)


def parse(document: str) -> tuple[Rule, ...]:
    """The document's rules. Raises BundleInvalid with the line and the path of the first fault."""
    try:
        tree = yaml.compose(document, yaml.SafeLoader)
        data = yaml.safe_load(document)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise _invalid("the document is not YAML or JSON", line=line, path=()) from None
    lines: dict[Path, int] = _lines(tree) if tree else {(): 1}
    try:
        parsed = _Document.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise _invalid(first["msg"], line=_line(lines, first["loc"]), path=first["loc"]) from None
    return _checked(parsed, lines)


def digest(rules: tuple[Rule, ...]) -> str:
    """SHA-256 of the rules in canonical form."""
    data = [{name: getattr(rule, name) for name in rule.__slots__} for rule in rules]
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _checked(parsed: _Document, lines: dict[Path, int]) -> tuple[Rule, ...]:
    rules: dict[str, Rule] = {}
    for place, entry in enumerate(parsed.rules):
        where: Path = ("rules", place, "name")
        if entry.name in rules:
            raise _invalid(f"the rule name {entry.name} is used twice", line=_line(lines, where), path=where)
        rules[entry.name] = _rule(entry)
        try:
            if rules[entry.name].enforced:
                compile_pattern(rules[entry.name])
        except PatternInvalid as error:
            where = ("rules", place, "pattern")
            raise _invalid(f"the pattern does not compile: {error}", line=_line(lines, where), path=where) from None
    return tuple(rules.values())


def _rule(entry: _Rule) -> Rule:
    return Rule(
        name=entry.name,
        type=entry.type,
        severity=entry.severity,
        action=entry.action,
        target=entry.target,
        pattern=entry.pattern,
        keywords=tuple(entry.keywords),
        replacement=entry.replacement,
        case_insensitive=entry.case_insensitive,
    )


def _lines(node: yaml.Node, path: Path = ()) -> dict[Path, int]:
    found = {path: node.start_mark.line + 1}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            found |= _lines(value, (*path, str(key.value)))
    elif isinstance(node, yaml.SequenceNode):
        for place, value in enumerate(node.value):
            found |= _lines(value, (*path, place))
    return found


def _line(lines: dict[Path, int], path: Path) -> int:
    """The line of the nearest thing on the path that is there."""
    return next(lines[path[:depth]] for depth in range(len(path), -1, -1) if path[:depth] in lines)


def _invalid(problem: str, *, line: int, path: Path) -> BundleInvalid:
    where = ".".join(str(part) for part in path)
    return BundleInvalid(f"line {line}: {problem}", field="document", line=str(line), path=where)
