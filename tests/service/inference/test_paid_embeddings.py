"""Embedding models of a provider's: leased, judged, settled, and nothing leaves that policy holds back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from services.inference.embeddings.contract import Embedded
from services.inference.embeddings.paid import PaidEmbedder, paying
from services.inference.enforcement import Enforcement, Held
from services.inference.errors import PolicyBlocked, ProviderTimeout, ProviderUnavailable, ReplayMissed
from services.inference.peers import Ending
from services.inference.purchase import Purchases
from shared.clock import FakeClock
from shared.errors import MeshError, Reason, ResourceExhausted
from shared.identity import CredentialKind, Principal
from shared.ids import SequentialIds
from shared.monitors.enforced import Enforced
from tests.support.inference import DEFAULT, ScriptedCost, ScriptedPolicy

ADA = Principal("acme", "ada", frozenset({"tenant_user"}), CredentialKind.TOKEN)


@dataclass(slots=True)
class Model:
    """So many tokens a text; or a failure."""

    failure: BaseException | None = None
    counts: int = 10
    heard: list[list[str]] = field(default_factory=list)

    async def embed(self, texts: Sequence[str]) -> Embedded:
        self.heard.append(list(texts))
        if self.failure:
            raise self.failure
        return Embedded(tuple((1.0,) for _ in texts), self.counts * len(texts), 0)


@dataclass(slots=True)
class World:
    model: Model
    cost: ScriptedCost
    policy: ScriptedPolicy
    embedder: PaidEmbedder

    @property
    def settled(self) -> list[tuple[int, bool, Ending]]:
        """Tokens, whether they are estimated, and how it ended."""
        return [(one.metered.embedding_tokens, one.usage.estimated, one.outcome) for one in self.cost.settlements]


@pytest.fixture
async def world() -> World:
    model, cost, policy = Model(), ScriptedCost(), ScriptedPolicy()
    enforced = Enforced(policy.watch, Held.of)
    policy.snapshots.put_nowait(DEFAULT)
    follow = asyncio.create_task(enforced.follow())
    while not enforced.revision:
        await asyncio.sleep(0)
    follow.cancel()
    embedder = PaidEmbedder(
        model, "house", "small", caller=lambda: ADA, ids=SequentialIds(),
        purchases=Purchases(cost, policy, Enforcement(enforced, policy, strict=True), FakeClock()),
    )  # fmt: skip
    return World(model, cost, policy, embedder)


async def test_what_was_embedded_is_leased_and_settled_by_the_providers_count(world: World) -> None:
    await world.embedder.embed(["abcd" * 10, "x"])
    assert [leased.embedding_tokens for leased in world.cost.leased] == [12]
    assert world.settled == [(20, False, Ending.COMPLETED)]
    payer = world.cost.settlements[0].payer
    assert (payer.provider, payer.model, payer.principal) == ("house", "small", ADA)


async def test_what_nobody_counted_is_settled_as_it_was_leased(world: World) -> None:
    world.model.counts = 0
    await world.embedder.embed(["abcd" * 10, "x"])
    assert world.settled == [(12, True, Ending.COMPLETED)]


async def test_a_text_that_policy_blocks_leaves_nobody_and_costs_nothing(world: World) -> None:
    with pytest.raises(PolicyBlocked):
        await world.embedder.embed(["hello", "how to build a bomb"])
    assert (world.model.heard, world.cost.reserved, world.settled) == ([], [], [])
    assert [rule for _, rule, _ in world.policy.recorded] == ["bomb"]


async def test_without_money_the_provider_is_not_asked(world: World) -> None:
    world.cost.refusals = [ResourceExhausted("no money", reason=Reason.ERROR_REASON_BUDGET_EXHAUSTED)]
    with pytest.raises(MeshError, match="no money"):
        await world.embedder.embed(["hello"])
    assert (world.model.heard, world.settled) == ([], [])


@pytest.mark.parametrize(
    ("failure", "tokens", "estimated", "ending"),
    [
        (ProviderUnavailable("away"), 0, False, Ending.CUT),
        (ProviderTimeout("too late"), 2, True, Ending.CUT),
        (asyncio.CancelledError(), 2, True, Ending.CANCELLED),
    ],
)
async def test_a_failure_gives_the_lease_back_and_pays_for_what_may_have_been_done(
    world: World, failure: BaseException, tokens: int, estimated: bool, ending: Ending
) -> None:
    world.model.failure = failure
    with pytest.raises(type(failure)):
        await world.embedder.embed(["hello"])
    assert world.settled == [(tokens, estimated, ending)]


async def test_cost_being_away_at_the_end_costs_the_caller_nothing(world: World) -> None:
    world.cost.settle_failures = [ProviderUnavailable("cost is away")]
    assert (await world.embedder.embed(["hello"])).tokens == 10


async def test_strict_replay_asks_no_providers_model(world: World) -> None:
    purchases = world.embedder._purchases
    made = [paying(purchases, caller=lambda: ADA, ids=SequentialIds(), offline=offline) for offline in (False, True)]
    pays, offline = (make(world.model, provider="house", model="small") for make in made)
    with pytest.raises(ReplayMissed):
        await offline.embed(["Hello"])
    assert (world.model.heard, world.settled) == ([], [])
    await pays.embed(["Hello"])
    assert world.model.heard == [["Hello"]]
