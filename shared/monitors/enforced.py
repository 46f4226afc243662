"""What policy publishes, as an enforcement point holds it: the last snapshot, kept when policy is away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final, Generic, TypeVar

import grpc

from agentnet.policy.v1 import policy_service_pb2 as pb
from agentnet.policy.v1.policy_service_pb2_grpc import PolicyServiceStub
from shared import identity
from shared.identity import CredentialKind, Principal, Signer
from shared.log import log
from shared.monitors.rules import Bundle, Rule
from shared.monitors.wire import EVERYONE, bundle, in_force
from shared.rpc.status import from_rpc
from shared.tool_permissions import ToolPermission

NAME: Final = "agentnet.policy.v1.PolicyService"
_TTL: Final = timedelta(minutes=5)
_KNOWN_AT_MOST: Final = 10_000

Held = TypeVar("Held")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is enforced: bundles by tenant, "*" for all others. `chosen` tells an agent's where agents differ,
    `reported` which share of a tenant's sessions policy wants to hear the decisions of.
    """

    revision: int
    tenants: Mapping[str, Sequence[Bundle]]
    chosen: Callable[[str, str], Sequence[Bundle]] | None = None
    reported: Mapping[str, float] = field(default_factory=dict)
    permissions: Mapping[str, Sequence[ToolPermission]] = field(default_factory=dict)

    def in_force(self, tenant: str, agent: str) -> Sequence[Bundle]:
        """What holds for an agent of a tenant; an empty name stands for calls without one."""
        if self.chosen:
            return self.chosen(tenant, agent)
        return self.tenants.get(tenant) or self.tenants.get("*", ())


# The snapshots after a revision: now and after every change. Ends with a MeshError when the stream breaks.
Watch = Callable[[int], AsyncIterator[Snapshot]]


class Enforced(Generic[Held]):
    """What holds for every tenant's agents, made ready once by `hold`. What is done while there is nothing yet, each
    service says itself.
    """

    def __init__(self, watch: Watch, hold: Callable[[tuple[Bundle, ...]], Held]) -> None:
        self._watch = watch
        self._hold = hold
        self._snapshot: Snapshot | None = None
        self._ready: dict[tuple[Bundle, ...], Held] = {}
        self._of_agents: dict[tuple[str, str], Held] = {}

    async def follow(self) -> None:
        """Takes every snapshot policy publishes, for as long as the stream holds."""
        async for snapshot in self._watch(self.revision):
            self._snapshot, self._ready, self._of_agents = snapshot, {}, {}
            log.info("policy.snapshot", revision=snapshot.revision, tenants=len(snapshot.tenants))

    @property
    def revision(self) -> int:
        """Which policy is enforced; 0 before the first snapshot."""
        return self._snapshot.revision if self._snapshot else 0

    def reported(self, tenant: str) -> float:
        """Which share of the tenant's sessions policy wants to hear the decisions of, 0 to 1."""
        wanted = self._snapshot.reported if self._snapshot else {}
        return wanted.get(tenant, wanted.get(EVERYONE, 0.0))

    def permissions(self, tenant: str) -> Sequence[ToolPermission]:
        """Who may call the tenant's tools."""
        return self._snapshot.permissions.get(tenant, ()) if self._snapshot else ()

    def held(self, tenant: str, agent: str) -> Held | None:
        """What holds for an agent, looked up once a snapshot: to hash a thousand rules takes longer than to judge by
        them. None when no snapshot was ever received.
        """
        whose = (tenant, agent.partition("@")[0])
        if self._snapshot and whose not in self._of_agents:
            if len(self._of_agents) >= _KNOWN_AT_MOST:
                self._of_agents.clear()
            self._of_agents[whose] = self.with_more(tenant, agent, ())
        return self._of_agents.get(whose)

    def rules(self, tenant: str, agent: str, more: Sequence[Bundle]) -> Sequence[Rule]:
        """All that hold for an agent, with those of further bundles."""
        return [rule for one in (*self._in_force(tenant, agent), *more) for rule in one.rules]

    def with_more(
        self, tenant: str, agent: str, more: Sequence[Bundle], *, without: frozenset[str] = frozenset()
    ) -> Held:
        """The same with further bundles, and without some rules. Whoever has equal bundles shares what was made of
        them.
        """
        bundles = (*self._in_force(tenant, agent), *more)
        if without:
            bundles = tuple(
                replace(one, rules=tuple(rule for rule in one.rules if rule.name not in without)) for one in bundles
            )
        if bundles not in self._ready:
            self._ready[bundles] = self._hold(bundles)
        return self._ready[bundles]

    def _in_force(self, tenant: str, agent: str) -> Sequence[Bundle]:
        return self._snapshot.in_force(tenant, agent.partition("@")[0]) if self._snapshot else ()


def published(channel: grpc.aio.Channel, signer: Signer, service: str) -> Watch:
    """WatchBundles over the mesh, in the name of a service."""
    stub = PolicyServiceStub(channel)
    caller = Principal("mesh", service, frozenset({"operator"}), CredentialKind.SERVICE)

    async def watch(after: int) -> AsyncIterator[Snapshot]:
        metadata = ((identity.HEADER, signer.sign(caller, _TTL)),)
        tenants: list[pb.TenantBundles] = []
        try:
            async for answer in stub.WatchBundles(pb.WatchBundlesRequest(after_revision=after), metadata=metadata):
                tenants += answer.tenants
                if not (answer.heartbeat or answer.continued):
                    yield snapshot_of(answer.revision, tenants)
                    tenants = []
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error) from None

    return watch


def snapshot_of(revision: int, told: Sequence[pb.TenantBundles]) -> Snapshot:
    tenants = {one.tenant_id: tuple(bundle(found) for found in one.bundles) for one in told}
    reported = {one.tenant_id: one.reported for one in told}
    permissions = {
        one.tenant_id: [ToolPermission(it.tool, tuple(it.roles), tuple(it.agents)) for it in one.tool_permissions]
        for one in told
    }
    return Snapshot(revision, tenants, lambda tenant, agent: in_force(told, tenant, agent), reported, permissions)
