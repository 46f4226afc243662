"""The policy this replica enforces: the last snapshot received, compiled once a tenant, kept when policy is away."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from services.inference.errors import PolicyBlocked, PolicyUnavailable
from services.inference.peers import Payer, PolicyPeer, Snapshot
from shared.errors import MeshError
from shared.log import log
from shared.monitors.rules import Bundle, Target, Verdict
from shared.monitors.stream import CompiledRule, Ruling, StreamMonitor, compile_rules, judge, statuses

_REPORT_AT_ONCE: Final = 100
_KNOWN_AT_MOST: Final = 10_000


class Guard:
    """All that one generation says, under the rules of its tenant: text, thoughts and the arguments of tools."""

    def __init__(self, output: tuple[CompiledRule, ...], arguments: tuple[CompiledRule, ...]) -> None:
        self._output = output
        self._arguments = arguments
        self.text = StreamMonitor(output, Target.OUTPUT)
        self.reasoning = StreamMonitor(output, Target.OUTPUT)

    def arguments(self, text: str) -> Ruling:
        """Judges a tool's arguments, whole. What a rule would redact blocks when the rest is no longer JSON."""
        ruling = judge(self._arguments, Target.TOOL_ARGUMENTS, text)
        if ruling.text == text or ruling.blocked:
            return ruling
        try:
            json.loads(ruling.text)
        except ValueError:
            return ruling._replace(blocked=True)
        return ruling

    def anew(self) -> Guard:
        """The same rules for output that starts anew."""
        return Guard(self._output, self._arguments)

    def statuses(self) -> list[tuple[str, str, float]]:
        """Each rule of the output, its worst outcome and the seconds it took."""
        return list(statuses(self.text))


class Enforcement:
    """Monitors by tenant."""

    def __init__(self, policy: PolicyPeer, *, strict: bool) -> None:
        self._policy = policy
        self._strict = strict
        self._snapshot: Snapshot | None = None
        self._compiled: dict[tuple[tuple[Bundle, ...], Target], tuple[CompiledRule, ...]] = {}
        self._known: dict[tuple[str, str, Target], tuple[CompiledRule, ...]] = {}

    async def follow(self) -> None:
        """Takes every snapshot policy publishes, for as long as the stream holds."""
        held = self._snapshot.revision if self._snapshot else 0
        async for snapshot in self._policy.watch(held):
            self._snapshot = snapshot
            self._compiled, self._known = {}, {}
            log.info("policy.snapshot", revision=snapshot.revision, tenants=len(snapshot.tenants))

    def check_prompt(self, tenant: str, agent: str, texts: Sequence[str]) -> tuple[list[Verdict], PolicyBlocked | None]:
        """What rules say of a prompt, and the refusal when one blocks it. Raises PolicyUnavailable."""
        rules = self._rules(tenant, agent, Target.PROMPT)
        rulings = [judge(rules, Target.PROMPT, text) for text in texts]
        refusals = [blocked(ruling, "the prompt") for ruling in rulings if ruling.blocked]
        verdicts = [verdict for ruling in rulings for verdict in ruling.verdicts]
        return verdicts, refusals[0] if refusals else None

    def guard(self, tenant: str, agent: str) -> Guard:
        """Fresh monitors for one generation. Raises PolicyUnavailable."""
        return Guard(self._rules(tenant, agent, Target.OUTPUT), self._rules(tenant, agent, Target.TOOL_ARGUMENTS))

    @property
    def revision(self) -> int:
        """Which policy is enforced: another one may judge the same answer otherwise."""
        return self._snapshot.revision if self._snapshot else 0

    def _rules(self, tenant: str, agent: str, target: Target) -> tuple[CompiledRule, ...]:
        if self._snapshot is None:
            if self._strict:
                raise PolicyUnavailable("no policy has been received yet and this mesh is strict", dependency="policy")
            return ()
        whose = (tenant, agent.partition("@")[0], target)
        if whose not in self._known:
            self._known[whose] = self._found(self._snapshot, *whose)
        return self._known[whose]

    def _found(self, snapshot: Snapshot, tenant: str, agent: str, target: Target) -> tuple[CompiledRule, ...]:
        """Looked up once a snapshot; tenants and agents with the same bundles share what was compiled."""
        if len(self._known) >= _KNOWN_AT_MOST:
            self._known.clear()
        bundles = tuple(snapshot.in_force(tenant, agent))
        if (bundles, target) not in self._compiled:
            self._compiled[bundles, target] = compile_rules(bundles, target)
        return self._compiled[bundles, target]


async def report(policy: PolicyPeer, payer: Payer, verdicts: Sequence[Verdict], *, at: datetime) -> None:
    """Tells policy what rules did. Its being away changes nothing for the caller: it is logged."""
    named = [(f"{payer.generation_id}-{place}", verdict) for place, verdict in enumerate(verdicts)]
    try:
        for start in range(0, len(named), _REPORT_AT_ONCE):
            await policy.record(payer, named[start : start + _REPORT_AT_ONCE], at=at)
    except MeshError as error:
        log.error("violations.not_recorded", generation_id=payer.generation_id, error=error.message)


def blocked(ruling: Ruling, what: str) -> PolicyBlocked:
    """The error that says which rule stopped it."""
    verdict = ruling.verdicts[-1]
    return PolicyBlocked(f"{what} is blocked by policy", rule=verdict.rule.name, bundle=verdict.bundle)
