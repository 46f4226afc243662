"""FunctionStore of the client, as the seed uses it, against a served ToolService with the real sandbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from agentnet.client import AgentNet, AgentNetError, FunctionStore
from agentnet.client.governance import Tools
from tests.support.identity import Keys

CODE = """async def search_docs(query: str) -> list:
    docs = ["two zones", "one zone", "cats"]
    return [doc for doc in docs if query in doc]
"""
SCHEMA = {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}
CONFIG = {"is_async": True, "requires_context": False, "memory_limit": 256, "timeout": 10, "safe_mode": True,
          "allowed_imports": ["json", "re"]}  # fmt: skip


class _Stubbed:
    """As much of a client as a FunctionStore uses."""

    def __init__(self, stub: Any, keys: Keys) -> None:
        self.tools = Tools.__new__(Tools)
        self.tools._stub = stub
        self.tools._call = lambda timeout=30.0: {"metadata": keys.metadata("acme"), "timeout": timeout}  # type: ignore[assignment, misc]


@pytest.fixture
def functions(stub: Any, keys: Keys) -> FunctionStore:
    mesh: Any = _Stubbed(stub, keys)
    client: AgentNet = mesh
    return FunctionStore(client)


async def test_the_seeds_function_is_stored_and_executed(functions: FunctionStore) -> None:
    tool = await functions.store_function(
        name="search_docs", code=CODE, description="Search documentation", input_schema=SCHEMA, output_schema={},
        is_async=True, config=CONFIG,
    )  # fmt: skip
    assert (tool.function.memory_limit_mib, tool.function.timeout.seconds, tool.function.is_async) == (256, 10, True)
    result: Sequence[str] | Mapping[str, Any] = await functions.execute_function("search_docs", {"query": "zone"})
    assert result == ["two zones", "one zone"]
    with pytest.raises(AgentNetError) as raised:
        await functions.execute_function("search_docs", {"query": 7})
    assert raised.value.reason == "TOOL_ARGUMENTS_INVALID"
