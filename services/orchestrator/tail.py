"""The live end of logs in Redis: written before it is shown, fenced, and woken up for. It can be lost."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Awaitable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import chain, islice
from typing import Any, Final
from weakref import WeakValueDictionary

from redis.asyncio import Redis

from services.orchestrator.errors import LeaseLost
from services.orchestrator.store import Entry, Lease
from services.orchestrator.tail_line import Line
from shared.batches import Batches
from shared.errors import Unavailable
from shared.log import log
from shared.redis import RedisLost

# For each log: refuses a lower fence, appends what is new, and wakes the readers: one step, so that no writer that lost
# its lease can come between. A new owner that could not take over before starts the stream anew. What is there already
# is kept, since the client tries a call twice. KEYS: stream and fence of each log. ARGV: seconds to live, who writes,
# then of each log: fence, first sequence to keep, how many events, 1 if the writer listens to the log itself (which
# needs no telling), sequence and bytes of each event. Answers with how many replicas listen, -1 for a lower fence.
_APPEND: Final = """
local answers, at = {}, 3
for log = 1, #KEYS, 2 do
  local stream, fence, keep, count = KEYS[log], tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local held = tonumber(redis.call('GET', KEYS[log + 1]) or '0')
  if fence < held then
    answers[#answers + 1] = -1
  else
    if fence > held then redis.call('DEL', stream) end
    redis.call('SET', KEYS[log + 1], ARGV[at], 'EX', ARGV[1])
    for i = at + 4, at + 2 * count + 2, 2 do
      redis.pcall('XADD', stream, ARGV[i] .. '-0', 'e', ARGV[i + 1])
    end
    if keep > 0 then redis.call('XTRIM', stream, 'MINID', keep) end
    redis.call('EXPIRE', stream, ARGV[1])
    local readers = redis.call('PUBSUB', 'NUMSUB', stream)[2]
    if readers > tonumber(ARGV[at + 3]) then redis.call('PUBLISH', stream, ARGV[2]) end
    answers[#answers + 1] = readers
  end
  at = at + 4 + 2 * count
end
return answers
"""

# Raises the fence, then keeps what follows the committed log without a gap: what lies beyond a gap was never read and
# will be written anew. KEYS: stream, fence. ARGV: fence, seconds to live, first sequence.
_TAKE_OVER: Final = """
local held = tonumber(redis.call('GET', KEYS[2]) or '0')
if tonumber(ARGV[1]) < held then return false end
redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[2])
local found = redis.call('XRANGE', KEYS[1], ARGV[3] .. '-0', '+')
redis.call('DEL', KEYS[1])
local kept = {}
local expected = tonumber(ARGV[3])
for _, entry in ipairs(found) do
  if entry[1] ~= string.format('%d-0', expected) then break end
  redis.call('XADD', KEYS[1], entry[1], 'e', entry[2][2])
  kept[#kept + 1] = entry[2][2]
  expected = expected + 1
end
if #kept > 0 then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
return kept
"""

# Wakes the readers of many logs. ARGV: who writes, then of each its stream's name, which is a channel too and no key
# here, and 1 if the writer listens to it itself.
_PUBLISH: Final = """
for i = 2, #ARGV, 2 do
  local readers = redis.call('PUBSUB', 'NUMSUB', ARGV[i])[2]
  if readers > tonumber(ARGV[i + 1]) then redis.call('PUBLISH', ARGV[i], ARGV[1]) end
end
"""
# Readers of committed logs are woken at most this often: what is committed meanwhile they find together.
_WAKE_SECONDS: Final = 0.005
# Here replicas tell each other whose log somebody begins to read.
_CAME: Final = "log:came"
_PAGE: Final = 500
# Logs in one call: as many as keep it short for those who read meanwhile.
_TOGETHER: Final = 64


@dataclass(frozen=True, slots=True)
class _Append:
    """Events of one log on their way to it."""

    lease: Lease
    entries: Sequence[Entry]
    keep_from: int
    done: asyncio.Future[int] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def keys(self) -> tuple[str, str]:
        key = _key(self.lease.tenant, self.lease.session_id)
        return key, f"{key}:fence"

    def arguments(self, *, heard_here: bool) -> list[int | bytes]:
        numbered = [part for entry in self.entries for part in (entry.sequence, entry.payload)]
        return [self.lease.fence, self.keep_from, len(self.entries), int(heard_here), *numbered]


@dataclass(slots=True)
class _Read:
    """A log that is read here: its readers, whether Redis tells of it here, and what this replica wrote to it last,
    which they need not ask for.
    """

    readers: set[asyncio.Event] = field(default_factory=set)
    listening: bool = False
    fence: int = 0
    written: deque[Entry] = field(default_factory=lambda: deque(maxlen=_PAGE))

    def wrote(self, fence: int, entries: Sequence[Entry]) -> None:
        """Keeps what follows what is kept; of what was shown before it was committed, the rest."""
        last = self.written[-1].sequence if self.written else 0
        if self.fence != fence or entries[0].sequence > last + 1:
            self.written.clear()
            last = 0
        self.fence = fence
        self.written.extend(entry for entry in entries if entry.sequence > last)

    def following(self, after: int) -> list[Entry]:
        if not self.written or not self.written[0].sequence <= after + 1 <= self.written[-1].sequence:
            return []
        return list(islice(self.written, after + 1 - self.written[0].sequence, None))

    def wake(self) -> None:
        for event in self.readers:
            event.set()


class RedisTail:
    """Live events of all sessions, and who waits for them."""

    def __init__(self, redis: Redis, *, ttl: timedelta) -> None:
        self._redis = redis
        self._name = secrets.token_hex(6).encode()
        self._ttl = int(ttl.total_seconds())
        self._append = Line(redis, _APPEND)
        self._take_over = redis.register_script(_TAKE_OVER)
        self._publish = Line(redis, _PUBLISH)
        self._listening = Batches(self._count)
        self._grown: set[str] = set()
        self._waking = False
        self._appends: list[_Append] = []
        self._writers: set[asyncio.Task[None]] = set()
        self._writing = False
        self._read_here: dict[str, _Read] = {}
        self._came: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()
        self._pubsub: Any = None
        self._changes: set[asyncio.Task[None]] = set()

    async def append(self, lease: Lease, entries: Sequence[Entry], *, keep_from: int = 0) -> int | None:
        append = _Append(lease, entries, max(keep_from, 0))
        self._appends.append(append)
        if not self._writing:
            self._writing = True
            writer = asyncio.create_task(self._write(), name="tail")
            self._writers.add(writer)
            writer.add_done_callback(self._writers.discard)
        readers = await append.done
        return None if readers < 0 else readers

    async def _write(self) -> None:
        """Writes what waits, all that came together in one call."""
        try:
            while self._appends:
                together, self._appends = self._appends[:_TOGETHER], self._appends[_TOGETHER:]
                await self._together(together)
        finally:
            self._writing = (
                False  # at once, and not when the task is done: what comes in between would wait for another
            )

    async def _together(self, together: Sequence[_Append]) -> None:
        answers = [0] * len(together)
        try:
            keys = [key for append in together for key in append.keys]
            arguments = [append.arguments(heard_here=self._hears(append.keys[0])) for append in together]
            answers = await self._append.call(keys, [self._ttl, self._name, *chain.from_iterable(arguments)])
            answers = [self._written(append, woken) for append, woken in zip(together, answers, strict=True)]
        except RedisLost as error:
            log.warning("tail.lost", error=type(error).__name__)
        finally:
            for append, readers in zip(together, answers, strict=True):
                if not append.done.done():
                    append.done.set_result(readers)

    def _written(self, append: _Append, woken: int) -> int:
        """Shows those who read here what Redis has; tells how many replicas read, and does not wait for this one's own
        subscription.
        """
        read = self._read_here.get(append.keys[0])
        if read is None or woken < 0:
            return woken
        read.wrote(append.lease.fence, append.entries)
        read.wake()
        return max(woken, 1)

    def _hears(self, key: str) -> bool:
        return key in self._read_here and self._read_here[key].listening

    async def readers(self, tenant: str, session_id: str) -> int:
        key = _key(tenant, session_id)
        if key in self._read_here:
            return 1
        return await self._listening.ask(key)

    async def _count(self, keys: Sequence[str]) -> Sequence[int]:
        try:
            counts = dict(await self._redis.pubsub_numsub(*keys))
        except RedisLost:
            return [0] * len(keys)
        return [int(counts[key.encode()]) for key in keys]

    def wake(self, lease: Lease, committed: Sequence[Entry]) -> None:
        key = _key(lease.tenant, lease.session_id)
        if key in self._read_here:
            self._read_here[key].wrote(lease.fence, committed)
            self._read_here[key].wake()
        self._tell(key)

    def _tell(self, key: str) -> None:
        """Readers elsewhere that a log has grown."""
        self._grown.add(key)
        if not self._waking:
            self._waking = True
            self._soon(self._wake_readers())

    async def _wake_readers(self) -> None:
        try:
            while grown := sorted(self._grown):
                self._grown.clear()
                told = [part for key in grown for part in (key, int(self._hears(key)))]
                await self._publish.call((), (self._name, *told))
                await asyncio.sleep(_WAKE_SECONDS)
        except RedisLost as error:
            log.warning("tail.lost", error=type(error).__name__)
        finally:
            self._waking = False

    async def take_over(self, lease: Lease, after: int) -> Sequence[Entry]:
        key = _key(lease.tenant, lease.session_id)
        try:
            kept: Any = await self._take_over(keys=[key, f"{key}:fence"], args=[lease.fence, self._ttl, after + 1])
        except RedisLost as error:
            log.warning("tail.lost", error=type(error).__name__)
            return []
        if kept is None:
            raise LeaseLost("another replica drives the session", session_id=lease.session_id)
        return [Entry(after + place, "", payload) for place, payload in enumerate(kept, start=1)]

    async def read(self, tenant: str, session_id: str, after: int) -> Sequence[Entry]:
        here = self._read_here.get(_key(tenant, session_id))
        if here is not None and (written := here.following(after)):
            return written
        try:
            found: Any = await self._redis.xrange(_key(tenant, session_id), min=f"{after + 1}-0", count=_PAGE)
        except RedisLost:
            return []
        entries: list[Entry] = []
        for place, fields in found:
            sequence = int(place.split(b"-")[0])
            if sequence != after + 1 + len(entries):
                break
            entries.append(Entry(sequence, "", fields[b"e"]))
        return entries

    async def holds(self, tenant: str, session_id: str, sequence: int) -> bool:
        place = f"{sequence}-0"
        try:
            return bool(await self._redis.xrange(_key(tenant, session_id), min=place, max=place))
        except RedisLost as error:
            raise Unavailable("the live tail does not answer", dependency="redis") from error

    def reader_came(self, tenant: str, session_id: str) -> asyncio.Event:
        return self._came.setdefault(_key(tenant, session_id), asyncio.Event())

    @contextmanager
    def woken(self, tenant: str, session_id: str) -> Iterator[asyncio.Event]:
        key, event = _key(tenant, session_id), asyncio.Event()
        read = self._read_here.setdefault(key, _Read())
        read.readers.add(event)
        self._told(key)
        if self._pubsub and not read.listening:
            self._change(self._pubsub.subscribe(key))  # then the writer is told, who may ask at once who listens
        else:
            self._change(self._redis.publish(_CAME, key))
        try:
            yield event
        finally:
            read.readers.discard(event)
            if not read.readers:
                del self._read_here[key]
                if self._pubsub:
                    self._change(self._pubsub.unsubscribe(key))

    async def listen(self) -> None:
        """Turns wake-ups into events: one connection for all readers of this replica, for as long as it holds."""
        async with self._redis.pubsub() as pubsub:
            await pubsub.subscribe(_CAME)
            self._pubsub = pubsub  # from here on who begins to read subscribes by itself
            try:
                if self._read_here:
                    await pubsub.subscribe(*self._read_here)
                while True:
                    message = await pubsub.get_message(timeout=5)
                    if message and message["type"] == "message":
                        self._heard(message["channel"].decode(), message["data"])
                    elif message:
                        self._changed(message["channel"].decode(), listening=message["type"] == "subscribe")
            finally:
                self._pubsub = None
                for read in self._read_here.values():
                    read.listening = False

    def _changed(self, key: str, *, listening: bool) -> None:
        """Redis tells of a log here from now on, or does so no more."""
        if key in self._read_here:
            self._read_here[key].listening = listening
            if listening:
                self._change(self._redis.publish(_CAME, key))

    def _heard(self, channel: str, told: bytes) -> None:
        """A log grew, or somebody begins to read one. What this replica itself wrote its readers have.

        Who begins to read is told once that the log grew, since its writer was silent while nobody read.
        """
        if channel == _CAME:
            self._told(key := told.decode())
            if key in self._came:
                self._tell(key)
        elif told != self._name and channel in self._read_here:
            self._read_here[channel].written.clear()
            self._read_here[channel].wake()

    def _told(self, key: str) -> None:
        """The writer of a log, when it is here, that somebody begins to read it."""
        if (came := self._came.get(key)) is not None:
            came.set()

    def _change(self, change: Awaitable[Any]) -> None:
        """Subscriptions change beside the reader that wants it; losing one is covered by polling."""
        self._soon(_tried(change))

    def _soon(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)


async def _tried(change: Awaitable[Any]) -> None:
    try:
        await change
    except RedisLost:
        return


def _key(tenant: str, session_id: str) -> str:
    return f"log:{tenant}:{session_id}"
