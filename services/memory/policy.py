"""What policy says of memories: judged as something said when stored, as part of a prompt when recalled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from services.memory.errors import PolicyBlocked, PolicyUnavailable
from services.memory.rank import Ranked
from services.memory.store import Memory
from shared.monitors.enforced import Enforced
from shared.monitors.rules import Bundle, Target
from shared.monitors.stream import Ruling, judge


class MemoryPolicy:
    """Judges by the last snapshot, which stays in force when policy is away."""

    def __init__(self, enforced: Enforced, *, strict: bool) -> None:
        self._enforced = enforced
        self._strict = strict

    def kept(self, tenant: str, agent: str, text: str, *, field: str) -> tuple[str, str]:
        """The text as it may be stored, and the bundles that judged it. Raises PolicyBlocked and PolicyUnavailable."""
        bundles = self._bundles(tenant, agent)
        ruling = self._ruling(bundles, Target.OUTPUT, text)
        if ruling.blocked:
            verdict = ruling.verdicts[-1]
            message = f"rule {verdict.rule.name} does not let this be remembered"
            raise PolicyBlocked(message, field=field, rule=verdict.rule.name, bundle=verdict.bundle)
        return ruling.text, ",".join(bundle.label for bundle in bundles)[:100]

    def shown(
        self, tenant: str, agent: str, found: Iterable[Ranked], around: Mapping[int, Iterable[Memory]]
    ) -> tuple[list[Ranked], dict[int, list[Memory]], int]:
        """What may be recalled of the matches and of what stands around them, and how many are withheld.

        Raises PolicyUnavailable.
        """
        bundles = self._bundles(tenant, agent)
        matches = list(found)
        allowed = [(one, self._allowed(bundles, one.memory)) for one in matches]
        shown = [replace(one, memory=memory) for one, memory in allowed if memory]
        near = {
            place: [memory for one in line if (memory := self._allowed(bundles, one))] for place, line in around.items()
        }
        return shown, near, len(matches) - len(shown)

    def _allowed(self, bundles: tuple[Bundle, ...], memory: Memory) -> Memory | None:
        ruling = self._ruling(bundles, Target.PROMPT, memory.content)
        return None if ruling.blocked else replace(memory, content=ruling.text)

    def _ruling(self, bundles: tuple[Bundle, ...], target: Target, text: str) -> Ruling:
        return judge(self._enforced.rules(bundles, target), target, text)

    def _bundles(self, tenant: str, agent: str) -> tuple[Bundle, ...]:
        bundles = self._enforced.bundles(tenant, agent)
        if bundles is None and self._strict:
            raise PolicyUnavailable("no policy has been received yet and this mesh is strict", dependency="policy")
        return bundles or ()
