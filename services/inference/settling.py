"""Settlements that survive: whatever dies, cost or this process, each attempt is settled, and once.

What an attempt would be settled with if this process died is in a file from its lease on; how it did end is in another
file before cost is told. Cost knows an attempt by its id, so telling it twice does no harm.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import lru_cache
from typing import Final

from services.inference.peers import NOTHING_ELSE, Cost, CostPeer, Ending, Leased, Metered, Payer, Settlement
from services.inference.providers.contract import Usage
from shared.errors import MeshError
from shared.identity import CredentialKind, Grant, Principal
from shared.outbox import Outbox
from shared.tasks import together

Counted = Callable[[Settlement], Awaitable[Settlement]]
_json: Final = json.JSONEncoder().encode


class KeptCost:
    """Cost, with every settlement kept until it has it. `left` are those to deliver; `begun` those of attempts that
    run, which only a later process delivers.
    """

    def __init__(self, cost: CostPeer, *, left: Outbox, begun: Outbox, counted: Counted) -> None:
        """`counted` finds out what an attempt had spent that an earlier process began."""
        self._cost = cost
        self._counted = counted
        self._left = left
        self._begun = begun
        self._running: dict[tuple[str, str], int] = {}
        self._leaving: dict[tuple[str, str], int] = {}

    async def reserve(
        self, payer: Payer, *, input_tokens: int, output_tokens: int, metered: Metered = NOTHING_ELSE
    ) -> Leased:
        leased = await self._cost.reserve(
            payer, input_tokens=input_tokens, output_tokens=output_tokens, metered=metered
        )
        spent = Usage(input_tokens, 0, estimated=True)
        self._note(Settlement(payer, spent, Ending.CUT, metered=metered))
        return leased

    async def extend(self, payer: Payer, *, output_tokens: int, spent: Usage) -> None:
        self._note(Settlement(payer, spent, Ending.CUT))
        await self._cost.extend(payer, output_tokens=output_tokens, spent=spent)

    async def settle(self, settlement: Settlement) -> Cost:
        """As cost does. After an error that is retryable it is settled later, also without being asked again."""
        key = _key(settlement.payer)
        if key not in self._leaving:
            self._leaving[key] = self._left.keep(_written(settlement))
            self._forget(key)
        try:
            cost = await self._cost.settle(settlement)
        except MeshError as error:
            if not error.retryable:
                self._done(key)
            raise
        self._done(key)
        return cost

    async def run(self) -> None:
        """Delivers what could not be, and what an earlier process left, for as long as the service runs."""
        await together(self._left.run(self._deliver), self._begun.run(self._inherit))

    async def _deliver(self, record: bytes) -> None:
        settlement = _read(record)
        await self._cost.settle(settlement)
        self._leaving.pop(_key(settlement.payer), None)

    async def _inherit(self, record: bytes) -> None:
        await self._cost.settle(await self._counted(_read(record)))

    def _note(self, settlement: Settlement) -> None:
        key = _key(settlement.payer)
        number = self._begun.keep(_written(settlement))
        self._forget(key)
        self._running[key] = number

    def _forget(self, key: tuple[str, str]) -> None:
        if (number := self._running.pop(key, None)) is not None:
            self._begun.done(number)

    def _done(self, key: tuple[str, str]) -> None:
        if (number := self._leaving.pop(key, None)) is not None:
            self._left.done(number)


def _key(payer: Payer) -> tuple[str, str]:
    return payer.principal.tenant_id, payer.generation_id


def _written(settlement: Settlement) -> bytes:
    spent = {
        "usage": _fields(settlement.usage),
        "outcome": settlement.outcome.value,
        "metered": _fields(settlement.metered),
        "ended_at": settlement.ended_at.isoformat() if settlement.ended_at else "",
    }
    return f"{_whose(settlement.payer)[:-1]}, {_json(spent)[1:]}".encode()


@lru_cache(maxsize=1024)
def _whose(payer: Payer) -> str:
    """What stays the same from an attempt's lease to its settlement."""
    principal = payer.principal
    record = {
        "principal": [principal.tenant_id, principal.subject, sorted(principal.roles), principal.kind.value],
        "grant": principal.grant.claim() if principal.grant else None,
        "payer": [
            payer.generation_id, payer.provider, payer.model, payer.session_id, payer.agent, payer.turn_id,
            payer.attempt, payer.team, payer.sub_agent, payer.tier,
        ],
    }  # fmt: skip
    return _json(record)


def _fields(numbers: Usage | Metered) -> dict[str, int]:
    """As `dataclasses.asdict`, which copies deeply and takes ten times the time."""
    return {name: getattr(numbers, name) for name in numbers.__slots__}


def _read(record: bytes) -> Settlement:
    found = json.loads(record)
    tenant, subject, roles, kind = found["principal"]
    grant = Grant.from_claim(claim) if (claim := found.get("grant")) else None
    principal = Principal(tenant, subject, frozenset(roles), CredentialKind(kind), grant=grant)
    return Settlement(
        payer=Payer(principal, *found["payer"]),
        usage=Usage(**found["usage"]),
        outcome=Ending(found["outcome"]),
        ended_at=datetime.fromisoformat(found["ended_at"]) if found["ended_at"] else None,
        metered=Metered(**found.get("metered", {})),
    )
