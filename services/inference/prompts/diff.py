"""What differs between two versions, as a list of changes and as a unified diff. Equal digests need no look."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from services.inference.prompts.content import REQUIRED, Content, Template, Variable, as_json
from services.inference.prompts.store import PromptVersion

_ABSENT: Final = object()


class ChangeKind(StrEnum):
    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference; before and after are JSON, empty where there is nothing."""

    path: str
    kind: ChangeKind
    before: str = ""
    after: str = ""


@dataclass(frozen=True, slots=True)
class Difference:
    """Everything that differs."""

    before_digest: str
    after_digest: str
    changes: tuple[Change, ...] = ()
    unified: str = ""


def compare(before: PromptVersion, after: PromptVersion) -> Difference:
    """From one version to another."""
    if before.digest == after.digest:
        return Difference(before.digest, after.digest)
    old, new = (f"{one.name}@{one.digest[:12]}" for one in (before, after))
    lines = difflib.unified_diff(written(before.content), written(after.content), old, new, lineterm="")
    return Difference(
        before.digest,
        after.digest,
        tuple(changes(before.content, after.content)),
        "".join(f"{line}\n" for line in lines),
    )


def changes(before: Content, after: Content) -> Iterator[Change]:
    """The differences in reading order: messages, variables, config."""
    yield from _messages(before.messages, after.messages)
    yield from _mapping("variables", _variables(before.variables), _variables(after.variables))
    yield from _mapping("config", before.config, after.config)


def written(content: Content) -> list[str]:
    """A content as lines a person reads."""
    lines: list[str] = []
    for message in content.messages:
        lines += [f"--- {message.role.value}{f' ({message.name})' if message.name else ''}", *message.text.split("\n")]
    if content.variables:
        lines.append("--- variables")
    for one in sorted(content.variables, key=lambda one: one.name):
        default = "" if one.default is REQUIRED else f" = {as_json(one.default)}"
        lines.append(f"{one.name}: {one.type.value}{default}{f'  # {one.description}' if one.description else ''}")
    if content.config:
        lines.append("--- config")
    lines += [f"{name}: {as_json(content.config[name])}" for name in sorted(content.config)]
    return lines


def _messages(before: Sequence[Template], after: Sequence[Template]) -> Iterator[Change]:
    """Messages are matched by their own digests, so that one put in between moves none of the others."""
    old, new = [_digest(one) for one in before], [_digest(one) for one in after]
    for what, i, i_end, j, j_end in difflib.SequenceMatcher(a=old, b=new, autojunk=False).get_opcodes():
        if what == "equal":
            continue
        both = min(i_end - i, j_end - j)
        for step in range(both):
            yield from _mapping(f"messages[{j + step}]", _parts(before[i + step]), _parts(after[j + step]))
        for place in range(i + both, i_end):
            yield _change(f"messages[{place}]", _parts(before[place]), _ABSENT)
        for place in range(j + both, j_end):
            yield _change(f"messages[{place}]", _ABSENT, _parts(after[place]))


def _mapping(path: str, before: Mapping[str, object], after: Mapping[str, object]) -> Iterator[Change]:
    for name in sorted({*before, *after}):
        old, new = before.get(name, _ABSENT), after.get(name, _ABSENT)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _mapping(f"{path}.{name}", old, new)
        elif old is _ABSENT or new is _ABSENT or as_json(old) != as_json(new):
            yield _change(f"{path}.{name}", old, new)


def _change(path: str, before: object, after: object) -> Change:
    if before is _ABSENT:
        return Change(path, ChangeKind.ADDED, after=as_json(after))
    if after is _ABSENT:
        return Change(path, ChangeKind.REMOVED, before=as_json(before))
    return Change(path, ChangeKind.CHANGED, as_json(before), as_json(after))


def _digest(message: Template) -> bytes:
    return hashlib.sha256(as_json(_parts(message)).encode()).digest()


def _parts(message: Template) -> dict[str, object]:
    return {"role": message.role.value, "template": message.text, "name": message.name}


def _variables(variables: Sequence[Variable]) -> dict[str, object]:
    return {
        one.name: {"type": one.type.value, "description": one.description}
        | ({} if one.default is REQUIRED else {"default": one.default})
        for one in variables
    }
