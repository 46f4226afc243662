"""Policy as enforcement points see it: snapshots that a test publishes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeVar

from google.protobuf import json_format

from agentnet.policy.v1 import policy_service_pb2 as pb
from shared.monitors.enforced import Enforced, Snapshot, snapshot_of
from shared.monitors.rules import Bundle

Held = TypeVar("Held")


async def enforcing(
    hold: Callable[[tuple[Bundle, ...]], Held],
    *rules: dict[str, Any],
    tenant: str = "*",
    attached: Sequence[dict[str, Any]] = (),
    agent: str = "*",
    permissions: Sequence[dict[str, Any]] = (),
) -> Enforced[Held]:
    """A bundle `default@1.0.0` of these rules in force, one of `attached` for an agent, and who may call tools."""
    bundles = [{"name": "default", "version": "1.0.0", "rules": list(rules)}]
    given: dict[str, Any] = {"tenantId": tenant, "bundles": bundles, "toolPermissions": list(permissions)}
    if attached:
        given["attached"] = [{"name": "own", "version": "2.0.0", "rules": list(attached)}]
        given["attachments"] = [{"bundle": "own@2.0.0", "agent": agent}]

    async def watch(_after: int) -> AsyncIterator[Snapshot]:
        yield snapshot_of(1, [json_format.ParseDict(given, pb.TenantBundles())])

    enforced = Enforced(watch, hold)
    await enforced.follow()
    return enforced


def unheard(hold: Callable[[tuple[Bundle, ...]], Held]) -> Enforced[Held]:
    """Before the first snapshot."""

    async def watch(_after: int) -> AsyncIterator[Snapshot]:
        return
        yield

    return Enforced(watch, hold)
