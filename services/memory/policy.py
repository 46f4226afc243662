"""What policy says of memories: judged as something said when stored, as part of a prompt when recalled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, Final

from services.memory.errors import PolicyBlocked, PolicyUnavailable
from services.memory.rank import Ranked
from services.memory.store import Memory
from shared.monitors.decisions import Decided, Note, unnoted
from shared.monitors.enforced import Enforced
from shared.monitors.rules import Bundle, Target
from shared.monitors.stream import CompiledRules, compile_rules, judge

_LABELS: Final = 100


@dataclass(frozen=True, slots=True)
class Held:
    """What holds for an agent: the rules for what is stored and for what is recalled, and the bundles they are of."""

    labels: str
    versions: tuple[str, ...]
    stored: CompiledRules
    recalled: CompiledRules

    @classmethod
    def of(cls, bundles: tuple[Bundle, ...]) -> Held:
        versions = tuple(bundle.label for bundle in bundles)
        labels = ",".join(versions)[:_LABELS]
        return cls(labels, versions, compile_rules(bundles, Target.OUTPUT), compile_rules(bundles, Target.PROMPT))


_NOTHING: Final = Held.of(())


class MemoryPolicy:
    """Judges by the last snapshot, which stays in force when policy is away."""

    def __init__(self, enforced: Enforced[Held], *, strict: bool, note: Note = unnoted) -> None:
        self._enforced = enforced
        self._note = note
        self._strict = strict

    def kept(self, tenant: str, agent: str, text: str, *, field: str) -> tuple[str, str]:
        """The text as it may be stored, and the bundles that judged it. Raises PolicyBlocked and PolicyUnavailable."""
        held = self._held(tenant, agent)
        ruling = judge(held.stored, Target.OUTPUT, text)
        self._note(tenant, Decided.by(ruling, Target.OUTPUT, text, agent=agent, bundles=held.versions))
        if ruling.blocked:
            verdict = ruling.verdicts[-1]
            message = f"rule {verdict.rule.name} does not let this be remembered"
            raise PolicyBlocked(message, field=field, rule=verdict.rule.name, bundle=verdict.bundle)
        return ruling.text, held.labels

    def noted(self, tenant: str, agent: str, value: object, *, field: str) -> object:
        """Every text in a value of JSON as it may be stored, keys too. Raises PolicyBlocked and PolicyUnavailable."""
        return _each_text(value, lambda text: self.kept(tenant, agent, text, field=field)[0])

    def shown(
        self, tenant: str, agent: str, found: Iterable[Ranked], around: Mapping[int, Iterable[Memory]]
    ) -> tuple[list[Ranked], dict[int, list[Memory]], int]:
        """What may be recalled of the matches and of what stands around them, and how many are withheld.

        Raises PolicyUnavailable.
        """
        self._held(tenant, agent)

        told = cache(partial(self.told, tenant, agent))

        def allowed(memory: Memory) -> Memory | None:
            text = told(memory.content)
            return None if text is None else _labels(memory._replace(content=text), told)

        judged = [(one, allowed(one.memory)) for one in found]
        shown = [replace(one, memory=memory) for one, memory in judged if memory]
        near = {place: [memory for one in line if (memory := allowed(one))] for place, line in around.items()}
        return shown, near, len(judged) - len(shown)

    def readable(self, tenant: str, memory: Memory) -> Memory:
        """As it may be part of a prompt, without content where that may not be one. Raises PolicyUnavailable."""
        told = partial(self.told, tenant, memory.agent)
        return _labels(memory._replace(content=told(memory.content) or ""), told)

    def told(self, tenant: str, agent: str, text: str) -> str | None:
        """The text as it may be part of a prompt; None: not at all. Raises PolicyUnavailable."""
        held = self._held(tenant, agent)
        ruling = judge(held.recalled, Target.PROMPT, text)
        self._note(tenant, Decided.by(ruling, Target.PROMPT, text, agent=agent, bundles=held.versions))
        return None if ruling.blocked else ruling.text

    def _held(self, tenant: str, agent: str) -> Held:
        held = self._enforced.held(tenant, agent)
        if held is None and self._strict:
            raise PolicyUnavailable("no policy has been received yet and this mesh is strict", dependency="policy")
        return held or _NOTHING


def labels_told(
    tags: Iterable[str], metadata: Mapping[str, Any], told: Callable[[str], str | None]
) -> tuple[tuple[str, ...], Mapping[str, Any]]:
    """Tags and metadata as they may be part of a prompt."""
    return tuple(text for tag in tags if (text := told(tag))), _each_text(metadata, lambda text: told(text) or "")


def _labels(memory: Memory, told: Callable[[str], str | None]) -> Memory:
    if not (memory.tags or memory.metadata):
        return memory
    tags, metadata = labels_told(memory.tags, memory.metadata, told)
    return memory._replace(tags=tags, metadata=metadata)


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    """A value of JSON with each text of it changed. Keys that become alike are told apart by what follows them."""
    match value:
        case str():
            return change(value)
        case Mapping():
            made: dict[str, Any] = {}
            for key, one in value.items():
                name = change(key)
                while name in made:
                    name += "'"
                made[name] = _each_text(one, change)
            return made
        case list():
            return [_each_text(one, change) for one in value]
        case _:
            return value
