"""The engine: starts generations, owns them to their end, and lets anyone entitled read them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final
from weakref import WeakValueDictionary

from services.inference import events
from services.inference.admission import Admission, Admitted, Order
from services.inference.breakers import Breakers
from services.inference.counting import TokenCounter
from services.inference.enforcement import Enforcement, report
from services.inference.errors import GenerationExpired, GenerationNotFound, ProviderUnavailable
from services.inference.generation import HEARTBEAT, Generation
from services.inference.measures import Measures
from services.inference.numbers import NumberRules
from services.inference.outages import outage
from services.inference.peers import CostPeer, Ending, Payer, PolicyPeer
from services.inference.producer import Ended, Producer
from services.inference.providers.contract import Usage
from services.inference.redacting import sources_of, with_texts
from services.inference.route import Model
from services.inference.store import GenerationStore
from services.inference.tab import Tab
from services.inference.tail import GenerationTail
from shared.clock import Clock
from shared.errors import ResourceExhausted
from shared.identity import Principal
from shared.log import log
from shared.risks import Tell, untold
from shared.tasks import together

_KEEP_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 2.0


@dataclass(slots=True)
class Engine:
    """All generations of this replica."""

    admission: Admission
    enforcement: Enforcement
    breakers: Breakers
    cost: CostPeer
    policy: PolicyPeer
    store: GenerationStore
    tail: GenerationTail
    counter: TokenCounter
    clock: Clock
    measures: Measures
    limit: int
    ended: Callable[[str, Order, Ended], None] = lambda *_: None
    tell: Tell = untold
    _live: dict[tuple[str, str], Generation] = field(default_factory=dict)
    _running: dict[tuple[str, str], Generation] = field(default_factory=dict)
    _starting: WeakValueDictionary[tuple[str, str], asyncio.Lock] = field(default_factory=WeakValueDictionary)

    async def start(self, principal: Principal, order: Order) -> AsyncGenerator[bytes, None]:
        """Starts a generation, or attaches to the one of this id; the stream of its events.

        What stands in the way of starting is raised here: no model, no money, a blocked prompt, no room.
        """
        generation = await self._own(principal, order)
        if generation:
            return generation.read(0, packing=order.packing, gather=order.gather)
        return self._begun_before(principal, order)

    async def whole(self, principal: Principal, order: Order) -> list[bytes]:
        """As `start`, once it has ended: nobody is woken for what comes in between."""
        generation = await self._own(principal, order)
        if generation:
            return await generation.whole()
        return [event async for event in self._begun_before(principal, order)]

    async def _own(self, principal: Principal, order: Order) -> Generation | None:
        """None when somebody has started it before."""
        return await (self._admitted if order.fresh else self._started)(principal, order)

    async def _begun_before(self, principal: Principal, order: Order) -> AsyncGenerator[bytes, None]:
        """The events of what a call before has begun; whose claim was left without a generation, it is begun here."""
        try:
            held = self.attach(principal.tenant_id, order.generation_id, after=0, packing=order.packing)
            async with aclosing(held) as events:
                async for event in events:
                    yield event
        except GenerationNotFound:
            generation = await self._started(principal, order)
            if generation is None:
                raise
            async with aclosing(generation.read(0, packing=order.packing, gather=order.gather)) as events:
                async for event in events:
                    yield event

    async def attach(
        self, tenant: str, generation_id: str, *, after: int, packing: bool = False
    ) -> AsyncGenerator[bytes, None]:
        """Streams a generation that exists.

        Raises GenerationNotFound, GenerationExpired when only its record is left, GenerationLost when its owner died.
        """
        held = self._live.get((tenant, generation_id))
        source = held.read(after, packing=packing) if held else self.tail.read(tenant, generation_id, after)
        try:
            async with aclosing(source) as events:
                async for event in events:
                    yield event
        except GenerationNotFound:
            if await self.store.find(tenant, generation_id) is None:
                raise
            raise GenerationExpired("it is over and its events have expired", generation_id=generation_id) from None

    async def cancel(self, tenant: str, generation_id: str) -> bool:
        """Calls a generation off, whichever replica owns it; True when it had ended. Raises GenerationNotFound."""
        held = self._live.get((tenant, generation_id))
        if held:
            ended = held.done
            held.cancel()
            return ended
        if await self.store.find(tenant, generation_id):
            return True
        if await self.tail.ask_to_cancel(tenant, generation_id):
            return False
        raise GenerationNotFound(f"no generation {generation_id}", generation_id=generation_id)

    def live(self) -> Iterable[Generation]:
        """Generations whose events this replica holds."""
        return list(self._live.values())

    def running(self) -> Iterable[Generation]:
        """Of these the ones that have not ended."""
        return (found for key, found in self._running.items() if key in self._live)

    async def tend(self) -> None:
        """Writes the tail and gives signs of life of silent generations, for as long as the service runs."""
        await together(self.tail.write(self.running), self._beat())

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT.total_seconds())
            for found in list(self._running.values()):
                found.beat()

    async def drain(self) -> None:
        """Ends what runs; everything is settled when this returns."""
        running = list(self._running.values())
        for found in running:
            found.cancel()
        await asyncio.gather(*(found.task for found in running if found.task), return_exceptions=True)
        await self.admission.drain()
        await self.tail.flush()

    async def _started(self, principal: Principal, order: Order) -> Generation | None:
        """None when somebody has started it before."""
        key = (principal.tenant_id, order.generation_id)
        lock = self._starting.setdefault(key, asyncio.Lock())  # forgotten with the last call that waits for it
        async with lock, AsyncExitStack() as undo:
            if key in self._live or not await self._claimed(key, undo):
                return None
            generation = await self._admitted(principal, order)
            undo.pop_all()
        return generation

    async def _claimed(self, key: tuple[str, str], undo: AsyncExitStack) -> bool:
        """Whether nobody has started it; then it is claimed for this replica, until that is undone."""
        claiming = asyncio.ensure_future(self.tail.claim(*key))
        undo.push_async_callback(self._unclaim, claiming, key)
        ended, claimed = await asyncio.gather(self.store.find(*key), claiming)
        return claimed and ended is None

    async def _unclaim(self, claiming: asyncio.Future[bool], key: tuple[str, str]) -> None:
        if await claiming:
            await self.tail.release(*key)

    async def _admitted(self, principal: Principal, order: Order) -> Generation:
        async with self.admission.in_turn(principal.tenant_id, order):
            return await self._begun(principal, order)

    async def _begun(self, principal: Principal, order: Order) -> Generation:
        if len(self._running) >= self.limit:
            raise ResourceExhausted("this replica is full; try again", retry_after=timedelta(seconds=1))
        tenant = principal.tenant_id
        model = self.admission.model(order)
        payer = Payer(
            principal, order.generation_id, "", model.name, order.session_id, order.agent, order.generation_id,
            team=order.team, sub_agent=order.sub_agent,
        )  # fmt: skip
        cheaper = await self.measures.admit(payer, model.provider)
        token = order.override_token
        excused = await self.enforcement.excused(payer, order.texts, token)
        held = await self.enforcement.held(payer, order.bundles, excused)
        judged = await self.enforcement.check_prompt(held, payer, order.texts, override=token)
        if judged.refusal:
            await report(self.policy, payer, judged.verdicts, at=self.clock.now())
            raise judged.refusal
        if judged.verdicts:
            order = replace(order, messages=with_texts(order.messages, judged.texts))
        sources = sources_of(order.messages) if held.whole else ()
        guard = self.enforcement.guard(held, payer, override=token, sources=sources)
        admitted = await self._routed(payer, order, model, cheaper)
        target = admitted.course.target
        tab = None if target.free else Tab(self.cost, admitted.paid_by(payer), admitted.call)
        if tab:
            admitted = await self._leased(tab, order, admitted)
        key = (tenant, order.generation_id)
        attachable = order.attachable or admitted.leads is not None
        noted = self.tail.note if attachable else _untold
        generation = Generation(*key, grace=order.detach_grace, clock=self.clock, noted=noted)
        producer = Producer(
            generation=generation, call=admitted.call, course=admitted.course, payer=payer, tab=tab, guard=guard,
            cost=self.cost, policy=self.policy, store=self.store, breakers=self.breakers, clock=self.clock,
            counter=self.counter, numbers=NumberRules(held.numbers, order.messages), judged_before=judged.statuses,
            prompt_version=order.prompt_version, kept=admitted.kept, tell=self.tell,
            ended=lambda how: self.ended(tenant, order, how),
        )  # fmt: skip
        self._running[key] = generation
        if attachable:
            self._live[key] = generation
        if admitted.leads:
            admitted.leads(generation)
        running = producer.run(judged.verdicts, admitted.before)
        generation.task = asyncio.create_task(running, name=f"generation {order.generation_id}")
        generation.task.add_done_callback(lambda task: self._keep_for_a_while(key, task))
        return generation

    async def _routed(self, payer: Payer, order: Order, model: Model, cheaper: str) -> Admitted:
        """By which way the call goes; to a cheaper model where policy ordered that, for the reason `cheaper`."""
        tenant, revision = payer.principal.tenant_id, self.enforcement.revision
        try:
            admitted = await self.admission.admit(tenant, order, model, revision=revision)
        except ProviderUnavailable as failure:
            outage(self.tell, payer, failure.facts["provider"], failure)
            if cheaper and (other := await self._cheaper(payer, order, model, cheaper)):
                return other
            raise
        if not cheaper or admitted.before or admitted.course.target.free:
            return admitted
        return await self._cheaper(payer, order, admitted.course.target.model, cheaper) or admitted

    async def _cheaper(
        self, payer: Payer, order: Order, dear: Model, reason: str, before: Sequence[events.Event] = ()
    ) -> Admitted | None:
        try:
            return await self.admission.cheaper(order, dear, reason, before)
        except ProviderUnavailable as failure:
            outage(self.tell, payer, failure.facts["provider"], failure)
            raise

    async def _leased(self, tab: Tab, order: Order, admitted: Admitted) -> Admitted:
        """With money set aside; for a cheaper model when cost asks for one, under the lease of the dearer. Where no
        cheaper one answers the money goes back.
        """
        dear, before = admitted.course.target.model, admitted.before
        for notice in await tab.open():
            log.info("generation.notice", generation_id=order.generation_id, notice=notice.explanation)
            if not notice.cheaper:
                continue
            try:
                other = await self._cheaper(tab.payer, order, dear, notice.explanation, before)
            except ProviderUnavailable:
                await tab.settle(Usage(0, 0), Ending.CUT, ended_at=self.clock.now())
                raise
            if other:
                tab.payer = other.paid_by(tab.payer)
                return other
        return admitted

    def _keep_for_a_while(self, key: tuple[str, str], task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (fault := task.exception()):
            log.error("generation.fault", generation_id=key[1], exc_info=fault)
        self._running.pop(key, None)
        loop = asyncio.get_running_loop()
        if key in self._live:
            loop.call_later(_LOOK_SECONDS, self._let_go, key, loop.time() + _KEEP_SECONDS)

    def _let_go(self, key: tuple[str, str], at_last: float) -> None:
        """Forgets a generation that has ended once the tail has all of it, or when its time is up."""
        found, loop = self._live[key], asyncio.get_running_loop()
        if found.flushed >= len(found.events) or loop.time() >= at_last:
            del self._live[key]
        else:
            loop.call_later(_LOOK_SECONDS, self._let_go, key, at_last)


def _untold(_: Generation) -> None:
    """Nobody reads along, so the tail has none of it."""
