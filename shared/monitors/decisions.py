"""What an enforcement point decided, told to policy: beside the work, many at a time, and never at its cost.

Policy says by tenant which share it wants (`TenantBundles.reported`). What cannot be told waits, as much as fits; then
the oldest goes, and is counted.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final
from zlib import crc32

import grpc
from opentelemetry.metrics import Counter

from agentnet.policy.v1 import bundle_pb2
from agentnet.policy.v1 import simulation_service_pb2 as pb
from agentnet.policy.v1.simulation_service_pb2_grpc import SimulationServiceStub
from shared import fields, identity
from shared.clock import Clock
from shared.errors import MeshError
from shared.identity import CredentialKind, Principal, Signer
from shared.ids import Ids
from shared.log import log
from shared.monitors.rules import Action, Target, Verdict
from shared.monitors.stream import Ruling
from shared.rpc.status import from_rpc
from shared.tasks import supervised
from shared.telemetry import meter

NAME: Final = "agentnet.policy.v1.SimulationService"
LONGEST: Final = 65_536
_AT_ONCE: Final = 100
_CHARACTERS_AT_ONCE: Final = 512 * 1024
_NAMED: Final = 64
_TTL: Final = timedelta(minutes=5)
_SIGNED_SECONDS: Final = _TTL.total_seconds() / 2
_TARGETS: Final = {
    Target.PROMPT: bundle_pb2.RULE_TARGET_PROMPT,
    Target.OUTPUT: bundle_pb2.RULE_TARGET_OUTPUT,
    Target.TOOL_ARGUMENTS: bundle_pb2.RULE_TARGET_TOOL_ARGUMENTS,
}
_told = meter.create_counter(
    "policy_decisions_total", description="of this enforcement point: reported, dropped, refused"
)


@dataclass(frozen=True, slots=True)
class Decided:
    """One judgement: the text as rules saw it, and how it ended. Without an id it gets one when it is noted."""

    target: Target
    text: str
    allowed: bool
    unchanged: bool
    rules: tuple[str, ...] = ()
    bundles: tuple[str, ...] = ()
    agent: str = ""
    session_id: str = ""
    tool: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, float] = field(default_factory=dict)
    truncated: bool = False
    id: str = ""
    at: datetime | None = None
    verdicts: tuple[Verdict, ...] = ()

    @classmethod
    def by(cls, ruling: Ruling, target: Target, text: str, **more: Any) -> Decided:
        """What a ruling over the whole text came to."""
        return cls(target, text, not ruling.blocked, ruling.text == text, named(ruling.verdicts), **more)


Note = Callable[[str, Decided], None]
# Tells policy what was decided in a tenant. Raises the service's MeshError.
Send = Callable[[str, Sequence[Decided]], Awaitable[None]]


def unnoted(_tenant: str, _decided: Decided) -> None:
    """Where nobody is told."""


def named(verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    """The rules that matched, each once."""
    return tuple(dict.fromkeys(verdict.rule.name for verdict in verdicts))[:_NAMED]


class Heard:
    """One text that flows past its rules, as far as it is kept."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.length = 0
        self.stopped = False
        self._pieces: list[str] = []
        self._verdicts: list[Verdict] = []
        self._held = 0
        self._changed = False

    def saw(self, piece: str, ruling: Ruling) -> Ruling:
        """Takes a piece and what became of it; the ruling."""
        if self.length < LONGEST:
            self._pieces.append(piece)
        self.length += len(piece)
        if ruling.verdicts:
            self._verdicts += ruling.verdicts
            self._changed |= any(verdict.action is Action.REDACT for verdict in ruling.verdicts)
        self.stopped |= ruling.blocked
        return ruling

    def decided(self, **more: Any) -> Decided:
        """What it came to."""
        unchanged, cut = not (self._changed or self.stopped), self.length > LONGEST
        return Decided(
            self.target,
            "".join(self._pieces),
            not self.stopped,
            unchanged,
            named(self._verdicts),
            truncated=cut,
            **more,
        )


@dataclass(frozen=True, slots=True)
class Room:
    """How much waits, and for how long company is waited for."""

    decisions: int = 2_000
    characters: int = 8 * 1024 * 1024
    gather: timedelta = timedelta(milliseconds=200)
    grace: timedelta = timedelta(seconds=2)


class Decisions:
    """Those of one process. `share` says how much of a tenant's is wanted."""

    def __init__(
        self,
        share: Callable[[str], float],
        send: Send,
        *,
        clock: Clock,
        ids: Ids,
        room: Room | None = None,
        counter: Counter | None = None,
    ) -> None:
        self._share = share
        self._told = counter or _told
        self._send = send
        self._clock = clock
        self._ids = ids
        self._room = room or Room()
        self._waiting: deque[tuple[str, Decided]] = deque()
        self._characters = 0
        self._arrived = asyncio.Event()
        self._sending = asyncio.Lock()

    def wants(self, tenant: str, whose: str) -> bool:
        """Whether policy wants what belongs to a session or generation: all of it, or nothing."""
        share = self._share(tenant)
        return share >= 1 or (share > 0 and crc32(whose.encode()) < share * 2**32)

    def note(self, tenant: str, decided: Decided) -> None:
        """Takes a decision that is wanted; returns at once, whatever becomes of it."""
        name = decided.id or self._ids.new("dec")
        if self.wants(tenant, decided.session_id or name):
            self.keep(tenant, replace(decided, id=name))

    def keep(self, tenant: str, decided: Decided) -> None:
        """The same for one that was asked about with `wants`."""
        cut = _cut(replace(decided, at=decided.at or self._clock.now()))
        self._waiting.append((tenant, cut))
        self._characters += len(cut.text)
        self._make_room()
        self._arrived.set()

    async def run(self) -> None:
        """Tells what is noted, for as long as the service runs. Raises MeshError while policy is away."""
        while True:
            await self._arrived.wait()
            await asyncio.sleep(self._room.gather.total_seconds())
            self._arrived.clear()
            await self._tell()

    async def flush(self) -> None:
        """Tells what is left, if policy answers in time; what it does not hear now is lost."""
        try:
            async with asyncio.timeout(self._room.grace.total_seconds()):
                await self._tell()
        except (MeshError, TimeoutError) as error:
            self._lost(len(self._waiting), type(error).__name__)
            self._waiting.clear()

    async def _tell(self) -> None:
        async with self._sending:
            while self._waiting:
                tenant, batch = self._taken()
                try:
                    await self._send(tenant, batch)
                    self._told.add(len(batch), {"outcome": "reported"})
                except asyncio.CancelledError:
                    self._back(tenant, batch)
                    raise
                except MeshError as error:
                    if error.retryable:
                        self._back(tenant, batch)
                        raise
                    self._lost(len(batch), error.reason_name, outcome="refused")

    def _taken(self) -> tuple[str, list[Decided]]:
        """The oldest and what goes with it: the same tenant's, as much as one message holds."""
        tenant, batch, left, size = self._waiting[0][0], list[Decided](), deque[tuple[str, Decided]](), 0
        for whose, one in self._waiting:
            fits = len(batch) < _AT_ONCE and (not batch or size + len(one.text) <= _CHARACTERS_AT_ONCE)
            if whose == tenant and fits:
                batch.append(one)
                size += len(one.text)
            else:
                left.append((whose, one))
        self._waiting = left
        self._characters -= size
        return tenant, batch

    def _back(self, tenant: str, batch: Sequence[Decided]) -> None:
        self._waiting.extendleft((tenant, one) for one in reversed(batch))
        self._characters += sum(len(one.text) for one in batch)
        self._make_room()
        self._arrived.set()

    def _make_room(self) -> None:
        dropped = 0
        while len(self._waiting) > self._room.decisions or self._characters > self._room.characters:
            self._characters -= len(self._waiting.popleft()[1].text)
            dropped += 1
        if dropped:
            self._told.add(dropped, {"outcome": "dropped"})

    def _lost(self, count: int, why: str, *, outcome: str = "dropped") -> None:
        self._told.add(count, {"outcome": outcome})
        log.warning("decisions.not_recorded", decisions=count, why=why)


@asynccontextmanager
async def reporting(
    share: Callable[[str], float],
    channel: grpc.aio.Channel,
    signer: Signer,
    service: str,
    *,
    clock: Clock,
    ids: Ids,
    room: Room | None = None,
) -> AsyncIterator[Decisions]:
    """A service's decisions, told to policy over the mesh while the block runs; what waits at its end is told then."""
    decisions = Decisions(share, reported(channel, signer, service), clock=clock, ids=ids, room=room)
    async with telling("decisions", decisions):
        yield decisions


@asynccontextmanager
async def telling(what: str, decisions: Decisions) -> AsyncIterator[None]:
    """Tells while the block runs; what waits at its end is told then."""
    async with supervised(what, decisions.run):
        try:
            yield
        finally:
            await decisions.flush()


def reported(channel: grpc.aio.Channel, signer: Signer, service: str) -> Send:
    """RecordDecisions over the mesh, in the name of a service and in the tenant of those who were judged."""
    stub = SimulationServiceStub(channel)

    @lru_cache(maxsize=1024)
    def signed(tenant: str, _while: int) -> str:
        return signer.sign(Principal(tenant, service, frozenset({"operator"}), CredentialKind.SERVICE), _TTL)

    async def send(tenant: str, decisions: Sequence[Decided]) -> None:
        metadata = ((identity.HEADER, signed(tenant, int(time.monotonic() / _SIGNED_SECONDS))),)
        request = pb.RecordDecisionsRequest(decisions=map(_message, decisions))
        try:
            await stub.RecordDecisions(request, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error) from None

    return send


def _cut(decided: Decided) -> Decided:
    """As much as is kept of it: the end of a prompt, where what is new stands, the beginning of everything else. A call
    whose arguments are cut is a text like any other.
    """
    text = decided.text.replace("\x00", "\ufffd").encode(errors="replace").decode()
    if len(text) > LONGEST:
        text = text[-LONGEST:] if decided.target is Target.PROMPT else text[:LONGEST]
        return replace(decided, text=text, truncated=True, tool="", arguments={})
    return replace(decided, text=text)


def _message(one: Decided) -> pb.DecisionInput:
    message = pb.DecisionInput(
        id=one.id,
        target=_TARGETS[one.target],
        text=one.text,
        facts=one.facts,
        tool=one.tool,
        arguments=fields.struct(dict(one.arguments)) if one.arguments else None,
        agent=one.agent.partition("@")[0][:64],
        session_id=one.session_id[:64],
        allowed=one.allowed,
        unchanged=one.unchanged,
        truncated=one.truncated,
        bundles=one.bundles[:_NAMED],
        rules=one.rules[:_NAMED],
    )
    if one.at:
        message.create_time.FromDatetime(one.at)
    return message
