"""Runs the team on a topic and prints what it says, token by token: `python run.py "your topic"`."""

from __future__ import annotations

import asyncio
import sys

from agentnet.client import AgentNet


async def main(topic: str) -> None:
    async with AgentNet.connect() as mesh:  # the local mesh, or AGENTNET_ADDRESS with AGENTNET_TOKEN
        session = await mesh.sessions.start(topic, agents=["Scout", "Builder"], mode="brainstorm", max_rounds=2)
        async for event in mesh.sessions.watch(session.id):
            if event.HasField("turn_started"):
                print(f"\n\n{event.turn_started.agent}: ", end="")
            print(event.tokens_produced.text, end="", flush=True)
    print()


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:]) or "A database that has one replica"))
