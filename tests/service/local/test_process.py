"""A supervised part as it starts, with real processes."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from deploy.local.process import Part, StartFailed, Supervised

REFUSES = "import sys; sys.stderr.write('starting\\nbad setting AGENTNET_X: providers.a: no such key\\n'); sys.exit(2)"


async def never() -> bool:
    return False


def part(script: str) -> Part:
    command = (sys.executable, "-S", "-c", script)
    return Part("inference", command, never, "127.0.0.1:1", start_seconds=60)


async def test_a_part_that_refuses_its_settings_stops_the_start_at_once_with_its_words(tmp_path: Path) -> None:
    supervised = Supervised(part(REFUSES), log=tmp_path / "log", on_change=lambda: None)
    running = asyncio.create_task(supervised.run())
    async with asyncio.timeout(30):
        with pytest.raises(StartFailed, match=r"did not start: bad setting AGENTNET_X: providers\.a: no such"):
            await supervised.ready()
    await supervised.stop()
    await running
