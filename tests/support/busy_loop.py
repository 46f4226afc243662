"""`python -m tests.support.busy_loop STREAMS MESSAGES`: streams from a server whose event loop is busy all the time.

Prints how many turns of the loop it took until all was received. A process of its own: gRPC sets its asyncio side up once.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import uvloop

from shared.rpc.wakeups import never_in_the_way

_WORK_A_TURN = 0.001


async def main(streams: int, messages: int) -> None:
    never_in_the_way()
    server, begin, begun, turns = grpc.aio.server(), asyncio.Event(), 0, 0

    async def stream(_: bytes, context: Any) -> AsyncIterator[bytes]:
        nonlocal begun
        begun += 1
        await begin.wait()
        for _ in range(messages):
            yield b"token"

    def work() -> None:
        nonlocal turns
        turns += 1
        time.sleep(_WORK_A_TURN)
        asyncio.get_running_loop().call_soon(work)

    handlers = {"Stream": grpc.unary_stream_rpc_method_handler(stream)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a.Service", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    received = asyncio.create_task(asyncio.to_thread(receive, port, streams, messages))
    while begun < streams:
        await asyncio.sleep(0.005)
    work()
    begin.set()
    await received
    sys.stdout.write(f"{turns}\n")
    sys.stdout.flush()
    os._exit(0)  # the loop would be busy for ever


def receive(port: int, streams: int, messages: int) -> None:
    """All of it, by gRPC's threads and none of the loop's."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = channel.unary_stream("/a.Service/Stream")
        calls = [stub(b"") for _ in range(streams)]
        found = sum(1 for call in calls for _ in call)
    if found != streams * messages:
        raise RuntimeError(f"{found} messages came")


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
