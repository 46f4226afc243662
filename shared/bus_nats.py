"""The bus's way through NATS JetStream, for sites that have it: a stream on disk, subjects named as Redis's streams."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

import nats
from nats.aio.client import Client
from nats.errors import Error
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, StreamConfig

STREAM: Final = "AGENTNET_BUS"
ROOT: Final = "agentnet."
_KEPT: Final = 1_000_000
_PATIENCE_SECONDS: Final = 2.0


class NatsOutlet:
    """Publishes and waits until the stream has it."""

    def __init__(self, jetstream: JetStreamContext) -> None:
        self._jetstream = jetstream

    async def put(self, stream: str, entries: Sequence[Mapping[str, str]]) -> int:
        """How many went, in order; those after them wait for NATS to be back."""
        for sent, entry in enumerate(entries):
            try:
                await self._jetstream.publish(subject(stream), json.dumps(entry).encode(), timeout=_PATIENCE_SECONDS)
            except (Error, TimeoutError, OSError):
                return sent
        return len(entries)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Client]:
    """A connection that comes back by itself for as long as the block runs. Raises OSError if none answers at first."""
    client = await nats.connect(url, max_reconnect_attempts=-1, reconnect_time_wait=0.5, allow_reconnect=True)
    try:
        yield client
    finally:
        await client.close()


async def stream_of(client: Client) -> JetStreamContext:
    """The mesh's stream, made if it is not there: on disk, the oldest go first."""
    jetstream = client.jetstream()
    wanted = StreamConfig(name=STREAM, subjects=[f"{ROOT}>"], max_msgs=_KEPT, discard=DiscardPolicy.OLD)
    await jetstream.add_stream(wanted)
    return jetstream


def subject(stream: str) -> str:
    """`bus:events` is agentnet.bus.events."""
    return ROOT + stream.replace(":", ".")
