"""Bundle documents: YAML or JSON text into rules and profiles, with the line of what is wrong."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from services.policy.errors import BundleInvalid
from services.policy.params import Flaw
from services.policy.plain_yaml import PlainLoader, paired
from services.policy.schema import DocumentEntry
from shared.monitors.ambiguity import refuse_ambiguous
from shared.monitors.arguments import compile_expression
from shared.monitors.pattern import PatternInvalid
from shared.monitors.rules import Mode, Profile, Rule, RuleType
from shared.monitors.stream import compile_pattern

Path = tuple[str | int, ...]

_MAX_DEPTH = 16
_NO_YAML = "the document is not YAML or JSON"
_PLAIN_TAGS = (None, "!", "tag:yaml.org,2002:str")  # the marks of quoted texts among them
_MAX_STATES = 100_000
_MAX_RESOLVED = 20_000


@dataclass(frozen=True, slots=True)
class Document:
    """What a bundle's text says."""

    rules: tuple[Rule, ...]
    mode: Mode = Mode.STRICT
    profiles: tuple[Profile, ...] = ()
    agents: Mapping[str, str] = field(default_factory=dict)
    embedding_sets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 of what is said, in canonical form: comments, order of keys and layout do not count."""
        data = json.dumps(dataclasses.asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(data.encode()).hexdigest()


def parse(document: str) -> tuple[Rule, ...]:
    """The document's rules. Raises BundleInvalid with the line and the path of the first fault."""
    return read(document).rules


def read(document: str, *, flaw_of: Callable[[Rule], Flaw | None] = lambda _: None) -> Document:
    """All the document says. Raises BundleInvalid with the line and the path of the first fault, and what `flaw_of`
    finds in a rule is one: documents that were taken once are read again without it.
    """
    tree, value = _tree(document)
    lines: dict[Path, int] = _lines(tree) if tree else {(): 1}
    try:
        parsed = DocumentEntry.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        raise _invalid(_said(first), lines, first["loc"]) from None
    rules = _rules(parsed, lines)
    for place, rule in enumerate(rules):
        if flaw := flaw_of(rule):
            raise _invalid(flaw.problem, lines, ("rules", place, "params", flaw.param))
    return Document(
        rules=rules,
        mode=parsed.mode,
        profiles=_profiles(parsed, lines, {rule.name for rule in rules}),
        agents=_agents(parsed, lines),
        embedding_sets={name: tuple(texts) for name, texts in parsed.embedding_sets.items()},
    )


def _said(fault: ErrorDetails) -> str:
    """What is wrong, without names of our classes."""
    if fault["type"] == "extra_forbidden":
        return f"{fault['loc'][-1]} is not known here"
    if fault["type"] in ("model_type", "dict_type"):
        return "there is a mapping expected here"
    return fault["msg"].removeprefix("Value error, ")


def _tree(document: str) -> tuple[yaml.Node | None, Any]:
    """The document's nodes, which know their lines, and its value."""
    document = paired(document)
    try:
        _refuse_what_is_not_plain(document)
        return yaml.compose(document, PlainLoader), yaml.load(document, PlainLoader)  # noqa: S506 - a safe loader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", "") if isinstance(error, yaml.constructor.ConstructorError) else ""
        raise _invalid(problem or _NO_YAML, {(): mark.line + 1 if mark else 1}, ()) from None


def _refuse_what_is_not_plain(document: str) -> None:
    depth = 0
    for event in yaml.parse(document, PlainLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise _invalid("aliases are not allowed; write the value out", {(): _line(event)}, ())
        if getattr(event, "tag", None) not in _PLAIN_TAGS:
            raise _invalid("tags are not allowed; a value is what it looks like", {(): _line(event)}, ())
        if depth > _MAX_DEPTH:
            raise _invalid("the document is nested too deeply", {(): _line(event)}, ())


def _line(part: yaml.Event | yaml.Node) -> int:
    return part.start_mark.line + 1 if part.start_mark else 1


def _rules(parsed: DocumentEntry, lines: dict[Path, int]) -> tuple[Rule, ...]:
    rules: dict[str, Rule] = {}
    states = 0
    for place, entry in enumerate(parsed.rules):
        if entry.name in rules:
            raise _invalid(f"the rule name {entry.name} is used twice", lines, ("rules", place, "name"))
        rules[entry.name] = rule = entry.rule()
        try:
            states += _compiles(rule)
        except PatternInvalid as error:
            part = next((part for part in ("pattern", "params") if getattr(rule, part)), "name")
            what = "expression" if rule.type is RuleType.TOOL_ARGUMENTS else "pattern"
            raise _invalid(f"the {what} does not compile: {error}", lines, ("rules", place, part)) from None
        if states > _MAX_STATES:
            problem = f"the patterns up to here unfold into more than {_MAX_STATES} states; make several bundles"
            raise _invalid(problem, lines, ("rules", place))
    return tuple(rules.values())


def _compiles(rule: Rule) -> int:
    """How many states the rule's patterns have. Raises PatternInvalid."""
    if rule.type is RuleType.TOOL_ARGUMENTS:
        compile_expression(str(rule.params["when"]))
    found = compile_pattern(rule)
    if rule.pattern:
        for detector in found:
            refuse_ambiguous(detector.program)
    return sum(len(detector.program.takes) for detector in found)


def _profiles(parsed: DocumentEntry, lines: dict[Path, int], rules: set[str]) -> tuple[Profile, ...]:
    for name, entry in parsed.profiles.items():
        for unknown in sorted(set(entry.rules) - rules):
            raise _invalid(f"the profile {name} names the rule {unknown}, which is not here", lines, ("profiles", name))
        for unknown in sorted(set(entry.extends) - set(parsed.profiles)):
            raise _invalid(f"the profile {name} extends {unknown}, which is not here", lines, ("profiles", name))
    known: dict[str, tuple[str, ...]] = {}
    for name in sorted(parsed.profiles):
        _resolve(name, parsed, lines, known)
    return tuple(
        Profile(name, known[name], tuple(entry.extends), entry.mode) for name, entry in sorted(parsed.profiles.items())
    )


def _resolve(name: str, parsed: DocumentEntry, lines: dict[Path, int], known: dict[str, tuple[str, ...]]) -> None:
    """Makes known the profile's rules, those of what it extends first. Raises BundleInvalid on a cycle."""
    path = [name]
    while path:
        entry = parsed.profiles[path[-1]]
        base = next((one for one in entry.extends if one not in known), None)
        if base is None:
            rules = [rule for one in dict.fromkeys(entry.extends) for rule in known[one]]
            known[path.pop()] = tuple(dict.fromkeys([*rules, *entry.rules]))
            if sum(map(len, known.values())) > _MAX_RESOLVED:
                problem = f"the profiles up to here add up to more than {_MAX_RESOLVED} rules"
                raise _invalid(problem, lines, ("profiles", name))
        elif base in path:
            cycle = " -> ".join((*path[path.index(base) :], base))
            raise _invalid(f"profiles extend each other in a cycle: {cycle}", lines, ("profiles", path[-1]))
        else:
            path.append(base)


def _agents(parsed: DocumentEntry, lines: dict[Path, int]) -> dict[str, str]:
    for place, agent in enumerate(parsed.agents):
        if agent.profile and agent.profile not in parsed.profiles:
            problem = f"the agent {agent.name} has the profile {agent.profile}, which is not here"
            raise _invalid(problem, lines, ("agents", place, "profile"))
    return {agent.name: agent.profile for agent in parsed.agents if agent.profile}


def _lines(node: yaml.Node, path: Path = ()) -> dict[Path, int]:
    found = {path: _line(node)}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if (*path, str(key.value)) in found:
                raise _invalid(f"the key {key.value} stands here twice", {(): _line(key)}, (*path, str(key.value)))
            found |= _lines(value, (*path, str(key.value)))
    elif isinstance(node, yaml.SequenceNode):
        for place, value in enumerate(node.value):
            found |= _lines(value, (*path, place))
    return found


def _invalid(problem: str, lines: Mapping[Path, int], path: Path) -> BundleInvalid:
    """Names the line of the nearest thing on the path that is there."""
    line = next(lines[path[:depth]] for depth in range(len(path), -1, -1) if path[:depth] in lines)
    where = ".".join(str(part) for part in path)
    return BundleInvalid(f"line {line}: {problem}", field="document", line=str(line), path=where)
