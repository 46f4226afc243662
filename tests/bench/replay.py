"""Replay beside the embedded model: the same calls recorded once, then answered by the model and from their recordings.

`python -m tests.bench.replay`: the embedded model's own server, whole calls through the provider in process.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import aiohttp
import psutil
import uvloop

from deploy.local.model_server import MODEL_NAME
from services.inference.providers.contract import ModelCall, Provider, Role, Sampling, Timeouts, infer, said
from services.inference.providers.http import Endpoint, HttpProvider
from services.inference.providers.openai_chat import ChatDialect
from services.inference.replay import Cassette, ReplayingProvider, ReplayMode, TextRecording
from tests.bench.streaming import process
from tests.support.valkey import free_port

PROMPTS = ("What is a mesh?", "Name three colours.", "Why is the sky blue?", "Count to ten.", "Describe the sea.")
TOKENS = 48
REPLAYED = 20
KEY = "sk-bench"


def calls() -> list[ModelCall]:
    waits = Timeouts(first_token=timedelta(minutes=2), idle=timedelta(minutes=2))
    return [
        ModelCall(MODEL_NAME, (said(Role.USER, prompt),), Sampling(temperature=0.0, seed=7), TOKENS, timeouts=waits)
        for prompt in PROMPTS
    ]


async def timed(provider: Provider, call: ModelCall) -> tuple[float, str]:
    began = time.perf_counter()
    answer = await infer(provider, call)
    return (time.perf_counter() - began) * 1000, answer.text


async def compared() -> tuple[float, float, bool]:
    """Milliseconds of a call to the model and of one from its recording, medians; and whether the texts are the same."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = free_port()
        command = (sys.executable, "-m", "deploy.local.model_server")
        own = {"AGENTNET_MODEL_LISTEN": f"127.0.0.1:{port}", "AGENTNET_MODEL_KEY": KEY}
        await stack.enter_async_context(process(*command, port=port, **own))
        session = await stack.enter_async_context(aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}))
        await loaded(session, f"http://127.0.0.1:{port}/health")
        model = HttpProvider(Endpoint("embedded", f"http://127.0.0.1:{port}/v1"), ChatDialect(), session)
        cassette = Cassette(folder, TextRecording)
        cassette.load()
        recording = ReplayingProvider(model, cassette, ReplayMode.RECORD)
        told = [await timed(recording, call) for call in calls()]
        strict = ReplayingProvider(model, cassette, ReplayMode.STRICT)
        replayed = [await timed(strict, call) for _ in range(REPLAYED) for call in calls()]
        same = [text for _, text in replayed] == [text for _, text in told] * REPLAYED
    spoke, played = (statistics.median(ms for ms, _ in found) for found in (told, replayed))
    return spoke, played, same


async def main() -> None:
    spoke, played, same = await compared()
    sys.stdout.write(f"load {psutil.getloadavg()[0]:.1f}\n| way | a call of {TOKENS} tokens, p50 ms |\n|---|---|\n")
    sys.stdout.write(f"| the embedded model | {spoke:.1f} |\n| its recordings | {played:.3f} |\n")
    sys.stdout.write(f"{spoke / played:.0f} times faster, the same text: {same}\n")


async def loaded(session: aiohttp.ClientSession, url: str) -> None:
    for _ in range(600):
        async with session.get(url) as answer:
            if answer.ok:
                return
        await asyncio.sleep(0.1)
    raise RuntimeError("the model does not load")


if __name__ == "__main__":
    uvloop.run(main())
