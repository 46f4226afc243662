"""Telling addresses about tasks: in order, each address by itself, a few tries, never to private networks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import aiohttp
from a2a.types import a2a_pb2
from a2a.utils import json_utils, proto_utils
from google.protobuf import json_format

from services.gateway.a2a.work import Update
from services.gateway.bus.sending import require_address
from shared.log import log

_TRIES: Final = 3
_PAUSE_SECONDS: Final = 0.5
_TOKEN: Final = "x-a2a-notification-token"  # noqa: S105 - a header's name
_GOOD: Final = range(200, 300)
_MOST_WAITING: Final = 1_000

Post = tuple[a2a_pb2.TaskPushNotificationConfig, bytes]


class Push:
    """One queue a task and address, so that a slow address delays no other and hears of states in their order."""

    def __init__(self, http: aiohttp.ClientSession, *, private: bool) -> None:
        self._http = http
        self._private = private
        self._queues: dict[tuple[str, str, str], asyncio.Queue[Post]] = {}
        self._workers: set[asyncio.Task[None]] = set()

    def check(self, config: a2a_pb2.TaskPushNotificationConfig) -> None:
        """Raises InvalidArgument for an address that may not be posted to."""
        require_address(config.url, private=self._private)

    async def tell(self, tenant: str, task_id: str, update: Update, addresses: Sequence[bytes]) -> None:
        """Has the update posted to all of the task's addresses; does not wait."""
        if not addresses:
            return
        told = json_format.MessageToDict(proto_utils.to_stream_response(update))
        body = json_utils.dumps(told).encode()
        for address in addresses:
            config = a2a_pb2.TaskPushNotificationConfig.FromString(address)
            self._put((tenant, task_id, config.id), (config, body))

    async def close(self) -> None:
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    def _put(self, key: tuple[str, str, str], post: Post) -> None:
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = asyncio.Queue(_MOST_WAITING)
            worker = asyncio.create_task(self._work(key, queue), name="a2a.push")
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)
        if queue.full():
            log.warning("a2a.push_dropped", task_id=key[1])
            return
        queue.put_nowait(post)

    async def _work(self, key: tuple[str, str, str], queue: asyncio.Queue[Post]) -> None:
        """Posts what is there, then goes."""
        while not queue.empty():
            await self._post(key[1], *queue.get_nowait())
        del self._queues[key]

    async def _post(self, task_id: str, config: a2a_pb2.TaskPushNotificationConfig, body: bytes) -> None:
        error = ""
        for attempt in range(_TRIES):
            if attempt:
                await asyncio.sleep(_PAUSE_SECONDS * 2**attempt)
            error = await self._once(config, body)
            if not error:
                return
        log.info("a2a.push_failed", task_id=task_id, error=error)

    async def _once(self, config: a2a_pb2.TaskPushNotificationConfig, body: bytes) -> str:
        try:
            async with self._http.post(
                config.url, data=body, headers=_headers(config), allow_redirects=False
            ) as answer:
                return "" if answer.status in _GOOD else f"HTTP {answer.status}"
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return f"{type(error).__name__}: {error}"[:500]


def _headers(config: a2a_pb2.TaskPushNotificationConfig) -> dict[str, str]:
    headers = {"content-type": "application/a2a+json", "user-agent": "agentnet-a2a/1"}
    if config.token:
        headers[_TOKEN] = config.token
    if config.authentication.scheme and config.authentication.credentials:
        headers["authorization"] = f"{config.authentication.scheme} {config.authentication.credentials}"
    return headers
