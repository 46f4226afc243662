"""Calls of models that are no streams of text: judged, leased before, settled once after, whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from services.inference.enforcement import Enforcement, Held, blocked, report, stopped_by
from services.inference.errors import REFUSED, PolicyBlocked
from services.inference.numbers import NumberRules
from services.inference.peers import (
    NOTHING_ELSE,
    Cost,
    CostPeer,
    Ending,
    Leased,
    Metered,
    Payer,
    PolicyPeer,
    Settlement,
)
from services.inference.providers.contract import Usage
from shared.clock import Clock
from shared.errors import MeshError
from shared.log import log
from shared.monitors.rules import Target, Verdict
from shared.monitors.stream import Ruling


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for one call, and the override it came with."""

    held: Held
    numbers: NumberRules
    override: str = ""


@dataclass(frozen=True, slots=True)
class Spent:
    """What one call used: text tokens, and what is metered beside them."""

    usage: Usage = field(default_factory=lambda: Usage(0, 0))
    metered: Metered = NOTHING_ELSE


@dataclass(slots=True)
class Purchase:
    """One attempt. `spent` is what it is settled with: the most it may use, until someone knows better."""

    payer: Payer
    spent: Spent
    begun: bool = False
    """Whether something of it was delivered: then a refusal is no longer free."""
    leased: Leased = field(default_factory=Leased)
    since: timedelta = timedelta()
    cost: Cost | None = None
    """There once it is settled; None where cost was away."""


@dataclass(frozen=True, slots=True)
class Purchases:
    """Money and policy of such calls."""

    cost: CostPeer
    policy: PolicyPeer
    enforcement: Enforcement
    clock: Clock

    async def judged(
        self, payer: Payer, texts: Sequence[str], bundles: tuple[str, ...] = (), override: str = ""
    ) -> tuple[Rules, list[str]]:
        """The rules that hold for the call, and its texts as they let them go. Raises PolicyBlocked, PolicyUnavailable
        and policy's OVERRIDE_INVALID.
        """
        excused = await self.enforcement.excused(payer, texts, override)
        held = await self.enforcement.held(payer, bundles, excused)
        judged = await self.enforcement.check_prompt(held, payer, texts, override=override)
        await self._told(payer, judged.verdicts)
        if judged.refusal:
            raise judged.refusal
        return Rules(held, NumberRules(held.numbers, ()), override), judged.texts

    async def released(self, rules: Rules, payer: Payer, text: str, what: str) -> str:
        """The text as rules of the output leave it. Raises PolicyBlocked and PolicyUnavailable."""
        guard = self.enforcement.guard(rules.held, payer, override=rules.override)
        rulings: list[Ruling] = [await guard.text(text)]
        if not rulings[0].blocked:
            rulings.append(await guard.end_of_text())
        guard.ended(facts={}, stopped=False)
        await self._told(payer, [verdict for ruling in rulings for verdict in ruling.verdicts])
        if rulings[-1].blocked:
            raise blocked(rulings[-1], what)
        return "".join(ruling.text for ruling in rulings)

    async def weigh(self, rules: Rules, purchase: Purchase, *, characters: int | None = None) -> None:
        """Judges what the call used so far: tokens, seconds, money by the price book, and at the end the characters of
        its output. Raises PolicyBlocked.
        """
        usage = purchase.spent.usage
        facts: dict[str, float] = {
            "tokens": usage.input_tokens + usage.output_tokens,
            "seconds": (self.clock.monotonic() - purchase.since).total_seconds(),
            "cost_micros_usd": purchase.leased.micros_usd(usage, purchase.spent.metered),
        }
        if characters is not None:
            facts["output_characters"] = characters
        await self._weighed(rules, purchase.payer, facts, Target.OUTPUT)

    async def _weighed(self, rules: Rules, payer: Payer, facts: Mapping[str, float], target: Target) -> None:
        if not rules.numbers:
            return
        told, stops = rules.numbers.judge(facts, target)
        await self._told(payer, told)
        if stops:
            raise stopped_by(stops, f"the call's {stops.kind}")

    @asynccontextmanager
    async def paid(self, payer: Payer, most: Spent, rules: Rules | None = None) -> AsyncIterator[Purchase]:
        """Sets aside what the call may use at most; settles what it used when the block ends. Raises cost's errors, and
        PolicyBlocked where a rule over numbers is against asking at all.
        """
        usage = most.usage
        if rules:
            await self._weighed(rules, payer, {"tokens": usage.input_tokens}, Target.PROMPT)
        leased = await self.cost.reserve(
            payer, input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, metered=most.metered
        )
        purchase, ending = Purchase(payer, most, leased=leased, since=self.clock.monotonic()), Ending.CUT
        try:
            yield purchase
            ending = Ending.COMPLETED
        except REFUSED:
            if not purchase.begun:
                purchase.spent = Spent()
            raise
        except PolicyBlocked:
            ending = Ending.STOPPED
            raise
        except (asyncio.CancelledError, GeneratorExit):
            ending = Ending.CANCELLED
            raise
        finally:
            await asyncio.shield(self._settle(purchase, ending))

    async def _settle(self, purchase: Purchase, ending: Ending) -> None:
        """Cost being away costs the caller nothing: the settlement is kept where there is a folder for it."""
        spent = purchase.spent
        settlement = Settlement(purchase.payer, spent.usage, ending, self.clock.now(), spent.metered)
        try:
            purchase.cost = await self.cost.settle(settlement)
        except MeshError as error:
            log.error("purchase.not_settled", generation_id=purchase.payer.generation_id, error=error.message)

    async def _told(self, payer: Payer, verdicts: Sequence[Verdict]) -> None:
        if verdicts:
            await report(self.policy, payer, verdicts, at=self.clock.now())
