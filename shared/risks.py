"""What came true of the risks in policy's register, told by the services that see it: beside the work, and never at its
cost.

What repeats itself is told once in a while. What cannot be told waits, as much as fits and for as long as it is news;
then it goes, and is counted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import grpc

from agentnet.policy.v1 import risk_service_pb2 as pb
from agentnet.policy.v1.risk_service_pb2_grpc import RiskServiceStub
from shared import fields, identity
from shared.clock import Clock
from shared.errors import MeshError
from shared.identity import CredentialKind, Principal, Signer
from shared.log import log
from shared.rpc.status import from_rpc
from shared.tasks import supervised
from shared.telemetry import meter

NAME: Final = "agentnet.policy.v1.RiskService"
PROVIDER_OUTAGE: Final = "provider_outage"
TOKEN_COST_SPIKE: Final = "token_cost_spike"  # noqa: S105 - no secret
MEMORY_BLOAT: Final = "memory_bloat"
TOOL_INJECTION: Final = "tool_injection"
CONVERGENCE_STALL: Final = "convergence_stall"

QUIET: Final = timedelta(seconds=10)
_NEWS: Final = timedelta(minutes=5)
_WAITING: Final = 1_000
_KNOWN: Final = 10_000
_GRACE_SECONDS: Final = 2.0
_TTL: Final = timedelta(minutes=5)
_LONGEST: Final = 64
_told = meter.create_counter("risk_events_total", description="of this service: reported, repeated, dropped, refused")


@dataclass(frozen=True, slots=True)
class Happened:
    """A risk that came true: how much of it, and by whom where that is known."""

    risk: str
    value: float = 1
    agent: str = ""
    session_id: str = ""
    detail: Mapping[str, str] = field(default_factory=dict)


# Takes what happened in a tenant. What happens again about the same thing is the same event.
Tell = Callable[[str, Happened, str], None]
# Tells policy. Raises the service's MeshError.
Send = Callable[[str, Happened], Awaitable[None]]


def untold(_tenant: str, _happened: Happened, _about: str) -> None:
    """Where nobody is told."""


class RiskEvents:
    """Those of one process: at most one about the same thing in `quiet`."""

    def __init__(self, send: Send, clock: Clock, *, quiet: timedelta = QUIET, waiting: int = _WAITING) -> None:
        self._send = send
        self._clock = clock
        self._quiet = quiet
        self._most = waiting
        self._waiting: deque[tuple[timedelta, str, Happened]] = deque()
        self._last: dict[tuple[str, str, str], timedelta] = {}
        self._arrived = asyncio.Event()
        self._sending = asyncio.Lock()

    def tell(self, tenant: str, happened: Happened, about: str) -> None:
        """Takes it; returns at once, whatever becomes of it."""
        now, key = self._clock.monotonic(), (tenant, happened.risk, about)
        last = self._last.get(key)
        if last is not None and now - last < self._quiet:
            _told.add(1, {"outcome": "repeated"})
            return
        if len(self._last) >= _KNOWN:
            self._last.clear()
        self._last[key] = now
        if len(self._waiting) >= self._most:
            self._waiting.popleft()
            _told.add(1, {"outcome": "dropped"})
        self._waiting.append((now, tenant, happened))
        self._arrived.set()

    async def run(self) -> None:
        """Tells what happened, for as long as the service runs. Raises MeshError while policy is away."""
        while True:
            await self._arrived.wait()
            await self._tell()
            self._arrived.clear()

    async def flush(self) -> None:
        """Tells what is left, if policy answers in time; what it does not hear now is lost."""
        try:
            async with asyncio.timeout(_GRACE_SECONDS):
                await self._tell()
        except (MeshError, TimeoutError) as error:
            log.warning("risks.not_told", events=len(self._waiting), why=type(error).__name__)
            _told.add(len(self._waiting), {"outcome": "dropped"})
            self._waiting.clear()

    async def _tell(self) -> None:
        async with self._sending:
            while self._waiting:
                at, tenant, happened = first = self._waiting[0]
                outcome = "dropped"
                if self._clock.monotonic() - at < _NEWS:
                    outcome = await self._sent(tenant, happened)
                if self._waiting and self._waiting[0] is first:
                    self._waiting.popleft()
                    _told.add(1, {"outcome": outcome})

    async def _sent(self, tenant: str, happened: Happened) -> str:
        try:
            await self._send(tenant, happened)
        except MeshError as error:
            if error.retryable:
                raise
            log.warning("risks.refused", risk=happened.risk, tenant=tenant, why=error.message)
            return "refused"
        return "reported"


@asynccontextmanager
async def reporting(
    channel: grpc.aio.Channel, signer: Signer, service: str, clock: Clock, *, quiet: timedelta = QUIET
) -> AsyncIterator[RiskEvents]:
    """A service's events, told to policy over the mesh while the block runs; what waits at its end is told then."""
    events = RiskEvents(reported(channel, signer, service), clock, quiet=quiet)
    async with supervised("risks", events.run):
        try:
            yield events
        finally:
            await events.flush()


def reported(channel: grpc.aio.Channel, signer: Signer, service: str) -> Send:
    """RecordRiskEvent over the mesh, in the name of a service and in the tenant it happened to."""
    stub = RiskServiceStub(channel)

    async def send(tenant: str, happened: Happened) -> None:
        caller = Principal(tenant, service, frozenset({"operator"}), CredentialKind.SERVICE)
        request = pb.RecordRiskEventRequest(
            risk=happened.risk,
            value=happened.value,
            agent=happened.agent.partition("@")[0][:_LONGEST],
            session_id=happened.session_id[:_LONGEST],
            detail=fields.struct({"service": service, **happened.detail}),
        )
        try:
            await stub.RecordRiskEvent(request, metadata=((identity.HEADER, signer.sign(caller, _TTL)),))
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error) from None

    return send
