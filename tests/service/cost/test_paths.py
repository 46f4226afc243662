"""A generation's path reaches the budgets: what inference says of it is what cost counts on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agentnet.cost.v1 import cost_pb2
from agentnet.cost.v1 import cost_service_pb2 as pb
from services.inference.cost_grpc import GrpcCost
from services.inference.peers import Payer, Settlement
from services.inference.providers.contract import Usage
from shared.errors import MeshError
from shared.identity import CredentialKind, Grant, Principal, Purse
from tests.service.cost.calls import Code, refusal, said
from tests.service.cost.conftest import Served
from tests.support.identity import Keys

ADA = Principal("acme", "ada", frozenset({"tenant_user"}), CredentialKind.TOKEN)


@pytest.fixture
async def peer(served: Served, keys: Keys) -> GrpcCost:
    return GrpcCost(served.channel, keys.signer)


@pytest.mark.parametrize(
    ("level", "name"),
    [
        (cost_pb2.BUDGET_LEVEL_TEAM, "red"),
        (cost_pb2.BUDGET_LEVEL_USER, "ada"),
        (cost_pb2.BUDGET_LEVEL_AGENT, "Athena@1.0.0"),
        (cost_pb2.BUDGET_LEVEL_SESSION, "ses_1"),
        (cost_pb2.BUDGET_LEVEL_SUB_AGENT, "Athena@1.0.0/researcher"),
    ],
)
async def test_each_level_of_the_tree_holds_for_a_generation(
    served: Served, keys: Keys, peer: GrpcCost, level: int, name: str
) -> None:
    limit = pb.SetBudgetRequest(limit_micros_usd=20, level=level, name=name)
    await served.cost.SetBudget(limit, metadata=keys.metadata())
    path = {"team": "red", "sub_agent": "Athena@1.0.0/researcher"}
    payer = Payer(ADA, "gen_1", "p", "m", "ses_1", "Athena@1.0.0", "turn_1", **path)
    await peer.reserve(payer, input_tokens=0, output_tokens=10)
    with pytest.raises(MeshError, match="no room"):
        await peer.reserve(
            Payer(ADA, "gen_2", "p", "m", "ses_1", "Athena@1.0.0", **path), input_tokens=1, output_tokens=1
        )
    await peer.settle(Settlement(payer, Usage(2, 3)))
    budget = await served.cost.GetBudget(pb.GetBudgetRequest(level=level, name=name), metadata=keys.metadata())
    assert (budget.budget.settled_micros_usd, budget.budget.leased_micros_usd) == (8, 0)


async def test_what_a_credential_was_given_holds_for_its_generations(
    served: Served, keys: Keys, peer: GrpcCost
) -> None:
    """The purses travel in the signed identity."""
    agent = replace(ADA, subject="agent:helper", grant=Grant().given(Purse("prs_1", 20)))
    payer = Payer(agent, "gen_1", "p", "m", "ses_1", "Athena@1.0.0")
    await peer.reserve(payer, input_tokens=0, output_tokens=10)
    with pytest.raises(MeshError, match="no room"):
        await peer.reserve(replace(payer, generation_id="gen_2"), input_tokens=0, output_tokens=1)
    await peer.settle(Settlement(payer, Usage(2, 3)))
    asked = pb.GetBudgetRequest(level=cost_pb2.BUDGET_LEVEL_CREDENTIAL, name="prs_1")
    budget = (await served.cost.GetBudget(asked, metadata=keys.metadata())).budget
    assert (budget.settled_micros_usd, budget.leased_micros_usd, budget.limit_micros_usd) == (8, 0, 20)


async def test_a_purse_cannot_be_set(served: Served, keys: Keys) -> None:
    wanted = pb.SetBudgetRequest(level=cost_pb2.BUDGET_LEVEL_CREDENTIAL, name="prs_1", limit_micros_usd=10**9)
    refused = await refusal(served.cost.SetBudget(wanted, metadata=keys.metadata()))
    assert said(refused) == (Code.INVALID_ARGUMENT, "FIELD_INVALID", "level")
