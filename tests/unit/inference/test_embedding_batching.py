"""Batching and devices: who shares a run, who waits for whom, what a cancelled or failed caller costs the others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import numpy as np
import pytest

from services.inference.embeddings.arithmetic import Arithmetic
from services.inference.embeddings.batching import BatchingEmbedder, Limits, Waiting, batching, next_batch
from services.inference.embeddings.contract import Computed, TokenIds, Tokenised
from services.inference.embeddings.device import Device, DeviceMissing, loaded, providers
from services.inference.embeddings.late import here
from services.inference.embeddings.minilm import MiniLM
from shared.errors import Internal, ResourceExhausted
from tests.support.plain_embedder import EmbeddedEmbedder

CPU, CUDA, AZURE = "CPUExecutionProvider", "CUDAExecutionProvider", "AzureExecutionProvider"


class CountedModel:
    """A vector is the text's length; every run is remembered, and waits for the gate."""

    name = "counted"

    def __init__(self) -> None:
        self.runs: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()
        self.failures: list[Exception] = []

    def tokenise(self, texts: Sequence[str]) -> list[Tokenised]:
        return [Tokenised([0] * min(len(text), 64), cut=len(text) > 64) for text in texts]

    def vectors(self, texts: Sequence[TokenIds]) -> list[Computed]:
        self.runs.append([len(text) for text in texts])
        self.begun.set()
        assert self.gate.wait(5)
        if self.failures:
            raise self.failures.pop(0)
        return [Computed((float(len(text)),), bytes([len(text)])) for text in texts]


@pytest.fixture
def model() -> CountedModel:
    return CountedModel()


@pytest.fixture
async def embedder(model: CountedModel) -> AsyncIterator[BatchingEmbedder]:
    async with batching(model, Limits(texts=4, tokens=100, pending=40)) as running:
        yield running
        model.gate.set()


async def held(model: CountedModel, embedder: BatchingEmbedder, text: str = "xx") -> asyncio.Task[object]:
    """A first run that goes on until the gate opens; what comes now waits."""
    model.gate.clear()
    model.begun.clear()
    first = asyncio.create_task(embedder.embed([text]))
    while not model.begun.is_set():
        await asyncio.sleep(0.001)
    return first


async def queued(embedder: BatchingEmbedder, *requests: Sequence[str]) -> list[asyncio.Task[object]]:
    """Requests whose texts wait, in this order."""
    tasks: list[asyncio.Task[object]] = []
    for texts in requests:
        before = len(embedder._waiting)
        tasks.append(asyncio.create_task(embedder.embed(texts)))
        while len(embedder._waiting) < before + len(texts):
            await asyncio.sleep(0.001)
    return tasks


async def test_one_request_has_its_vectors_in_order(model: CountedModel, embedder: BatchingEmbedder) -> None:
    found = await embedder.embed(["aaa", "b", "c" * 99])
    assert found.vectors == ((3.0,), (1.0,), (64.0,))
    assert found.token_vectors == (b"\x03", b"\x01", b"\x40")
    assert (found.tokens, found.truncated, found.cut) == (68, 1, (2,))


async def test_requests_that_wait_share_a_run(model: CountedModel, embedder: BatchingEmbedder) -> None:
    first = await held(model, embedder)
    rest = await queued(embedder, ["a"], ["bb"], ["ccc"])
    model.gate.set()
    await asyncio.gather(first, *rest)
    assert sorted(model.runs[1]) == [1, 2, 3]
    assert len(model.runs) == 2


async def test_texts_of_like_length_share_a_run_and_the_shortest_go_first(
    model: CountedModel, embedder: BatchingEmbedder
) -> None:
    first = await held(model, embedder)
    lengths = [50, 1, 49, 2, 48, 3, 47, 4]
    rest = await queued(embedder, *(["x" * length] for length in lengths))
    model.gate.set()
    await asyncio.gather(first, *rest)
    assert [sorted(run) for run in model.runs[1:]] == [
        [1, 2, 3, 4],
        [47, 48],
        [49, 50],
    ]  # three would be over 100 tokens


@pytest.mark.parametrize(
    ("lengths", "together"),
    [
        ([20, 20, 20], [20, 20, 20]),
        ([20, 10, 12], [20, 10, 12]),  # each pads by no more than a run costs
        ([20, 9], [20]),
        ([20, 30], [20, 30]),
        ([20, 20, 26], [20, 20]),  # two would be padded by 6 each
        ([20, 20, 28, 24], [20, 20, 24]),  # the nearest joins first
    ],
)
def test_a_text_joins_when_that_is_cheaper_than_a_run_of_its_own(lengths: list[int], together: list[int]) -> None:
    waiting = [Waiting([0] * length, rank, 0, None) for rank, length in enumerate(lengths)]  # type: ignore[arg-type]
    batch = next_batch(waiting, Limits(padding=10))
    assert sorted(len(text.ids) for text in batch) == sorted(together)


async def test_a_single_text_overtakes_the_rest_of_a_large_request(
    model: CountedModel, embedder: BatchingEmbedder
) -> None:
    first = await held(model, embedder)
    (large,) = await queued(embedder, ["x"] * 20)
    (single,) = await queued(embedder, ["y" * 30])
    model.gate.set()
    await single
    assert len(model.runs) <= 4
    assert not large.done()
    await asyncio.gather(first, large)


async def test_a_question_waits_for_no_long_texts_that_came_before_it(
    model: CountedModel, embedder: BatchingEmbedder
) -> None:
    first = await held(model, embedder)
    stores = await queued(embedder, ["x" * 60] * 4, ["x" * 64] * 4, ["x" * 62] * 4)
    (question,) = await queued(embedder, ["y" * 8])
    model.gate.set()
    await question
    assert model.runs[1] == [8]
    await asyncio.gather(first, *stores)


async def test_short_texts_without_end_do_not_keep_a_long_one_waiting(
    model: CountedModel, embedder: BatchingEmbedder
) -> None:
    first = await held(model, embedder)
    long, *short = await queued(embedder, ["x" * 64], *(["y" * 8] for _ in range(4)))
    model.gate.set()
    while not long.done():
        assert len(model.runs) < 9
        await asyncio.wait({*short, long}, return_when=asyncio.FIRST_COMPLETED)
        short = [one for one in short if not one.done()]
        short += [asyncio.create_task(embedder.embed(["y" * 8])) for _ in range(4 - len(short))]
    await asyncio.gather(first, *short)


async def test_a_lone_caller_does_not_wait_for_company(model: CountedModel) -> None:
    async with batching(model, Limits(wait=timedelta(seconds=30))) as embedder:
        async with asyncio.timeout(5):
            for _ in range(3):
                await embedder.embed(["x"])


async def test_after_company_the_next_waits_a_little_and_no_longer(model: CountedModel) -> None:
    async with batching(model, Limits(texts=4, wait=timedelta(milliseconds=5))) as embedder:
        first = await held(model, embedder)
        rest = await queued(embedder, ["a"], ["b"])
        model.gate.set()
        await asyncio.gather(first, *rest)
        async with asyncio.timeout(5):
            await embedder.embed(["c"])
    assert model.runs[2] == [1]


async def test_a_full_batch_does_not_wait(model: CountedModel) -> None:
    async with batching(model, Limits(texts=2, wait=timedelta(seconds=30))) as embedder:
        first = await held(model, embedder)
        rest = await queued(embedder, ["a"], ["b"], ["c"], ["d"])
        model.gate.set()
        async with asyncio.timeout(5):
            await asyncio.gather(first, *rest)


async def test_a_cancelled_caller_is_not_computed_and_harms_nobody(
    model: CountedModel, embedder: BatchingEmbedder
) -> None:
    first = await held(model, embedder)
    leaves, stays = await queued(embedder, ["a" * 7] * 3, ["b"])
    leaves.cancel()
    await asyncio.wait({leaves})
    model.gate.set()
    await asyncio.gather(first, stays)
    assert model.runs == [[2], [1]]


async def test_a_caller_that_leaves_in_the_middle_of_its_run_harms_nobody(
    model: CountedModel, embedder: BatchingEmbedder
) -> None:
    first = await held(model, embedder)
    first.cancel()
    await asyncio.wait({first})
    (other,) = await queued(embedder, ["b"])
    model.gate.set()
    assert await other


async def test_a_failed_run_fails_its_callers_and_the_next_is_served(
    model: CountedModel, embedder: BatchingEmbedder
) -> None:
    model.failures.append(ValueError("no arithmetic today"))
    with pytest.raises(Internal) as raised:
        await embedder.embed(["a"] * 9)
    assert str(raised.value.__cause__) == "no arithmetic today"
    assert (await embedder.embed(["b"])).vectors == ((1.0,),)


async def test_too_many_waiting_texts_are_told_to_come_back(model: CountedModel, embedder: BatchingEmbedder) -> None:
    first = await held(model, embedder)
    rest = await queued(embedder, ["a"] * 40)
    with pytest.raises(ResourceExhausted) as raised:
        await embedder.embed(["b"])
    assert (raised.value.reason_name, raised.value.retry_after) == ("OVERLOADED", timedelta(seconds=1))
    model.gate.set()
    await asyncio.gather(first, *rest)


async def test_batched_vectors_are_what_each_text_is_alone() -> None:
    texts = [f"Sentence {number} " + "and more " * (number * 7 % 60) for number in range(48)]
    alone = EmbeddedEmbedder()
    async with batching(MiniLM(), Limits()) as embedder:
        together = await asyncio.gather(*(embedder.embed([text]) for text in texts))
    for text, found in zip(texts, together, strict=True):
        one = await alone.embed([text])
        assert (found.tokens, found.truncated) == (one.tokens, one.truncated)
        assert np.allclose(one.vectors[0], found.vectors[0], atol=1e-5)
    alone.close()


@pytest.mark.parametrize(
    ("device", "available", "expected"),
    [
        (Device.AUTO, [AZURE, CPU], [CPU]),
        (Device.AUTO, [CUDA, CPU], [CUDA, CPU]),
        (Device.CPU, [CUDA, CPU], [CPU]),
        (Device.CUDA, [CUDA, CPU], [CUDA, CPU]),
    ],
)
def test_the_device_is_chosen_among_those_there_are(device: Device, available: list[str], expected: list[str]) -> None:
    assert providers(device, available) == expected


def test_a_demanded_device_that_is_missing_stops_the_start() -> None:
    with pytest.raises(DeviceMissing, match="install onnxruntime-gpu in its place, or set embedding_device to auto"):
        MiniLM(Device.CUDA)


def test_a_session_that_fell_back_in_silence_stops_the_start_only_when_cuda_was_demanded() -> None:
    with pytest.raises(DeviceMissing, match="CUDA did not load, the session runs on CPU"):
        loaded(Device.CUDA, [CUDA, CPU], [CPU])
    assert loaded(Device.AUTO, [CUDA, CPU], [CPU]) is Device.CPU
    assert loaded(Device.AUTO, [CUDA, CPU], [CUDA, CPU]) is Device.CUDA
    assert MiniLM(Device.AUTO).device is Device.CPU


async def test_the_model_is_loaded_with_its_first_text(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Device] = []

    class Noted(MiniLM):
        def __init__(
            self, device: Device = Device.AUTO, *, threads: int = 1, arithmetic: Arithmetic = Arithmetic.AUTO
        ) -> None:
            loaded.append(device)
            super().__init__(device, threads=threads, arithmetic=arithmetic)

    monkeypatch.setattr("services.inference.embeddings.minilm.MiniLM", Noted)
    model, device = here(Device.AUTO, threads=1)
    assert (device, loaded) == (Device.CPU, [])
    async with batching(model, Limits()) as embedder:
        first, second = await asyncio.gather(embedder.embed(["One."]), embedder.embed(["One."]))
    assert loaded == [Device.CPU]
    assert first.vectors == second.vectors


def test_what_should_run_on_a_gpu_is_loaded_at_once_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceMissing):
        here(Device.CUDA, threads=1)
    found = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr("services.inference.embeddings.device.built_for_cuda", lambda: True)
    monkeypatch.setattr("services.inference.embeddings.minilm.onnxruntime.get_available_providers", lambda: found)
    asked: list[list[str]] = []

    class Session:
        def __init__(self, weights: str, options: object, *, providers: list[str]) -> None:
            asked.append(providers)

        def get_providers(self) -> list[str]:
            return found

    monkeypatch.setattr("services.inference.embeddings.minilm.onnxruntime.InferenceSession", Session)
    _, device = here(Device.AUTO, threads=1)
    assert (device, asked) == (Device.CUDA, [found])
