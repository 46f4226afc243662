"""Money of many generations in one call, over a real port: of the service itself, and as inference asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from agentnet.cost.v1 import cost_service_pb2 as pb
from agentnet.cost.v1 import till_service_pb2 as till
from services.inference.cost_grpc import GrpcCost
from services.inference.peers import Cost, Payer, Settlement
from services.inference.providers.contract import Usage
from shared.errors import MeshError, from_status
from shared.identity import CredentialKind, Principal
from tests.service.cost.calls import Code, refusal, reservation, said, settlement
from tests.service.cost.conftest import Served
from tests.support.identity import Keys

ADA = Principal("acme", "ada", frozenset({"admin"}), CredentialKind.TOKEN)
PAYER = Payer(ADA, "g", "p", "m", "s", "A@1", turn_id="t")


class Counted(GrpcCost):
    """Notes how many are asked for in one call."""

    def __init__(self, served: Served, keys: Keys) -> None:
        super().__init__(served.channel, keys.signer)
        self.calls: list[int] = []

    async def _carry(self, asked: Sequence[Any]) -> Sequence[Any]:
        self.calls.append(len(asked))
        return await super()._carry(asked)


@pytest.fixture
def paying(served: Served, keys: Keys) -> Counted:
    return Counted(served, keys)


def identity(keys: Keys, tenant: str = "acme") -> str:
    ((_, header),) = keys.metadata(tenant)
    return header


async def transact(served: Served, keys: Keys, *asked: till.Transaction) -> Sequence[till.TransactionOutcome]:
    answer = await served.till.Transact(till.TransactRequest(transactions=asked), metadata=keys.metadata("mesh"))
    outcomes: Sequence[till.TransactionOutcome] = answer.outcomes
    return outcomes


async def test_each_transaction_is_its_own_payers(served: Served, keys: Keys) -> None:
    await served.replica.limit("acme", 1000)
    await served.replica.limit("globex", 1000)
    outcomes = await transact(
        served,
        keys,
        till.Transaction(identity=identity(keys), reserve=reservation()),
        till.Transaction(identity=identity(keys, "globex"), settle=settlement()),
    )
    assert [outcome.WhichOneof("outcome") for outcome in outcomes] == ["reserve", "settle"]
    assert outcomes[0].reserve.lease.micros_usd == 20
    assert outcomes[1].settle.cost_event.cost.micros_usd == 20
    assert await served.replica.spent("acme") == (0, 20)
    assert await served.replica.spent("globex") == (20, 0)


async def test_one_that_is_refused_is_refused_as_alone_and_harms_no_other(served: Served, keys: Keys) -> None:
    good = identity(keys)
    lone = await refusal(served.cost.ExtendLease(pb.ExtendLeaseRequest(generation_id="gone"), metadata=keys.metadata()))
    outcomes = await transact(
        served,
        keys,
        till.Transaction(identity=good, extend=pb.ExtendLeaseRequest(generation_id="gone")),
        till.Transaction(identity="forged", reserve=reservation(generation_id="g2")),
        till.Transaction(reserve=reservation(generation_id="g3")),
        till.Transaction(identity=good),
        till.Transaction(identity=good, reserve=reservation(generation_id="g4", output_tokens=-1)),
        till.Transaction(identity=good, reserve=reservation(generation_id="g5")),
    )
    errors = [from_status(outcome.refused) for outcome in outcomes[:5]]
    assert said(errors[0]) == said(lone)
    assert errors[0].facts == lone.facts
    assert [error.code for error in errors[1:3]] == [Code.UNAUTHENTICATED] * 2
    assert [error.field for error in errors[3:]] == ["asked", "output_tokens"]
    assert outcomes[5].reserve.lease.generation_id == "g5"


async def test_too_many_at_once_are_refused(served: Served, keys: Keys) -> None:
    error = await refusal(transact(served, keys, *(till.Transaction() for _ in range(257))))
    assert said(error) == (Code.INVALID_ARGUMENT, "FIELD_TOO_LONG", "transactions")


async def test_what_generations_ask_for_at_once_goes_in_few_calls_and_is_counted_once(
    served: Served, keys: Keys, paying: Counted
) -> None:
    await served.replica.limit("acme", 10_000)
    payers = [replace(PAYER, generation_id=f"g{number}") for number in range(40)]
    await asyncio.gather(*(paying.reserve(payer, input_tokens=0, output_tokens=10) for payer in payers))
    assert await served.replica.spent("acme") == (0, 40 * 20)
    assert len(paying.calls) < 10

    spent = [Settlement(payer, Usage(10, 5)) for payer in payers]
    costs = await asyncio.gather(*map(paying.settle, spent), *map(paying.settle, spent))
    assert {cost.micros_usd for cost in costs} == {20}
    assert await served.replica.spent("acme") == (40 * 20, 0)


async def test_an_error_in_company_is_the_error_alone(served: Served, keys: Keys, paying: Counted) -> None:
    async def outcome(payer: Payer) -> MeshError | Cost:
        try:
            return await paying.settle(Settlement(payer, Usage(10, 5)))
        except MeshError as error:
            return error

    alone = await outcome(replace(PAYER, generation_id="g1", model="unheard-of"))
    payers = [replace(PAYER, generation_id="g2", model="unheard-of"), replace(PAYER, generation_id="g3"), PAYER]
    first, second, last = await asyncio.gather(*map(outcome, payers))
    assert isinstance(alone, MeshError)
    assert isinstance(first, MeshError)
    assert (said(first), first.facts) == (said(alone), alone.facts)
    assert isinstance(second, Cost)
    assert isinstance(last, Cost)
    assert max(paying.calls) > 1


async def test_where_cost_has_no_till_each_goes_by_itself(
    served: Served, keys: Keys, paying: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a replica of cost that is older than this caller."""
    monkeypatch.setattr(paying, "_till", _NoTill(served))
    payers = [replace(PAYER, generation_id=f"g{number}") for number in range(5)]
    costs = await asyncio.gather(*(paying.settle(Settlement(payer, Usage(10, 5))) for payer in payers))
    assert [cost.micros_usd for cost in costs] == [20] * 5
    assert (
        len((await served.cost.ListCostEvents(pb.ListCostEventsRequest(), metadata=keys.metadata())).cost_events) == 5
    )


class _NoTill:
    """Cost before it had one: the method is not there."""

    def __init__(self, served: Served) -> None:
        self.Transact: Any = served.channel.unary_unary(
            "/agentnet.cost.v1.TillService/NotYet", request_serializer=till.TransactRequest.SerializeToString
        )
