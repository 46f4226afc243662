"""The embedded model, which has no tools of its own, calls tools by the form of its answers."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from deploy.local.model_server import MODEL_NAME
from services.inference.providers.contract import (
    FinishReason,
    Message,
    ModelCall,
    Role,
    Sampling,
    ToolChoice,
    ToolDefinition,
    ToolMode,
    ToolResult,
    infer,
    said,
)
from services.inference.route import Router
from services.inference.settings import InferenceSettings
from services.inference.wiring import router as wired
from tests.support.valkey import free_port

pytestmark = pytest.mark.heavy

KEY = "k-1"
WEATHER = ToolDefinition(
    "weather",
    "Tells the weather of a city.",
    {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}}, "required": ["city"]},
)
QUESTION = (said(Role.USER, "What is the weather in Rome?"),)


@pytest.fixture
async def router(tmp_path: Path) -> AsyncIterator[Router]:
    port = free_port()
    environment = os.environ | {"AGENTNET_MODEL_LISTEN": f"127.0.0.1:{port}", "AGENTNET_MODEL_KEY": KEY}
    with (tmp_path / "model.log").open("wb") as output:
        command = (sys.executable, "-m", "deploy.local.model_server")
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    settings = InferenceSettings.model_validate(
        {
            "listen": "127.0.0.1:0", "postgres_dsn": "postgres://nowhere", "identity_keys": Path("none"),
            "openai_api_key": "", "embedded_url": f"http://127.0.0.1:{port}/v1", "embedded_key": KEY, "first_token_timeout": 300,
        }
    )  # fmt: skip
    try:
        async with aiohttp.ClientSession() as session:
            async with aiohttp.ClientSession() as looking:
                await ready(looking, port)
            yield await wired(settings, session)
    finally:
        process.kill()
        process.wait()


async def ready(session: aiohttp.ClientSession, port: int) -> None:
    ends = time.monotonic() + 150
    while time.monotonic() < ends:
        try:
            async with session.get(f"http://127.0.0.1:{port}/health") as answer:
                if answer.status == 200:
                    return
        except aiohttp.ClientConnectionError:
            await asyncio.sleep(0.1)


async def test_it_calls_a_tool_reads_the_answer_and_speaks(router: Router) -> None:
    must = ModelCall(
        MODEL_NAME, QUESTION, Sampling(seed=1, temperature=0), 64, tools=(WEATHER,),
        tool_choice=ToolChoice(ToolMode.REQUIRED),
    )  # fmt: skip
    (target,) = router.chain(router.resolve(MODEL_NAME), must, fallback=None)
    asked = await infer(target.provider, target.call(must))

    (call,) = asked.tool_calls
    assert (asked.text, asked.finish_reason, call.name) == ("", FinishReason.TOOL_CALLS, "weather")
    assert json.loads(call.arguments)["city"] in ("Oslo", "Rome")
    assert asked.usage.output_tokens > 5

    told = (Message(Role.ASSISTANT, (call,)), Message(Role.TOOL, (ToolResult(call.id, "Sunny, 25 degrees."),)))
    last = ModelCall(
        MODEL_NAME, (*QUESTION, *told), Sampling(seed=1, temperature=0), 24, tools=(WEATHER,),
        tool_choice=ToolChoice(ToolMode.NONE),
    )  # fmt: skip
    answer = await infer(target.provider, target.call(last))
    assert answer.text.strip()
    assert answer.tool_calls == ()


async def test_left_free_it_answers_or_calls_but_never_shows_the_form(router: Router) -> None:
    for seed in range(2):
        free = ModelCall(MODEL_NAME, QUESTION, Sampling(seed=seed, temperature=1.0), 48, tools=(WEATHER,))
        (target,) = router.chain(router.resolve(MODEL_NAME), free, fallback=None)
        found = await infer(target.provider, target.call(free))
        assert bool(found.text) != bool(found.tool_calls)
        assert '"answer"' not in found.text
        assert all(call.name == "weather" for call in found.tool_calls)
