"""A rating by a model: held to its form by inference, asked for once more, and an error when it never comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import grpc
import pytest
from redis.asyncio import Redis

from agentnet.inference.v1 import inference_service_pb2
from services.policy.peers_grpc import GrpcModels
from shared.errors import MeshError
from tests.support.identity import Keys
from tests.support.inference import Replica, replica
from tests.support.valkey import valkey_url

__all__ = ("valkey_url",)


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


class SlowChannel:
    """Answers calls when it is told to, and keeps how long each was given."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.answering = asyncio.Event()
        self.fails = False

    def unary_unary(self, *_: Any, **__: Any) -> Callable[..., Awaitable[Any]]:
        return self._answer

    def unary_stream(self, *_: Any, **__: Any) -> None:
        """Nothing here is streamed."""

    async def _answer(self, _request: Any, *, timeout: float, **_more: Any) -> Any:
        self.seconds.append(timeout)
        await self.answering.wait()
        if self.fails:
            nothing = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, nothing, nothing, "loading")
        return inference_service_pb2.GenerateTextResponse(text='{"percent": 40}')


async def test_the_first_call_of_a_model_may_take_long_and_the_others_wait_for_it(keys: Keys) -> None:
    channel = SlowChannel()
    models = GrpcModels(cast("grpc.aio.Channel", channel), keys.signer)
    rating = [asyncio.create_task(models.rate("cold", "Is it hateful?", text)) for text in ("a", "b", "c")]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert channel.seconds == [60]
    channel.answering.set()
    assert await asyncio.gather(*rating) == [0.4, 0.4, 0.4]
    assert channel.seconds == [60, 30, 30]


async def test_a_model_whose_first_call_failed_is_waited_for_again(keys: Keys) -> None:
    channel = SlowChannel()
    channel.answering.set()
    channel.fails = True
    models = GrpcModels(cast("grpc.aio.Channel", channel), keys.signer)
    with pytest.raises(MeshError):
        await models.rate("cold", "Is it hateful?", "a")
    channel.fails = False
    assert await models.rate("cold", "Is it hateful?", "a") == pytest.approx(0.4)
    assert channel.seconds == [60, 60]
