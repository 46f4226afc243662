"""How far a run is narrowed: by the credential that started it, its chain, its delegation. It can only get narrower."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC

from agentnet.common.v1 import principal_pb2
from agentnet.orchestrator.v1 import session_pb2
from shared.identity import Grant, Principal, Purse


def carry(starter: Principal, session: session_pb2.Session) -> None:
    """Writes into a session how far its starter is narrowed, so that whoever drives it, whenever, is as well."""
    if starter.grant is None:
        return
    grant = starter.grant
    session.grant.CopyFrom(
        principal_pb2.Grant(
            scopes=sorted(grant.scopes or ()),
            tools=sorted(grant.tools or ()),
            budget_micros_usd=grant.budget_micros_usd or 0,
            depth=grant.depth,
            delegators=grant.delegators,
            purses=[principal_pb2.Purse(id=purse.id, limit_micros_usd=purse.micros_usd) for purse in grant.purses],
        )
    )
    if grant.tools is not None and not grant.tools:
        session.delegated.no_tools = True
    if starter.expires_at:
        session.expire_time.FromDatetime(starter.expires_at)


def acting(starter: Principal, session: session_pb2.Session) -> Principal:
    """Who a session acts as: its starter, as far as it was narrowed then."""
    if not session.HasField("grant"):
        return starter
    found = session.grant
    grant = Grant(
        scopes=frozenset(found.scopes) or None,
        tools=frozenset() if session.delegated.no_tools else frozenset(found.tools) or None,
        budget_micros_usd=found.budget_micros_usd or None,
        depth=found.depth if found.HasField("depth") else None,
        delegators=tuple(found.delegators),
        purses=tuple(Purse(purse.id, purse.limit_micros_usd) for purse in found.purses),
    )
    ends = session.expire_time.ToDatetime(UTC) if session.HasField("expire_time") else None
    return replace(starter, grant=grant, expires_at=ends)
