"""Agents under test: heard in sessions, judged by suites."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from agentnet.client import AgentNet
from agentnet.client.evaluations import Evaluation
from agentnet.orchestrator.v1 import agent_pb2
from agentnet.testing.heard import Heard


class AgentsUnderTest:
    """The agents of a mesh, for a test."""

    def __init__(self, mesh: AgentNet) -> None:
        self.mesh = mesh

    async def hear(
        self,
        topic: str,
        *,
        agents: Sequence[str],
        mode: str = "",
        max_rounds: int = 0,
        timeout: float = 300.0,
    ) -> Heard:
        """Runs a session to its end; `timeout` is in seconds and raises TimeoutError."""
        heard = Heard()
        async with asyncio.timeout(timeout):
            session = await self.mesh.sessions.start(topic, agents=agents, mode=mode, max_rounds=max_rounds)
            async for event in self.mesh.sessions.watch(session.id):
                heard.add(event)
        return heard

    @asynccontextmanager
    async def draft(self, name: str, *, prompt: str, model: str = "") -> AsyncGenerator[str]:
        """A throw-away agent, archived at the end of the block. Yields its reference."""
        own = f"{name}-{secrets.token_hex(4)}"
        agent = agent_pb2.Agent(name=own, version="1.0.0", system_prompt=prompt, model=model)
        made = await self.mesh.agents.create(agent)
        reference = f"{made.name}@{made.version}"
        try:
            yield reference
        finally:
            await self.mesh.agents.set_state(reference, agent_pb2.AGENT_STATE_ARCHIVED)

    async def should_pass(
        self,
        suite: str | Path,
        *,
        min_success: float = 1.0,
        repeats: int = 0,
        agents: Mapping[str, str] | None = None,
        baseline: Evaluation | str | None = None,
        max_regression: float = 0.05,
    ) -> Evaluation:
        """Runs a suite: enough of its runs pass, and none of its scenarios got worse than the baseline by more than
        `max_regression`. Raises AssertionError.
        """
        ended = await self.mesh.evaluations.run(suite, agents=agents, repeats=repeats)
        if ended.success.rate < min_success:
            raise AssertionError(f"{ended.success.passed} of {ended.success.runs} runs passed\n{_failures(ended)}")
        if baseline is not None:
            compared = await self.mesh.evaluations.compare(ended.id, baseline)
            if compared.removed or compared.regression_score > max_regression:
                worse = [one.name for one in compared.scenarios if one.regression_score > max_regression]
                raise AssertionError(f"worse than the baseline: {worse}; gone: {list(compared.removed)}")
        return ended


def _failures(ended: Evaluation) -> str:
    lines = (
        f"  {score.name} {score.repetition}: {verdict.type}: {verdict.detail}"
        for score in ended.scores
        for verdict in score.verdicts
        if not verdict.met
    )
    return "\n".join(lines)
