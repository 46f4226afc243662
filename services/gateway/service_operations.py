"""Gateway's services for scripts and operators: one question and its answer, and how this replica is doing."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration

from agentnet.common.v1 import usage_pb2
from agentnet.gateway.v1 import debug_service_pb2, debug_service_pb2_grpc, run_service_pb2, run_service_pb2_grpc
from services.gateway.errors import TenantNotFound
from services.gateway.facades.agents import PREFIX
from services.gateway.facades.ask import Ask, Message, Role, Whole, whole
from services.gateway.facades.router import Answerers
from services.gateway.limits import Rate
from shared import fields
from shared.identity import current

_LONGEST: Final = 32_768
_UNNAMED: Final = re.compile(r"Task-\d+")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class RunService(run_service_pb2_grpc.RunServiceServicer):
    """One question, one answer."""

    def __init__(self, answerers: Answerers) -> None:
        self._answerers = answerers

    async def Run(self, request: run_service_pb2.RunRequest, context: Any) -> run_service_pb2.RunResponse:
        prompt = fields.required(request.prompt, "prompt", limit=_LONGEST)
        model = PREFIX + fields.text(request.agent, "agent", limit=200) if request.agent else request.model
        ask = Ask(model, (Message(Role.USER, (prompt,)),), max_tokens=request.max_output_tokens, whole=True)
        return _answer(await whole(self._answerers.answer(ask)))


class DebugService(debug_service_pb2_grpc.DebugServiceServicer):
    """The state of this replica, for admins of the platform's own tenant."""

    def __init__(self, rates: Mapping[str, Rate], *, platform: str, methods: int) -> None:
        self._rates = rates
        self._platform = platform
        self._methods = methods
        self._began = time.monotonic()

    async def GetGatewayState(
        self, request: debug_service_pb2.GetGatewayStateRequest, context: Any
    ) -> debug_service_pb2.GetGatewayStateResponse:
        if current().tenant_id != self._platform:
            raise TenantNotFound("only admins of the platform's own tenant may look")
        delay = await _loop_delay()
        running = Counter(_UNNAMED.sub("task", task.get_name()) for task in asyncio.all_tasks())
        limits = sorted(self._rates.items())
        return debug_service_pb2.GetGatewayStateResponse(
            version=version("agentnet"),
            uptime=_duration(timedelta(seconds=time.monotonic() - self._began)),
            resident_bytes=_resident_bytes(),
            loop_delay=_duration(delay),
            tasks=[debug_service_pb2.TaskState(name=name, count=count) for name, count in sorted(running.items())],
            limits=[
                debug_service_pb2.LimitState(name=name, per_second=rate.per_second, burst=rate.burst)
                for name, rate in limits
            ],
            methods=self._methods,
        )


def _answer(found: Whole) -> run_service_pb2.RunResponse:
    spent = found.ended.spent
    usage = usage_pb2.Usage(
        input_tokens=spent.input,
        output_tokens=spent.output,
        cached_input_tokens=spent.cached,
        reasoning_tokens=spent.reasoning,
    )
    return run_service_pb2.RunResponse(text=found.text, id=found.began.id, answered_by=found.began.model, usage=usage)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES


async def _loop_delay() -> timedelta:
    began = time.monotonic()
    await asyncio.sleep(0)
    return timedelta(seconds=time.monotonic() - began)


def _duration(value: timedelta) -> Duration:
    made = Duration()
    made.FromTimedelta(value)
    return made
