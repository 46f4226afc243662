"""Tests of your own agents: run them on a mesh and say in a test what must hold.

pytest_plugins = ["agentnet.testing.plugin"]     # in conftest.py; gives the fixture `agents_under_test`

async def test_athena_names_a_safeguard(agents_under_test):
    heard = await agents_under_test.hear("How does an edge network survive a partition?", agents=["Athena"])
    heard.should_include("replica").should_break_no_rule().should_cost_at_most(micros_usd=500)

async def test_the_suite_still_holds(agents_under_test):
    await agents_under_test.should_pass(Path("suite.yaml"), min_success=0.9, repeats=5)
"""

from __future__ import annotations

from agentnet.testing.agents import AgentsUnderTest
from agentnet.testing.heard import Heard

__all__ = ["AgentsUnderTest", "Heard"]
