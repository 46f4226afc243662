"""A pytest plug-in: the fixtures `agentnet_mesh` and `agents_under_test`. Needs pytest-asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from agentnet.client import AgentNet, MeshNotFound
from agentnet.testing.agents import AgentsUnderTest


@pytest_asyncio.fixture
async def agentnet_mesh() -> AsyncIterator[AgentNet]:
    """The mesh of AGENTNET_ADDRESS, or the local one; without either the test is skipped."""
    try:
        mesh = AgentNet.connect()
    except MeshNotFound as missing:
        pytest.skip(f"{missing.message}. {missing.suggestion}")
    async with mesh:
        yield mesh


@pytest.fixture
def agents_under_test(agentnet_mesh: AgentNet) -> AgentsUnderTest:
    """The agents of that mesh."""
    return AgentsUnderTest(agentnet_mesh)
