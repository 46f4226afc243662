"""What nothing made of Envoy and gRPC in Python can go below: the same messages, handled by nobody.

`python -m tests.bench.floors PORT [URL]` serves them: a whole answer is words made beforehand; with a URL the model there is asked for
them over one pooled session, and what it says is not read but for where it begins. No identity, no policy, no money, no log.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import uvloop

from agentnet.common.v1 import usage_pb2
from agentnet.inference.v1 import generation_pb2
from agentnet.inference.v1 import inference_service_pb2 as pb
from agentnet.inference.v1 import inference_service_pb2_grpc as rpc
from shared.rpc.wakeups import never_in_the_way
from tests.bench.streaming import MODEL, Contender, asked_for, envoy_config, process, read
from tests.support.valkey import free_port

EMPTY = "Envoy and an empty handler"
ASKING = "Envoy and a handler that only asks the model"
_ID = "gen_0123456789abcdefghij"
_USAGE = usage_pb2.Usage(input_tokens=5, output_tokens=20)
_COST = usage_pb2.Cost(provider="openai", model=MODEL, micros_usd=13, price_version="0" * 64)
_FINISHED = generation_pb2.GenerationFinished(usage=_USAGE, cost=_COST, attempts=1)


class Empty(rpc.InferenceServiceServicer):
    """A whole answer, and the first token of a stream."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def GenerateText(self, request: pb.GenerateTextRequest, context: Any) -> pb.GenerateTextResponse:
        if self._url:
            async for _ in self._said(request.generation):
                pass
        return pb.GenerateTextResponse(generation_id=_ID, text="word " * 20, finished=_FINISHED)

    async def Generate(  # type: ignore[override] # typed for both kinds of server
        self, request: pb.GenerateRequest, context: Any
    ) -> AsyncIterator[pb.GenerateResponse]:
        begun = False
        async for _ in self._said(request):
            if not begun:
                begun, text = True, generation_pb2.TextProduced(text="word ", token_count=1)
                yield pb.GenerateResponse(event=generation_pb2.GenerationEvent(sequence=1, text=text))

    async def _said(self, request: pb.GenerateRequest) -> AsyncIterator[bytes]:
        prompt = request.messages[0].content[0].text
        body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": prompt}]}
        async with self._session.post(self._url, json=body) as answer:
            async for piece in answer.content.iter_any():
                yield piece


async def main() -> None:
    never_in_the_way()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        server = grpc.aio.server()
        rpc.add_InferenceServiceServicer_to_server(Empty(session, (*sys.argv[2:], "")[0]), server)
        server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
        await server.start()
        await server.wait_for_termination()


async def floors(stack: AsyncExitStack, folder: Path, url: str) -> Sequence[Contender]:
    """Running for as long as the stack is open; their processor time is the handler's and Envoy's."""
    return [await stack.enter_async_context(_floor(folder, *way)) for way in ((EMPTY, ""), (ASKING, url))]


async def asking(stack: AsyncExitStack, folder: Path, url: str) -> Sequence[Contender]:
    """The one of them that has something to stream."""
    return [await stack.enter_async_context(_floor(folder, ASKING, url))]


@asynccontextmanager
async def _floor(folder: Path, name: str, url: str) -> AsyncIterator[Contender]:
    port, edge = free_port(), free_port()
    path = folder / f"envoy-{port}.json"
    path.write_text(json.dumps(envoy_config(edge, port, http2=True)))
    handler = (sys.executable, "-m", "tests.bench.floors", str(port), *([url] if url else ()))
    proxy = ("envoy", "-c", str(path), "--concurrency", "2", "-l", "error", "--use-dynamic-base-id")
    async with (
        process(*handler, port=port) as serving,
        process(*proxy, port=edge) as envoy,
        grpc.aio.insecure_channel(f"127.0.0.1:{edge}") as channel,
    ):
        stub: Any = rpc.InferenceServiceStub(channel)

        async def whole(prompt: str) -> None:
            answer = await stub.GenerateText(pb.GenerateTextRequest(generation=asked_for(prompt)))
            if "word" not in answer.text:
                raise RuntimeError(f"{name} said nothing")

        async def stream(prompt: str) -> tuple[float, int]:
            return await read(stub.Generate(asked_for(prompt)))

        yield Contender(name, stream, whole, lambda: [serving.pid, envoy.pid])


if __name__ == "__main__":
    uvloop.run(main())
