"""What memory asks of storage."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, NamedTuple, Protocol, TypeAlias

from services.memory.bounds import Kept
from shared.paging import Page

TURNS_HELD: Final = 50
# What embedding models in use make; a vector of another width is a mistake.
WIDTHS: Final = (256, 384, 512, 768, 1024, 1536, 2048, 2560, 3072, 3584, 4096)

# Before everything: by then nothing has ended.
NEVER: Final = datetime.min.replace(tzinfo=UTC)

# What a caller gave comes as an array of 32-bit floats: making tuples of a batch costs more than storing it.
Vector: TypeAlias = "tuple[float, ...] | array[float]"


class MemoryType(StrEnum):
    EPISODIC = "episodic"
    SEMANTIC = "semantic"
    LONG_TERM = "long_term"


class Embedding(NamedTuple):
    """What a model makes of a text: its vector, and those of its tokens, empty where it has none."""

    vector: Vector
    tokens: bytes = b""


class Memory(NamedTuple):
    """One memory. `content_hash` keeps the same content of the same agent, type and set from being stored twice.
    A search makes two hundred, which as frozen dataclasses takes six times as long.

    `place` is the order of storing, given by the store; 0 before.
    """

    id: str
    content: str
    content_hash: bytes
    memory_type: MemoryType
    agent: str
    session_id: str
    turn_id: str
    tags: tuple[str, ...]
    metadata: Mapping[str, object]
    importance: float
    created_at: datetime
    expires_at: datetime | None = None
    updated_at: datetime | None = None
    policy_version: str = ""
    embedding_model: str = ""
    embedding_set: str = ""
    place: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """A memory on its way into the store, with its vector and those of its tokens."""

    memory: Memory
    vector: Vector
    tokens: bytes = b""


class Found(NamedTuple):
    """A memory and how near it is: 0 when no vector was compared."""

    memory: Memory
    cosine: float


@dataclass(frozen=True, slots=True)
class Corpus:
    """What BM25 must know of a tenant's memories: how many there are, how long they are, how many hold each word."""

    memories: int
    average_length: float
    holding: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which memories. Empty and None mean all; `agent` means that agent's and, unless `own_only`, those of every agent.

    `as_of` hides what was stored later and shows what has ended since.
    """

    agent: str = ""
    types: tuple[MemoryType, ...] = ()
    tags: tuple[str, ...] = ()
    start: datetime | None = None
    end: datetime | None = None
    session: str = ""
    not_session: str = ""
    as_of: datetime | None = None
    min_importance: float = 0.0
    turn: str = ""
    policy_version: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    embedding_set: str = ""
    own_only: bool = False


@dataclass(frozen=True, slots=True)
class Probe:
    """What to look for: a vector (empty: not by meaning), words (empty: not by words), how many of each, and how many
    neighbours on each side. `model` made the vector (empty: nobody knows): those of other models mean something else.
    `tokens`: whether the vectors of the tokens are wanted too.
    """

    vector: Vector
    words: tuple[str, ...]
    limit: int
    reach: int
    model: str = ""
    tokens: bool = False


class Worded(NamedTuple):
    """The places of the memories that words find, best first, and what BM25 must know of these words."""

    places: Sequence[int]
    corpus: Corpus


@dataclass(frozen=True, slots=True)
class Gathered:
    """The pool with every cosine known, and by place what stands around its first ones in their sessions, as
    (offset, memory): -1 came just before. By place the vectors of the tokens of all these, where the probe's model made
    some and they were wanted.
    """

    pool: Sequence[Found]
    beside: Mapping[int, Sequence[tuple[int, Found]]]
    corpus: Corpus
    tokens: Mapping[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ShortTermTurn:
    """One turn of a session's tail."""

    turn_id: str
    agent: str
    content: str
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """A turn, in which session; whether it is to become an episode too."""

    session_id: str
    turn: ShortTermTurn
    remember: bool = False


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a session's older turns said, shorter, and how many they were."""

    summary: str = ""
    summarized_turns: int = 0


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof that something was deleted."""

    id: str
    subject_id: str
    content_sha256: bytes
    requested_by: str
    deleted_at: datetime


@dataclass(frozen=True, slots=True)
class Usage:
    """What a tenant keeps of one type, and the bounds set for it; 0 is no bound."""

    memory_type: MemoryType
    memories: int
    characters: int
    oldest: datetime | None
    max_memories: int = 0
    max_days: int = 0


class MemoryStore(Protocol):
    """Where memories are kept, tenant by tenant. What has ended is returned only where `as_of` asks for that time."""

    async def add(self, tenant: str, entries: Sequence[Entry], *, now: datetime = NEVER) -> Sequence[Memory]:
        """Stores all or none. Where the same content is there already, that memory is returned in its place; if it has
        ended by `now`, it makes room.

        Raises EmbeddingWidthInvalid when there is no table for a vector.
        """

    async def change(self, tenant: str, entry: Entry, *, before: Memory) -> Memory | None:
        """Writes a changed memory over `before`; None when that is gone.

        Raises MemoryExists when another memory has the new content.
        """

    async def revector(self, tenant: str, entries: Sequence[Entry]) -> int:
        """Gives memories other vectors, of any one width, and the model that made them. Those that were changed since
        they were read stay as they are. Returns how many it did.
        """

    async def find(self, tenant: str, memory_id: str, *, now: datetime) -> Memory | None:
        """One memory."""

    async def vector(self, tenant: str, memory_id: str) -> Vector:
        """A memory's vector as it is kept, in half precision; empty when there is no such memory."""

    async def tokens(self, tenant: str, memory_id: str) -> bytes:
        """The vectors of a memory's tokens; empty when it has none."""

    async def forget(self, tenant: str, memories: Sequence[Memory], receipts: Sequence[Receipt]) -> int:
        """Deletes memories and keeps the receipts of those that were there, all or none. Returns how many were."""

    async def every(
        self, tenant: str, chosen: Filter, *, now: datetime, newest_first: bool, page: Page
    ) -> Sequence[Memory]:
        """By time, at most `page.size` + 1. The cursor is (time, id) of the last one seen."""

    async def nearest(
        self, tenant: str, vector: Vector, chosen: Filter, *, now: datetime, limit: int, model: str = ""
    ) -> Sequence[Found]:
        """By cosine similarity, best first, among memories of the vector's width whose vectors this model made, or that
        were given; model empty: all.
        """

    async def worded(self, tenant: str, words: Sequence[str], chosen: Filter, *, now: datetime, limit: int) -> Worded:
        """The best by words, which can be looked for before a question's vector is known."""

    async def gather(
        self, tenant: str, probe: Probe, chosen: Filter, *, now: datetime, worded: Worded | None = None
    ) -> Gathered:
        """What ranking needs: the nearest by meaning, the best by words, and what stands around the first of both.
        `worded`: what the probe's words found already.
        """

    async def similar_words(self, tenant: str, word: str) -> Sequence[str]:
        """Words of the tenant's memories that begin with the same two letters, at most 500."""

    async def tend(self, tenant: str, *, busy: Callable[[], bool]) -> int:
        """Brings the index up to what was stored of late, where that is much; while it is busy only what is very much.
        Returns how many memories it took in.
        """

    async def usage(self, tenant: str) -> Sequence[Usage]:
        """What is kept, by type, expired or not."""

    async def set_retention(self, tenant: str, memory_type: MemoryType, *, max_memories: int, max_days: int) -> None:
        """Bounds a type."""

    async def tenants(self) -> Sequence[str]:
        """All that ever stored something, by name."""

    async def ended(self, tenant: str, *, before: datetime, limit: int) -> Sequence[Memory]:
        """Memories that have ended by then."""

    async def least(self, tenant: str, memory_type: MemoryType, *, limit: int) -> Sequence[Memory]:
        """Those to give up first: least important, then longest unasked for."""

    async def outdated(self, tenant: str, model: str, *, limit: int) -> tuple[Sequence[Memory], int]:
        """Memories, the oldest first, whose vectors another model than this one made, and how many there are in all.
        Vectors that were given are nobody's to replace.
        """

    async def used(self, tenant: str, places: Sequence[int], *, now: datetime) -> None:
        """Notes that memories were found."""


class ConversationStore(Protocol):
    """Where the short-term memory of sessions is kept."""

    async def append_turns(self, tenant: str, said: Sequence[Said], *, now: datetime) -> Mapping[str, int]:
        """Appends each once, in their order. Returns how many turns each of the sessions holds."""

    async def tail(self, tenant: str, session_id: str, *, limit: int) -> Sequence[ShortTermTurn]:
        """The last turns, oldest first."""

    async def conversation(self, tenant: str, session_id: str) -> Conversation:
        """The summary of what made room."""

    async def fold(
        self, tenant: str, session_id: str, turns: Sequence[ShortTermTurn], known: Conversation, folded: Conversation
    ) -> bool:
        """Replaces the turns by the new summary, if the old one is still `known`; False when somebody was faster."""

    async def forget(
        self, tenant: str, session_id: str, receipts: Sequence[Receipt], *, newest: str | None = None
    ) -> bool:
        """Deletes turns and summary and keeps the receipts, all or none. False when the newest turn is no longer
        `newest`, where that is given: somebody spoke.
        """

    async def kept(self, tenant: str) -> Kept:
        """How many conversations there are."""

    async def silent(self, tenant: str, *, before: datetime, limit: int) -> Sequence[str]:
        """Sessions whose last turn is older."""

    async def surplus(self, tenant: str, *, at_most: int, limit: int) -> Sequence[str]:
        """Sessions beyond so many, the longest silent first."""
