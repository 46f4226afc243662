"""Frameworks of the Python world, unchanged, against the edge, in an environment of their own: `make test-clients`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.edge import ROOT, Edge
from tests.support.node import ran

PYTHON = ROOT / ".agentnet" / "clients" / "bin" / "python"
SCRIPT = Path(__file__).with_name("python") / "frameworks.py"
HELLO = "Hello, wörld!"

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.heavy,
    pytest.mark.skipif(not PYTHON.is_file(), reason="`make test-clients` installs them"),
]


async def got(edge: Edge, name: str) -> Any:
    return json.loads(await ran(str(PYTHON), str(SCRIPT), name, env={"BASE": edge.url, "TOKEN": edge.token()}))


async def test_langchains_chat_openai(edge: Edge) -> None:
    found = await got(edge, "langchain")
    assert (found["text"], found["streamed"], found["total"], found["agent"]) == (HELLO, HELLO, 11, "Say hello.")
    assert (found["calls"], found["embedding"]) == (["Oslo", "Rome"], [0.5, -0.25, 3.0])


async def test_pydantic_ai(edge: Edge) -> None:
    assert await got(edge, "pydantic_ai") == {"text": HELLO, "streamed": HELLO, "agent": "Say hello."}
