"""Pictures, speech and transcripts for a caller: who makes them, under which rules, and what it costs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeVar

from services.inference.breakers import Breakers
from services.inference.catalog import Makes
from services.inference.course import Course
from services.inference.errors import PROVIDER_FAULTS, ProviderUnavailable
from services.inference.measures import Measures
from services.inference.media.bills import at_most
from services.inference.media.contract import (
    ImageOrder,
    MediaMaker,
    Order,
    Picture,
    SpeechOrder,
    Transcript,
    TranscriptionOrder,
)
from services.inference.outages import outage
from services.inference.peers import Payer
from services.inference.purchase import Purchase, Purchases, Rules, Spent
from services.inference.route import Model, Router, Target
from shared.errors import MeshError, ResourceExhausted
from shared.log import log
from shared.risks import Tell, untold
from shared.telemetry import meter

T = TypeVar("T")
Make = Callable[[Target, Purchase], AsyncGenerator[T | Spent, None]]

_made = meter.create_counter("inference_media_total", description="pictures, transcripts and speeches, by model")


@dataclass(frozen=True, slots=True)
class Receipt:
    """The last thing of an order: who did it, for how much in all attempts."""

    model: Model
    generation_id: str
    spent: Spent
    micros_usd: int | None
    price_version: str
    at: datetime


@dataclass(slots=True)
class Studio:
    """All models that make no text. `limit` orders at once: each holds megabytes."""

    router: Router
    makers: Mapping[str, MediaMaker]
    purchases: Purchases
    measures: Measures
    breakers: Breakers
    limit: int
    tell: Tell = untold
    retry_base: timedelta = timedelta(milliseconds=200)
    jitter: Callable[[], float] = random.random
    _busy: int = field(default=0)

    async def images(
        self, payer: Payer, name: str, order: ImageOrder, bundles: tuple[str, ...], override: str = ""
    ) -> AsyncGenerator[Picture | Receipt, None]:
        """Pictures, then the receipt. Raises what the contract says."""
        chain = await self._admitted(payer, Makes.IMAGES, name)
        paying = replace(payer, tier=order.quality[:32].lower())
        rules, (prompt,) = await self.purchases.judged(payer, [order.prompt], bundles, override)
        order = replace(order, prompt=prompt)

        async def make(target: Target, purchase: Purchase) -> AsyncGenerator[Picture | Spent, None]:
            async with aclosing(self.makers[target.provider.name].images(target.model, order)) as made:
                pictures = [piece async for piece in made]
            for piece in pictures:  # what was spent is known before policy may refuse one
                if isinstance(piece, Spent):
                    purchase.spent = piece
            await self.purchases.weigh(rules, purchase)
            for piece in pictures:
                if isinstance(piece, Picture):
                    told = piece.revised_prompt
                    told = told and await self.purchases.released(rules, payer, told, "the rewritten prompt")
                    yield replace(piece, revised_prompt=told)

        async with aclosing(self._through(chain, paying, order, rules, make)) as found:
            async for piece in found:
                yield piece

    async def transcribe(
        self, payer: Payer, name: str, order: TranscriptionOrder, bundles: tuple[str, ...], override: str = ""
    ) -> tuple[Transcript, Receipt]:
        """The transcript as policy leaves it; its segments only where it left all. Raises what the contract says."""
        chain = await self._admitted(payer, Makes.TRANSCRIPTION, name)
        rules, (prompt,) = await self.purchases.judged(payer, [order.prompt], bundles, override)
        order = replace(order, prompt=prompt)

        async def make(target: Target, purchase: Purchase) -> AsyncGenerator[Transcript | Spent, None]:
            async with aclosing(self.makers[target.provider.name].transcript(target.model, order)) as made:
                pieces = [piece async for piece in made]
            (heard,) = (piece for piece in pieces if isinstance(piece, Transcript))
            purchase.spent = next((piece for piece in pieces if isinstance(piece, Spent)), purchase.spent)
            await self.purchases.weigh(rules, purchase, characters=len(heard.text))
            text = await self.purchases.released(rules, payer, heard.text, "the transcript")
            kept = heard.segments if order.segments and text == heard.text else ()
            yield replace(heard, text=text, segments=kept)

        async with aclosing(self._through(chain, payer, order, rules, make)) as found:
            pieces = [piece async for piece in found]
        (transcript,) = (piece for piece in pieces if isinstance(piece, Transcript))
        (receipt,) = (piece for piece in pieces if isinstance(piece, Receipt))
        return transcript, receipt

    async def speak(
        self, payer: Payer, name: str, order: SpeechOrder, bundles: tuple[str, ...], override: str = ""
    ) -> AsyncGenerator[bytes | Receipt, None]:
        """The sound of what output rules leave of the text, then the receipt. Raises what the contract says."""
        chain = await self._admitted(payer, Makes.SPEECH, name)
        asked = [order.text, order.instructions]
        rules, (text, instructions) = await self.purchases.judged(payer, asked, bundles, override)
        text = await self.purchases.released(rules, payer, text, "the text")
        said = replace(order, text=text, instructions=instructions)

        async def make(target: Target, purchase: Purchase) -> AsyncGenerator[bytes | Spent, None]:
            async with aclosing(self.makers[target.provider.name].speech(target.model, said)) as made:
                async for piece in made:
                    if isinstance(piece, Spent):
                        purchase.spent = piece
                    else:
                        yield piece
                    await self.purchases.weigh(rules, purchase)

        async with aclosing(self._through(chain, payer, said, rules, make)) as found:
            async for piece in found:
                yield piece

    async def _admitted(self, payer: Payer, makes: Makes, name: str) -> tuple[Target, ...]:
        chain = self.router.making(makes, name)
        await self.measures.admit(payer, chain[0].provider.name)
        if self._busy >= self.limit:
            raise ResourceExhausted("this replica is full; try again", retry_after=timedelta(seconds=1))
        return chain

    async def _through(
        self, chain: tuple[Target, ...], payer: Payer, order: Order, rules: Rules, make: Make[T]
    ) -> AsyncGenerator[T | Receipt, None]:
        """What the first of the chain makes that does not fail. A failure in the middle of it is the end."""
        course = Course(chain, pinned=False, base=self.retry_base, jitter=self.jitter)
        attempt, paid = 0, list[Purchase]()
        self._busy += 1
        try:
            target = await self._healthy(course, payer)
            while True:
                whose = _attempt(payer, target, attempt)
                try:
                    async with self.purchases.paid(whose, at_most(target.model, order), rules) as purchase:
                        paid.append(purchase)
                        async with aclosing(make(target, purchase)) as pieces:
                            async for piece in pieces:
                                purchase.begun = True
                                if not isinstance(piece, Spent):
                                    yield piece
                except MeshError as failure:
                    begun = len(paid) > attempt and paid[attempt].begun
                    target = await self._next(course, failure, whose, begun=begun)
                else:
                    await self.breakers.succeeded(target.provider.name)
                    _made.add(1, {"model": target.model.name, "provider": target.provider.name})
                    yield _receipt(target.model, paid, self.purchases.clock.now())
                    return
                attempt += 1
        finally:
            self._busy -= 1

    async def _healthy(self, course: Course, payer: Payer) -> Target:
        """The first from here on whose breaker lets calls through. Raises ProviderUnavailable."""
        while not await self.breakers.admits(course.target.provider.name):
            name = course.target.provider.name
            if course.skip() is None:
                failure = ProviderUnavailable("the provider failed too often; it is tried again soon", provider=name)
                outage(self.tell, payer, name, failure)
                raise failure
        return course.target

    async def _next(self, course: Course, failure: MeshError, payer: Payer, *, begun: bool) -> Target:
        """Who is asked after a failure, once it is time. Raises the failure when nobody is."""
        failed, fault = course.target, isinstance(failure, PROVIDER_FAULTS)
        opened = fault and await self.breakers.failed(failed.provider.name)
        step = None if begun else course.after(failure, shown=False)
        if opened or (fault and step is None):
            outage(self.tell, payer, failed.provider.name, failure)
        if step is None:
            raise failure
        await asyncio.sleep(step.wait.total_seconds())
        target = await self._healthy(course, payer)
        log.info("media.again", model=failed.model.name, to_model=target.model.name, reason=failure.reason_name)
        return target


def _attempt(payer: Payer, target: Target, attempt: int) -> Payer:
    name = payer.generation_id if attempt == 0 else f"{payer.generation_id[:56]}-try{attempt + 1}"
    return replace(payer, generation_id=name, provider=target.provider.name, model=target.model.name, attempt=attempt)


def _receipt(model: Model, paid: list[Purchase], at: datetime) -> Receipt:
    last, costs = paid[-1], [purchase.cost for purchase in paid if purchase.cost]
    whole = sum(cost.micros_usd for cost in costs) if len(costs) == len(paid) else None
    return Receipt(model, last.payer.generation_id, last.spent, whole, costs[-1].price_version if costs else "", at)
