"""From an order to a course: which model, by which way, and whether an answer is at hand already."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final
from weakref import WeakValueDictionary

from agentnet.inference.v1 import generation_pb2 as pb
from services.inference import events
from services.inference.answers import Answer, KeptAnswer, SharedAnswer
from services.inference.breakers import Breakers
from services.inference.cache import AnswerCache, CacheKey, key_of
from services.inference.canonical import canonical, digest
from services.inference.course import Course
from services.inference.downgrades import Downgrade, Downgrades
from services.inference.errors import ModelUnable, ProviderUnavailable
from services.inference.generation import Generation
from services.inference.peers import Payer
from services.inference.producer import Answered, not_kept
from services.inference.prompts.store import PromptVersion
from services.inference.providers.contract import (
    Message,
    ModelCall,
    Provider,
    ReasoningEffort,
    ResponseFormat,
    Sampling,
    ToolChoice,
    ToolDefinition,
)
from services.inference.redacting import texts_of
from services.inference.route import Model, Router, Target
from services.inference.tail import GenerationTail
from shared.log import log

_PROBE_AFTER: Final = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """Which earlier answers may be used."""

    ttl: timedelta
    similarity: float | None = None
    """None: only the same request."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a caller wants generated."""

    generation_id: str
    model: str
    messages: tuple[Message, ...]
    sampling: Sampling
    max_output_tokens: int
    detach_grace: timedelta
    session_id: str = ""
    agent: str = ""
    tools: tuple[ToolDefinition, ...] = ()
    tool_choice: ToolChoice = field(default_factory=ToolChoice)
    response_format: ResponseFormat | None = None
    reasoning_effort: ReasoningEffort | None = None
    fallback: tuple[str, ...] | None = None
    no_fallback: bool = False
    cache: CachePolicy | None = None
    prompt: PromptVersion | None = None
    packing: bool = False
    gather: timedelta = timedelta()
    bundles: tuple[str, ...] = ()
    override_token: str = ""
    team: str = ""
    sub_agent: str = ""
    fresh: bool = False
    """Its id was made here: nobody can have started it before."""
    attachable: bool = True
    """Others may read along; false where nobody learns of it before it is over."""

    @property
    def prompt_version(self) -> str:
        """The prompt version it was rendered from, as one text; empty without one."""
        return self.prompt.reference if self.prompt else ""

    @property
    def texts(self) -> list[str]:
        """All text of the prompt, whoever wrote it: what policy judges."""
        return texts_of(self.messages)

    def call(self, model: Model) -> ModelCall:
        return ModelCall(
            model=model.name,
            messages=self.messages,
            sampling=self.sampling,
            max_output_tokens=self.max_output_tokens,
            tools=self.tools,
            tool_choice=self.tool_choice,
            response_format=self.response_format,
            reasoning_effort=self.reasoning_effort,
            timeouts=model.timeouts,
        )


@dataclass(slots=True)
class Admitted:
    """A generation that may start."""

    call: ModelCall
    course: Course
    before: list[events.Event]
    kept: Callable[[Answered | None], Awaitable[None]] = not_kept
    leads: Callable[[Generation], None] | None = None
    """Lets all replicas know that this generation answers its request; None where it answers its caller alone."""

    def paid_by(self, payer: Payer) -> Payer:
        target = self.course.target
        return replace(payer, provider=target.provider.name, model=target.model.name)


@dataclass(slots=True)
class Admission:
    """Routes, breakers, downgrades and kept answers, brought together for one order at a time."""

    router: Router
    breakers: Breakers
    downgrades: Downgrades
    cache: AnswerCache
    tail: GenerationTail
    retry_base: timedelta = timedelta(milliseconds=200)
    jitter: Callable[[], float] = random.random
    kept_within: timedelta = timedelta(milliseconds=250)
    """How long an end is held back at most until its answer is kept."""
    _leading: dict[tuple[str, str], Generation] = field(default_factory=dict)
    _to_lead: dict[tuple[str, str], str] = field(default_factory=dict)
    _turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = field(default_factory=WeakValueDictionary)
    _keeping: set[asyncio.Task[None]] = field(default_factory=set)

    def model(self, order: Order) -> Model:
        """The model asked for. Raises ModelNotFound."""
        return self.router.resolve(order.model)

    @asynccontextmanager
    async def in_turn(self, tenant: str, order: Order) -> AsyncIterator[None]:
        """Of the same requests one after another is admitted: the second finds the first leading."""
        if order.cache is None:
            yield
            return
        place = (tenant, digest(canonical(order.call(self.model(order)))))
        async with self._turns.setdefault(place, asyncio.Lock()):  # forgotten with the last that waits for it
            try:
                yield
            finally:
                request = self._to_lead.pop((tenant, order.generation_id), None)
                if request:  # it was not started, or with another model
                    await self.tail.leads_no_more(tenant, request)

    async def admit(self, tenant: str, order: Order, asked: Model, *, revision: int) -> Admitted:
        """Raises ModelNotFound, ModelUnable, and ProviderUnavailable when all breakers of the chain are open."""
        downgrade = None if order.no_fallback else await self.downgrades.of(tenant, asked.name)
        try:
            return await self._admitted(tenant, order, asked, downgrade, revision=revision)
        except ProviderUnavailable:
            if downgrade is None:
                raise
            model = self.router.resolve(downgrade.to_model)
            other = await self.cheaper(order, model, downgrade.reason, [_downgraded(asked, model, downgrade)])
            if other is None:
                raise
            return other

    async def _admitted(
        self, tenant: str, order: Order, asked: Model, downgrade: Downgrade | None, *, revision: int
    ) -> Admitted:
        model = self.router.resolve(downgrade.to_model) if downgrade else asked
        before = [_downgraded(asked, model, downgrade)] if downgrade else []
        call = order.call(model)
        chain = self.router.chain(model, call, fallback=order.fallback)
        if downgrade:
            chain = self.router.no_dearer(chain, than=model, asked=asked)
        if order.cache is None:
            return Admitted(call, await self._course(chain, order, before), before)
        key = key_of(tenant, call, revision=revision, prompt_version=order.prompt_version, bundles=order.bundles)
        at_hand = await self._at_hand(key, order, order.cache, chain[0])
        if at_hand and at_hand.source == pb.ANSWER_SOURCE_SHARED:
            return Admitted(call, self._along((at_hand, *chain), order), before)
        if at_hand:
            return Admitted(call, self._along((at_hand,), order), before)
        course = await self._course(chain, order, before)
        policy = order.cache
        return Admitted(
            call, course, before,
            kept=lambda outcome: self._over(key, order.generation_id, policy, model, outcome),
            leads=lambda generation: self._lead(key, generation),
        )  # fmt: skip

    def _along(self, chain: tuple[Target, ...], order: Order) -> Course:
        return Course(chain, pinned=order.no_fallback, base=self.retry_base, jitter=self.jitter)

    async def cheaper(self, order: Order, dear: Model, reason: str, before: Sequence[events.Event]) -> Admitted | None:
        """The same call for a cheaper model, the first of those the catalogue names in turn that can do it and whose
        breaker lets calls through; never for a dearer one again. None when none can do it, or the caller insists on the
        model. Raises ProviderUnavailable when all that can are away.
        """
        away: ProviderUnavailable | None = None
        for taken in () if order.no_fallback else self.router.cheaper(dear):
            call, told = order.call(taken), [*before, _downgraded(dear, taken, Downgrade(taken.name, reason))]
            try:
                chain = self.router.chain(taken, call, fallback=order.fallback)
                course = await self._course(self.router.no_dearer(chain, than=taken, asked=dear), order, told)
            except ModelUnable:
                continue
            except ProviderUnavailable as failure:
                away = failure
                continue
            return Admitted(call, course, told)
        if away:
            raise ProviderUnavailable(
                f"{reason}, so calls for {dear.name} go to a cheaper model, and none of those answers now; they are "
                "tried again soon",
                provider=away.facts["provider"], model=dear.name, retry_after=_PROBE_AFTER,
            )  # fmt: skip
        return None

    async def _course(self, chain: tuple[Target, ...], order: Order, before: list[events.Event]) -> Course:
        """The course from the first target whose breaker lets calls through."""
        course = self._along(chain, order)
        while not await self.breakers.admits(course.target.provider.name):
            skipped = course.target
            failure = ProviderUnavailable(
                "the provider failed too often; it is tried again soon",
                provider=skipped.provider.name,
                retry_after=_PROBE_AFTER,
            )
            target = course.skip()
            if target is None:
                raise failure
            before.append(events.failover(skipped, target, restarted=False, at=0, failure=failure))
        return course

    async def _at_hand(self, key: CacheKey, order: Order, policy: CachePolicy, target: Target) -> Target | None:
        leader = self._leading.get((key.tenant, key.exact))
        if leader and not leader.done:
            return _shared(target, lambda: leader.read(0))
        if answer := await self.cache.find(key, oldest=policy.ttl):
            return _instead(target, KeptAnswer(target.provider.name, answer), pb.ANSWER_SOURCE_EXACT_CACHE)
        if policy.similarity is not None and (
            answer := await self.cache.find_alike(key, similarity=policy.similarity, oldest=policy.ttl)
        ):
            return _instead(target, KeptAnswer(target.provider.name, answer), pb.ANSWER_SOURCE_SEMANTIC_CACHE)
        if elsewhere := await self.tail.lead(key.tenant, key.exact, order.generation_id):
            return _shared(target, lambda: self.tail.read(key.tenant, elsewhere, 0))
        self._to_lead[key.tenant, order.generation_id] = key.exact
        if answer := await self.cache.look(key, oldest=policy.ttl):  # who led until now has just kept it
            return _instead(target, KeptAnswer(target.provider.name, answer), pb.ANSWER_SOURCE_EXACT_CACHE)
        return None

    def _lead(self, key: CacheKey, generation: Generation) -> None:
        """Lets the same request share this generation while it runs, at all replicas."""
        place = (key.tenant, key.exact)
        del self._to_lead[key.tenant, generation.id]
        self._leading[place], generation.answers = generation, key.exact
        generation.when_done(lambda: self._leading.pop(place, None))

    async def _over(
        self, key: CacheKey, generation_id: str, policy: CachePolicy, asked: Model, outcome: Answered | None
    ) -> None:
        """Whoever has read the end finds the answer kept, and shares the generation no more; unless that takes so long
        that the end is told before.
        """
        leader = self._leading.get((key.tenant, key.exact))
        leads = leader is not None and leader.id == generation_id
        ending = self._spawn(self._ended(key, policy, asked, outcome, leads=leads))
        await asyncio.wait({ending}, timeout=self.kept_within.total_seconds())

    async def _ended(
        self, key: CacheKey, policy: CachePolicy, asked: Model, outcome: Answered | None, *, leads: bool
    ) -> None:
        """Keeps what the model asked for answered; a stand-in's answer is not kept under its name."""
        own = outcome and not (outcome.target.free or outcome.attempts > 1) and outcome.target.model is asked
        if outcome and own:
            answer = Answer.of(outcome.transcript)
            await self.cache.keep(key, answer, ttl=policy.ttl, semantic=policy.similarity is not None)
        if leads:
            await self.tail.leads_no_more(key.tenant, key.exact)

    async def drain(self) -> None:
        """Returns when everything is kept that was to be."""
        if self._keeping:
            await asyncio.wait(self._keeping)
        await self.cache.drain()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name="keep an answer")
        self._keeping.add(task)
        task.add_done_callback(self._kept)
        return task

    def _kept(self, task: asyncio.Task[None]) -> None:
        self._keeping.discard(task)
        if not task.cancelled() and (fault := task.exception()):
            log.error("response_cache.fault", exc_info=fault)


def _shared(target: Target, leader: Callable[[], AsyncGenerator[bytes, None]]) -> Target:
    return _instead(target, SharedAnswer(target.provider.name, leader), pb.ANSWER_SOURCE_SHARED)


def _instead(target: Target, provider: Provider, source: pb.AnswerSource.ValueType) -> Target:
    return Target(target.model, provider, source)


def _downgraded(asked: Model, taken: Model, downgrade: Downgrade) -> events.Event:
    return events.downgraded(asked.name, taken.name, reason=downgrade.reason)
