"""TensorZero's gateway, served by the wheel `tensorzero` of an environment of its own: `PYTHON tensorzero_gateway.py CONFIG`.

Prints where it is once it listens, and serves until it is ended.
"""

from __future__ import annotations

import asyncio
import importlib
import sys


async def main() -> None:
    start = importlib.import_module("tensorzero")._start_http_gateway
    stores = {"clickhouse_url": None, "postgres_url": None, "valkey_url": None}
    gateway = await start(config_file=sys.argv[1], async_setup=True, **stores)
    sys.stdout.write(f"{gateway.base_url}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
