"""A rating by a model: held to its form by inference, asked for once more, and an error when it never comes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from services.policy.peers_grpc import GrpcModels
from shared.errors import MeshError
from tests.support.identity import Keys
from tests.support.inference import Replica, replica


@pytest.fixture
async def served(keys: Keys, valkey_url: str) -> AsyncIterator[Replica]:
    async with Redis.from_url(valkey_url, decode_responses=True) as redis, replica(keys, redis) as found:
        yield found


@pytest.fixture
def models(served: Replica, keys: Keys) -> GrpcModels:
    return GrpcModels(served.channel, keys.signer)


@pytest.mark.parametrize("name", ["scripted", "toxicity-screen"])
async def test_a_model_is_held_to_a_number_while_it_writes(served: Replica, models: GrpcModels, name: str) -> None:
    served.model.steps = ['{"percent": ', "85}"]

    assert await models.rate(name, "Is it hateful?", "I hate 100 of them") == pytest.approx(0.85)

    (call,) = served.model.calls
    assert call.response_format
    assert call.response_format.json_schema["properties"]["percent"] == {
        "type": "integer",
        "minimum": 0,
        "maximum": 100,
    }
    assert "I hate 100 of them" in call.messages[-1].text


@pytest.mark.parametrize(
    "wrong", ["I rate it from 0 to 100: very much.", "85", '{"percent": 850}', '{"percent": "85"}']
)
async def test_an_answer_that_is_no_rating_is_asked_for_once_more(
    served: Replica, models: GrpcModels, wrong: str
) -> None:
    served.model.scripts = [[wrong], ['{"percent": 90}']]

    assert await models.rate("scripted", "Is it hateful?", "text") == pytest.approx(0.9)
    assert len(served.model.calls) == 2


async def test_a_model_that_never_rates_is_an_error_and_no_number(served: Replica, models: GrpcModels) -> None:
    served.model.steps = ["100 percent sure."]

    with pytest.raises(MeshError) as raised:
        await models.rate("scripted", "Is it hateful?", "text")

    assert raised.value.reason_name == "OUTPUT_INVALID"
