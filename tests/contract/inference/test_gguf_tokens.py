"""The vocabulary read from the embedded model's file against llama.cpp, which runs that very file."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from deploy.local.model_server import MODEL_NAME, model_file
from services.inference.providers.contract import Message, Role
from services.inference.tokenizers import ModelTokens, load_file
from tests.support.valkey import free_port

KEY = "k-1"
TEXTS = [
    "Hello, world!",
    "In 1984, 12345 people paid $3.50 each; that's 100%.",
    "Grüße aus München, señor. Çok güzel!",
    "人工智能正在改变世界。お誕生日おめでとう",
    "def f(x):\n\treturn x ** 2  # squared\n\n\n",
    "   leading and   inner    spaces   ",
    "emoji 💡👩‍👩‍👧‍👦 and zero\u200bwidth",
    "I'll we've they're it's DON'T",
    "a" * 300,
    "<|im_start|>not a control token<|im_end|>",
    "\r\n\r\n mixed \t\n line ends\r",
    "0x1F 3.14159 1,000,000 2026-01-01T00:00:00Z",
]
PROMPTS = [
    (Message(Role.USER, "Say hello."),),
    (Message(Role.SYSTEM, "Be short."), Message(Role.USER, "Why is the sky blue?")),
    (
        Message(Role.USER, "One?"),
        Message(Role.ASSISTANT, "Two.\n\nThree 4."),
        Message(Role.USER, "Grüße 💡 12345"),
    ),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    environment = os.environ | {"AGENTNET_MODEL_LISTEN": f"127.0.0.1:{port}", "AGENTNET_MODEL_KEY": KEY}
    log: Path = tmp_path_factory.mktemp("model") / "model.log"
    with log.open("wb") as output:
        command = (sys.executable, "-m", "deploy.local.model_server")
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
async def session(server: str) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(server, headers={"authorization": f"Bearer {KEY}"}) as opened:
        ends = time.monotonic() + 60
        while time.monotonic() < ends:
            try:
                async with opened.get("/health") as answer:
                    if answer.status == 200:
                        break
            except aiohttp.ClientConnectionError:
                time.sleep(0.1)
        yield opened


async def posted(session: aiohttp.ClientSession, path: str, **body: Any) -> Any:
    async with session.post(path, json=body) as answer:
        assert answer.status == 200
        return await answer.json()


@pytest.fixture(scope="module")
def model() -> ModelTokens:
    return load_file(model_file())


async def test_texts_and_prompts_count_as_the_model_s_own_server_counts(
    session: aiohttp.ClientSession, model: ModelTokens
) -> None:
    for text in TEXTS:
        theirs = await posted(session, "/tokenize", content=text, add_special=False, parse_special=False)
        assert model.tokenizer.count(text) == len(theirs["tokens"]), text
    for messages in PROMPTS:
        said = [{"role": message.role.value, "content": message.text} for message in messages]
        answer = await posted(session, "/v1/chat/completions", model=MODEL_NAME, messages=said, max_tokens=1)
        count = model.messages(messages)
        assert (count.tokens, count.estimated) == (answer["usage"]["prompt_tokens"], False), said
