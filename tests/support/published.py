"""Policy as enforcement points see it: snapshots that a test publishes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from google.protobuf import json_format

from agentnet.policy.v1 import policy_service_pb2 as pb
from shared.monitors.enforced import Enforced


async def enforcing(
    *rules: dict[str, Any], tenant: str = "*", attached: Sequence[dict[str, Any]] = (), agent: str = "*"
) -> Enforced:
    """A bundle `default@1.0.0` of these rules in force, and one of `attached` for an agent."""
    bundles = [{"name": "default", "version": "1.0.0", "rules": list(rules)}]
    given: dict[str, Any] = {"tenantId": tenant, "bundles": bundles}
    if attached:
        given["attached"] = [{"name": "own", "version": "2.0.0", "rules": list(attached)}]
        given["attachments"] = [{"bundle": "own@2.0.0", "agent": agent}]

    async def watch(_after: int) -> AsyncIterator[pb.WatchBundlesResponse]:
        yield json_format.ParseDict({"revision": 1, "tenants": [given]}, pb.WatchBundlesResponse())

    enforced = Enforced(watch)
    await enforced.follow()
    return enforced


def unheard() -> Enforced:
    """Before the first snapshot."""

    async def watch(_after: int) -> AsyncIterator[pb.WatchBundlesResponse]:
        return
        yield

    return Enforced(watch)
