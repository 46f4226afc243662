"""The policy this replica enforces: the last snapshot received, compiled once a tenant, kept when policy is away."""

from __future__ import annotations

from services.inference.errors import PolicyBlocked, PolicyUnavailable
from services.inference.peers import PolicyPeer, Snapshot
from shared.log import log
from shared.monitors.rules import Target, Verdict
from shared.monitors.stream import CompiledRule, Ruling, StreamMonitor, compile_rules, judge

_EVERYONE = "*"


class Enforcement:
    """Monitors by tenant."""

    def __init__(self, policy: PolicyPeer, *, strict: bool) -> None:
        self._policy = policy
        self._strict = strict
        self._snapshot: Snapshot | None = None
        self._compiled: dict[tuple[str, Target], tuple[CompiledRule, ...]] = {}

    async def follow(self) -> None:
        """Takes every snapshot policy publishes, for as long as the stream holds."""
        held = self._snapshot.revision if self._snapshot else 0
        async for snapshot in self._policy.watch(held):
            self._snapshot = snapshot
            self._compiled = {}
            log.info("policy.snapshot", revision=snapshot.revision, tenants=len(snapshot.tenants))

    def check_prompt(self, tenant: str, texts: tuple[str, ...]) -> list[Verdict]:
        """What rules say of a prompt. Raises PolicyBlocked and PolicyUnavailable."""
        rules = self._rules(tenant, Target.PROMPT)
        rulings = [judge(rules, Target.PROMPT, text) for text in texts]
        for ruling in rulings:
            if ruling.blocked:
                raise blocked(ruling, "the prompt")
        return [verdict for ruling in rulings for verdict in ruling.verdicts]

    def monitor(self, tenant: str) -> StreamMonitor:
        """A fresh monitor for one output stream. Raises PolicyUnavailable."""
        return StreamMonitor(self._rules(tenant, Target.OUTPUT), Target.OUTPUT)

    def _rules(self, tenant: str, target: Target) -> tuple[CompiledRule, ...]:
        if self._snapshot is None:
            if self._strict:
                raise PolicyUnavailable("no policy has been received yet and this mesh is strict", dependency="policy")
            return ()
        if (tenant, target) not in self._compiled:
            own = self._snapshot.tenants
            bundles = own.get(tenant) or own.get(_EVERYONE, ())
            self._compiled[tenant, target] = compile_rules(bundles, target)
        return self._compiled[tenant, target]


def blocked(ruling: Ruling, what: str) -> PolicyBlocked:
    """The error that says which rule stopped it."""
    verdict = ruling.verdicts[-1]
    return PolicyBlocked(f"{what} is blocked by policy", rule=verdict.rule.name, bundle=verdict.bundle)
