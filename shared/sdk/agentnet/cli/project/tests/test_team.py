"""What the team must do, on a real mesh: `pytest`."""

from __future__ import annotations

import pytest

from agentnet.testing import AgentsUnderTest


@pytest.mark.asyncio
async def test_scout_speaks_and_breaks_no_rule(agents_under_test: AgentsUnderTest) -> None:
    heard = await agents_under_test.hear("A database that has one replica", agents=["Scout"])
    assert heard.text
    heard.should_break_no_rule()
