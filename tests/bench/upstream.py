"""A model server that costs next to nothing: OpenAI's stream from bytes made beforehand, at a pace or without one; whole answers too.

`python -m tests.bench.upstream PORT`. The prompt says how: `tokens=250 gap_ms=20`.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time

import uvloop

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
HEAD_OF_DELTA = (
    b'data: {"id":"c","object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":{"content":"'
)
# Two words by turns: some proxies take a hundred equal ones for a model gone astray.
DELTAS = [HEAD_OF_DELTA + word + b'"},"finish_reason":null}]}\n\n' for word in (b"word ", b"more ")]
LAST = (
    b'data: {"id":"c","object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"id":"c","object":"chat.completion.chunk","model":"m","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":%d,"total_tokens":9}}\n\n'
    b"data: [DONE]\n\n"
)
BATCH = 64


def whole(tokens: int) -> bytes:
    """An answer that is not streamed."""
    message = {"role": "assistant", "content": "word " * tokens}
    body = {
        "id": "c", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": tokens, "total_tokens": 5 + tokens},
    }  # fmt: skip
    data = json.dumps(body).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(data), data)


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class Model(asyncio.Protocol):
    """One connection, one request after the other."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.received = b""
        self.work: asyncio.Task[None] | None = None
        self.room = asyncio.Event()
        self.room.set()

    def pause_writing(self) -> None:
        self.room.clear()

    def resume_writing(self) -> None:
        self.room.set()

    def connection_lost(self, _: Exception | None) -> None:
        self.room.set()
        if self.work:
            self.work.cancel()

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
        if not end or not length or len(body) < int(length[1]):
            return
        self.received = b""
        tokens, gap = re.search(rb"tokens=(\d+) gap_ms=(\d+)", body).groups()  # type: ignore[union-attr]
        if re.search(rb'"stream": ?true', body):
            self.work = asyncio.create_task(self.answer(int(tokens), int(gap) / 1000))
        else:
            self.work = asyncio.create_task(self.answer_whole(int(tokens), int(gap) / 1000))

    async def answer_whole(self, tokens: int, gap: float) -> None:
        """Takes as long as the stream of it."""
        if gap:
            await asyncio.sleep((tokens - 1) * gap)
        self.transport.write(whole(tokens))

    async def answer(self, tokens: int, gap: float) -> None:
        self.transport.write(HEAD + chunked(DELTAS[0]))
        left, due = tokens - 1, time.perf_counter()
        while left:
            due += gap
            if gap and (early := due - time.perf_counter()) > 0:  # a token that is late is followed at once
                await asyncio.sleep(early)
            batch = 1 if gap else min(left, BATCH)
            await self.room.wait()
            self.transport.write(chunked(b"".join(DELTAS[(left - at) % 2] for at in range(batch))))
            left -= batch
            if not gap:
                await asyncio.sleep(0)
        self.transport.write(chunked(LAST % tokens) + b"0\r\n\r\n")


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Model, "127.0.0.1", int(sys.argv[1]), backlog=2048)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
