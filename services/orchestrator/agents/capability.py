"""What a delegation may do: only ever less than what it comes from. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from agentnet.orchestrator.v1 import delegation_pb2
from services.orchestrator.errors import DelegationEnded, DelegationTooWide
from shared import fields
from shared.identity import Grant, Principal, Purse

Capability = delegation_pb2.Capability
_DEEPEST: Final = 16
_DEPTH: Final = 3
_LASTS: Final = timedelta(hours=1)
_LONGEST: Final = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What there is to give away. None is not bounded."""

    ends: datetime
    depth: int
    tools: frozenset[str] | None = None
    budget_micros_usd: int | None = None

    @classmethod
    def of_caller(cls, caller: Principal, now: datetime) -> Bounds:
        """What a caller may give: what its credential may do."""
        grant, ends = caller.grant or Grant(), now + _LONGEST
        if caller.grant and caller.expires_at:
            ends = min(ends, caller.expires_at)
        depth = _DEEPEST + 1 if grant.depth is None else grant.depth
        return cls(ends, depth, grant.tools, grant.budget_micros_usd)

    @classmethod
    def of_parent(cls, parent: delegation_pb2.Delegation, taken_below: int) -> Bounds:
        """What a delegation may still give: its budget without what those below it have taken."""
        found = parent.capability
        tools = frozenset() if found.no_tools else frozenset(found.tools) or None
        budget = found.budget_micros_usd
        left = max(budget - parent.cost_micros_usd - taken_below, 0) if budget else None
        return cls(found.expire_time.ToDatetime(UTC), found.depth, tools, left)

    def within(self, other: Bounds) -> Bounds:
        """What both allow."""
        tools = self.tools if other.tools is None else other.tools if self.tools is None else self.tools & other.tools
        budgets = [found for found in (self.budget_micros_usd, other.budget_micros_usd) if found is not None]
        return replace(
            self,
            ends=min(self.ends, other.ends),
            depth=min(self.depth, other.depth),
            tools=tools,
            budget_micros_usd=min(budgets, default=None),
        )


def attenuated(bounds: Bounds, asked: Capability, now: datetime) -> Capability:
    """What the delegation has: what is asked, or what there is. Raises DelegationTooWide with the field, and
    DelegationEnded when nothing is left to give.
    """
    if bounds.ends <= now:
        raise DelegationEnded("what it would come from has expired", state="EXPIRED")
    if bounds.budget_micros_usd == 0:
        raise DelegationEnded("what it would come from has spent its budget", state="SPENT")
    made = Capability(depth=_depth(bounds, asked), budget_micros_usd=_budget(bounds, asked))
    made.expire_time.FromDatetime(_ends(bounds, asked, now))
    tools = _tools(bounds, asked)
    made.no_tools = tools is not None and not tools
    made.tools.extend(sorted(tools or ()))
    return made


def principal(caller: Principal, delegation: delegation_pb2.Delegation, *, above: Grant) -> Principal:
    """Who works on a delegation: its caller, narrowed to the capability. It spends from the purses of both its caller
    and what works `above` it.
    """
    own, capability = caller.grant or Grant(), delegation.capability
    grant = Grant(
        scopes=own.scopes,
        tools=frozenset() if capability.no_tools else frozenset(capability.tools) or None,
        depth=capability.depth,
        delegators=(*own.delegators, delegation.source),
        purses=tuple(dict.fromkeys((*above.purses, *own.purses))),
    )
    if capability.budget_micros_usd:
        grant = grant.given(Purse(delegation.id, capability.budget_micros_usd))
    return replace(caller, grant=grant, expires_at=capability.expire_time.ToDatetime(UTC))


def _depth(bounds: Bounds, asked: Capability) -> int:
    if bounds.depth <= 0:
        raise DelegationTooWide("this may not be delegated on", field="capability.depth")
    depth = asked.depth if asked.HasField("depth") else min(_DEPTH, bounds.depth - 1)
    if not 0 <= depth <= min(bounds.depth - 1, _DEEPEST):
        raise _wide("depth", str(bounds.depth - 1))
    return depth


def _budget(bounds: Bounds, asked: Capability) -> int:
    left = bounds.budget_micros_usd
    if left is not None and asked.budget_micros_usd > left:
        raise _wide("budget_micros_usd", str(left))
    return asked.budget_micros_usd or left or 0


def _ends(bounds: Bounds, asked: Capability, now: datetime) -> datetime:
    if not asked.HasField("expire_time"):
        return min(bounds.ends, now + _LASTS)
    ends = fields.instant(asked.expire_time, "capability.expire_time")
    if ends > bounds.ends:
        raise _wide("expire_time", bounds.ends.isoformat())
    if ends <= now:
        raise DelegationEnded("it would have expired already", state="EXPIRED")
    return ends


def _tools(bounds: Bounds, asked: Capability) -> frozenset[str] | None:
    if asked.no_tools:
        return frozenset()
    wanted = frozenset(asked.tools)
    if bounds.tools is not None and (beyond := wanted - bounds.tools):
        raise _wide("tools", ", ".join(sorted(bounds.tools)), f"{min(beyond)} is beyond it")
    return wanted or bounds.tools


def _wide(field: str, most: str, why: str = "") -> DelegationTooWide:
    told = f"{field} is more than what it comes from allows ({most})" + (f": {why}" if why else "")
    return DelegationTooWide(told, field=f"capability.{field}")
