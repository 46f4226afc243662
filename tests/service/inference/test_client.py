"""The Python client's door to models: resumes by itself, cancels when left, says what failed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import grpc
import pytest

from agentnet.client.errors import AgentNetError
from agentnet.client.inference import Inference
from agentnet.client.transport import CallOptions
from agentnet.inference.v1 import inference_service_pb2_grpc as rpc
from services.inference.errors import ProviderRejected, StreamBroken
from tests.service.inference.calls import until
from tests.support.identity import Keys
from tests.support.inference import Replica, kinds, request, text_of


class Breaking:
    """A stub whose streams break after a number of messages, once each."""

    def __init__(self, stub: rpc.InferenceServiceAsyncStub, after: list[int]) -> None:
        self._stub = stub
        self._after = after
        self.CancelGeneration = stub.CancelGeneration
        self.CountTokens = stub.CountTokens

    def Generate(self, *arguments: object, **options: object) -> AsyncIterator[object]:
        return self._read(self._stub.Generate(*arguments, **options))

    def Attach(self, *arguments: object, **options: object) -> AsyncIterator[object]:
        return self._read(self._stub.Attach(*arguments, **options))

    async def _read(self, call: AsyncIterator[object]) -> AsyncIterator[object]:
        left = self._after.pop(0) if self._after else None
        async for answer in call:
            if left == 0:
                call.cancel()  # type: ignore[attr-defined]
                raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata())
            left = None if left is None else left - 1
            yield answer


class Carried:
    """What the client needs of a transport, with the identity an edge would have given."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self.channel = grpc.aio.insecure_channel("127.0.0.1:1")

    def options(self, *, timeout: float | None = 30.0) -> CallOptions:
        return {"metadata": self._keys.metadata(), "timeout": timeout}


@pytest.fixture
def breaks() -> list[int]:
    """After how many messages each stream breaks; further ones do not."""
    return []


@pytest.fixture
async def client(served: Replica, keys: Keys, breaks: list[int]) -> AsyncIterator[Inference]:
    transport = Carried(keys)
    found = Inference(transport)  # type: ignore[arg-type]
    found._stub = Breaking(served.stub, breaks)  # type: ignore[assignment]
    yield found
    await transport.channel.close()


async def test_a_stream_that_breaks_goes_on_without_gap_or_repeat(
    served: Replica, client: Inference, breaks: list[int]
) -> None:
    breaks += [3, 2, 0]
    served.model.steps = [f"{number} " for number in range(40)]
    events = [event async for event in client.generate(request(generation_id=""))]
    assert [event.sequence for event in events] == list(range(1, 43))
    assert text_of(events) == "".join(f"{number} " for number in range(40))
    assert len(served.model.calls) == len(served.cost.settled) == 1


async def test_a_stream_that_breaks_before_its_first_event_starts_once(
    served: Replica, client: Inference, breaks: list[int]
) -> None:
    breaks += [0, 0]
    served.model.steps = ["Hello."]
    assert [piece async for piece in client.stream_text("Hello?")] == ["Hello."]
    assert len(served.model.calls) == 1


async def test_who_leaves_cancels(served: Replica, client: Inference) -> None:
    served.model.steps = ["One ", asyncio.Event(), "two."]
    async with aclosing(client.stream_text("Hello?")) as text:  # type: ignore[type-var]
        assert await anext(text) == "One "
    async with asyncio.timeout(1):
        await served.model.closed.wait()
    await until(lambda: served.cost.settled)


async def test_who_asked_for_grace_may_come_back(served: Replica, client: Inference) -> None:
    gate = asyncio.Event()
    served.model.steps = ["One ", gate, "two."]
    asked = request(detach_grace={"seconds": 5})
    async with aclosing(client.generate(asked)) as events:  # type: ignore[type-var]
        seen = [await anext(events), await anext(events)]
    gate.set()
    rest = [event async for event in client.attach("gen_1", after=seen[-1].sequence)]
    assert kinds([*seen, *rest]) == ["started", "text", "text", "finished"]


async def test_what_failed_is_an_error_with_its_reason(served: Replica, client: Inference) -> None:
    served.model.steps = ["One ", ProviderRejected("no")]
    with pytest.raises(AgentNetError) as raised:
        [piece async for piece in client.stream_text("Hello?")]
    assert raised.value.reason == "PROVIDER_REJECTED"


async def test_text_that_starts_anew_is_not_passed_off_as_one(served: Replica, client: Inference) -> None:
    served.model.scripts = [["One ", StreamBroken("cut")], ["Two."]]
    with pytest.raises(AgentNetError) as raised:
        [piece async for piece in client.stream_text("Hello?")]
    assert raised.value.reason == "STREAM_BROKEN"


async def test_tokens_are_counted(client: Inference) -> None:
    assert 5 <= await client.count_tokens("x" * 40, model="scripted") <= 20
