"""exec_mode "retrieval": what memory recalls, for the caller and as the caller."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Final

import grpc
from google.protobuf import json_format

from agentnet.memory.v1 import memory_service_pb2 as pb
from agentnet.memory.v1 import memory_service_pb2_grpc as rpc
from services.tools.answer import Outcome, Printed, Status
from services.tools.executor import Isolation, Work
from shared.rpc.status import from_rpc

NAME: Final = "agentnet.memory.v1.MemoryService"
_UNAVAILABLE: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})


class RetrievalExecutor:
    """Asks memory `query`, with `limit`, `min_score` and `tags` when they are among the arguments."""

    isolation = Isolation.VM
    reaches_out = True

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = rpc.MemoryServiceStub(channel)

    def check_room(self) -> None:
        """A question needs no place of its own."""

    async def execute(self, work: Work, printed: Printed) -> Outcome:
        given = {
            name: work.arguments[name] for name in ("query", "limit", "min_score", "tags") if name in work.arguments
        }
        began = time.monotonic()
        try:
            request = json_format.ParseDict(given | {"agent": work.context.get("agent", "")}, pb.RecallRequest())
            found = await self._stub.Recall(request)
        except json_format.ParseError as error:
            return Outcome(Status.UPSTREAM_REFUSED, message=f"memory cannot be asked so: {error}"[:500])
        except grpc.aio.AioRpcError as error:
            kind = Status.UPSTREAM_ERROR if error.code() in _UNAVAILABLE else Status.UPSTREAM_REFUSED
            return Outcome(kind, message=from_rpc(error).message)
        result = json_format.MessageToDict(found, preserving_proto_field_name=True)
        elapsed = timedelta(seconds=time.monotonic() - began)
        return Outcome(Status.OK, {"matches": result.get("matches", [])}, elapsed=elapsed, isolation="none")
