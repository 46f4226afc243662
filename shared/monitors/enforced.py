"""What policy publishes, as an enforcement point holds it: the last snapshot, kept when policy is away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Final

import grpc

from agentnet.policy.v1 import policy_service_pb2 as pb
from agentnet.policy.v1.policy_service_pb2_grpc import PolicyServiceStub
from shared import identity
from shared.identity import CredentialKind, Principal, Signer
from shared.log import log
from shared.monitors.rules import Bundle, Target
from shared.monitors.stream import CompiledRules, compile_rules
from shared.monitors.wire import in_force
from shared.rpc.status import from_rpc

NAME: Final = "agentnet.policy.v1.PolicyService"
_TTL: Final = timedelta(minutes=5)
_KNOWN_AT_MOST: Final = 10_000

# The snapshots after a revision: now and after every change. Ends with a MeshError when the stream breaks.
Watch = Callable[[int], AsyncIterator[pb.WatchBundlesResponse]]


class Enforced:
    """The rules of every tenant's agents. Each service says itself what it does when there are none yet."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._snapshot: pb.WatchBundlesResponse | None = None
        self._bundles: dict[tuple[str, str], tuple[Bundle, ...]] = {}
        self._compiled: dict[tuple[tuple[Bundle, ...], Target], CompiledRules] = {}

    async def follow(self) -> None:
        """Takes every snapshot policy publishes, for as long as the stream holds."""
        async for snapshot in self._watch(self._snapshot.revision if self._snapshot else 0):
            if not snapshot.heartbeat:
                self._snapshot, self._bundles, self._compiled = snapshot, {}, {}
                log.info("policy.snapshot", revision=snapshot.revision, tenants=len(snapshot.tenants))

    def bundles(self, tenant: str, agent: str) -> tuple[Bundle, ...] | None:
        """What holds for an agent, looked up once a snapshot; None when none was ever received."""
        if self._snapshot is None:
            return None
        whose = (tenant, agent.partition("@")[0])
        if whose not in self._bundles:
            if len(self._bundles) >= _KNOWN_AT_MOST:
                self._bundles.clear()
            self._bundles[whose] = tuple(in_force(self._snapshot.tenants, *whose))
        return self._bundles[whose]

    def rules(self, bundles: tuple[Bundle, ...], target: Target) -> CompiledRules:
        """Their rules for a target. Tenants and agents with the same bundles share what was compiled."""
        if (bundles, target) not in self._compiled:
            self._compiled[bundles, target] = compile_rules(bundles, target)
        return self._compiled[bundles, target]


def published(channel: grpc.aio.Channel, signer: Signer, service: str) -> Watch:
    """WatchBundles over the mesh, in the name of a service."""
    stub = PolicyServiceStub(channel)
    caller = Principal("mesh", service, frozenset({"operator"}), CredentialKind.SERVICE)

    async def watch(after: int) -> AsyncIterator[pb.WatchBundlesResponse]:
        metadata = ((identity.HEADER, signer.sign(caller, _TTL)),)
        try:
            async for answer in stub.WatchBundles(pb.WatchBundlesRequest(after_revision=after), metadata=metadata):
                yield answer
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error) from None

    return watch
