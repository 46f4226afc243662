"""How fast is recall at 10,000, 100,000 and more memories of one tenant among many, and how much of the exact answer does it find?

    python -m tests.bench.memory_latency [--sizes 10000,100000] [--real 30000] [--texts FILE] [--peers]
        [--peers-to 100000] [--save FOLDER]

The smallest size goes through the service's store, the others by COPY, with one graph made of all. Beyond `--real` sentences the
rest is grown of them: two sentences in one, with a vector between theirs.

Memories are real sentences: those of the documentation in the installed packages, embedded by the mesh's own model (slow, about
a hundred a second: `--save` keeps them in a folder and takes them from there the next time). Questions are sentences that were not stored. Everything
runs as the service does it, vectors of tokens included: its role, row level security, its store, its collections of garbage, beside fifty small tenants. `--peers` adds FAISS, Chroma and
Qdrant in memory where they are installed.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import hashlib
import random
import re
import sys
import sysconfig
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from pgvector.asyncpg import register_vector

from deploy.local.postgres import Cluster
from services.memory.store import Entry, Filter, Memory, MemoryStore, MemoryType
from services.memory.store_postgres import PostgresMemoryStore
from shared.ids import RandomIds
from shared.postgres import Database, open_database
from shared.rpc.server import settle
from tests.bench import memory_bulk, memory_peers, memory_served
from tests.bench.memory_bulk import Sentences
from tests.support.plain_embedder import MODEL, EmbeddedEmbedder
from tests.support.postgres import running_cluster

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TENANT = "big"
SMALL_TENANTS = 50
_BATCH = 500
_ASKED = 200
_K = 10
_WARMING = 10
_SHORT = 4  # words


def sentences(most: int) -> list[str]:
    """Distinct sentences of documentation, in an order that is the same every time; no more files are read than it takes."""
    roots = (sysconfig.get_paths()["stdlib"], sysconfig.get_paths()["purelib"])
    paths = sorted(path for root in roots for path in Path(root).rglob("*.py"))
    random.Random(1).shuffle(paths)
    found: dict[str, None] = {}
    for path in paths:
        if len(found) >= most:
            break
        for text in _documentation(path):
            for part in re.split(r"(?<=[.!?])\s+|\n\s*\n", text):
                sentence = " ".join(part.split())
                if 30 <= len(sentence) <= 160 and sentence.count(" ") >= 4 and "\0" not in sentence:
                    found[sentence] = None
    chosen = list(found)
    random.Random(1).shuffle(chosen)
    return chosen[:most]


def _documentation(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_text())
    except (SyntaxError, UnicodeDecodeError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            yield ast.get_docstring(node) or ""


async def embedded(texts: list[str]) -> tuple[Any, list[bytes]]:
    """Half-precision vectors of the texts and those of their tokens; short ones together, so that little is padding."""
    embedder = EmbeddedEmbedder()
    vectors = np.zeros((len(texts), 384), np.float16)
    tokens = [b""] * len(texts)
    order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
    try:
        for start in range(0, len(order), 512):
            if start % 5_120 == 0:
                memory_bulk.progress("embedded", start, len(order))
            part = order[start : start + 512]
            made = await embedder.embed([texts[at] for at in part])
            vectors[part] = np.array(made.vectors, np.float16)
            for at, one in zip(part, made.token_vectors, strict=True):
                tokens[at] = one
    finally:
        embedder.close()
    return vectors, tokens


def shortened(question: str) -> str:
    """Its four longest words, in their order: what somebody types into a search box."""
    words = question.split()
    longest = sorted(range(len(words)), key=lambda at: -len(words[at]))[:_SHORT]
    return " ".join(words[at] for at in sorted(longest))


def entries(known: Sentences, start: int = 0) -> list[Entry]:
    return [
        Entry(
            Memory(
                id=RandomIds().new("mem"), content=text, content_hash=hashlib.sha256(text.encode()).digest(),
                memory_type=MemoryType.SEMANTIC, agent="", session_id=f"s{(start + at) // 20}", turn_id="",
                tags=("rare",) if (start + at) % 100 == 0 else (), metadata={}, importance=0.5,
                created_at=NOW - timedelta(minutes=start + at), embedding_model=MODEL,
            ),
            tuple(known.vectors[at].astype(float).tolist()), known.tokens[at],
        )
        for at, text in enumerate(known.texts)
    ]  # fmt: skip


async def store_all(store: MemoryStore, tenant: str, known: Sentences, start: int = 0) -> float:
    """Seconds the store took, without making the entries."""
    spent = 0.0
    for at in range(0, len(known.texts), _BATCH):
        many = entries(known.part(at, at + _BATCH), start + at)
        began = time.perf_counter()
        await store.add(tenant, many)
        spent += time.perf_counter() - began
    return spent


async def timed(work: Callable[[int], Awaitable[Any]], count: int) -> tuple[list[float], list[Any]]:
    """Milliseconds and results of the calls, one after the other, after ten to warm up."""
    for at in range(_WARMING):
        await work(at)
    spent, results = [], []
    for at in range(count):
        began = time.perf_counter()
        results.append(await work(at))
        spent.append((time.perf_counter() - began) * 1000)
    return spent, results


def exact(vectors: Any, queries: Any) -> list[set[int]]:
    """The places of the nearest by full comparison."""
    known, asked = vectors.astype(np.float32), queries.astype(np.float32)
    known /= np.linalg.norm(known, axis=1, keepdims=True)
    return [set(np.argpartition(-(known @ query), _K)[:_K].tolist()) for query in asked]


def overlap(found: Sequence[Sequence[int]], wanted: Sequence[set[int]]) -> float:
    return float(np.mean([len(set(one) & want) / _K for one, want in zip(found, wanted, strict=True)]))


def row(what: str, size: int, spent: Sequence[float], recall: float | None = None, cpu: str = " | ") -> str:
    middle, slow = np.percentile(spent, [50, 99])
    return f"| {size:,} | {what} | {middle:.2f} | {slow:.2f} | {'' if recall is None else f'{recall:.3f}'} | {cpu} |"


async def with_cpu(
    database: Database, work: Callable[[int], Awaitable[Any]], count: int
) -> tuple[list[float], list[Any], str]:
    """As `timed`, and the processor milliseconds of one call: of this process, and of the role's backends in Postgres."""
    here, there = time.process_time(), await _backends(database)
    spent, found = await timed(work, count)
    calls = (count + _WARMING) / 1000
    cpu = f"{(time.process_time() - here) / calls:.2f} | {(await _backends(database) - there) / calls:.2f}"
    return spent, found, cpu


async def _backends(database: Database) -> float:
    """Processor seconds of those that run now; none ends while a bench asks one question after another."""
    rows = await database.statement(memory_bulk.SQL["backends"])
    return sum(int(Path(f"/proc/{one['pid']}/schedstat").read_text().split()[0]) for one in rows) / 1e9


async def measured(cluster: Cluster, known: Sentences, sizes: list[int], *, peers_to: int) -> AsyncIterator[str]:
    """The lines of the table, each as soon as it is known."""
    yield "| memories | what | p50 ms | p99 ms | recall@10 | CPU ms here | in Postgres |"
    yield "|---|---|---|---|---|---|---|"
    questions, asked = known.texts[-_ASKED:], known.vectors[-_ASKED:]
    async with open_database(cluster.dsn("memory"), prepare=register_vector, stateless=True) as database:
        store = PostgresMemoryStore(database)
        for number in range(SMALL_TENANTS):
            await store_all(store, f"small-{number}", known.part(number * 100, number * 100 + 100))
        stored = 0
        for size in sizes:
            for line in await _stored(cluster, store, known.part(stored, size), stored):
                yield line
            stored, here = size, known.part(0, size)
            wanted = exact(here.vectors, asked)
            for line in await _searched(database, here, (questions, asked), wanted):
                yield line
            if size <= peers_to:
                for line in memory_peers.measured(here.vectors, asked, wanted, row, overlap):
                    yield line


async def _stored(cluster: Cluster, store: PostgresMemoryStore, known: Sentences, start: int) -> list[str]:
    """Lines about storing: by way of the service where there is nothing yet, else by COPY."""
    count, size = len(known.texts), start + len(known.texts)
    if start:
        copying, making = await memory_bulk.load(cluster.dsn("postgres"), TENANT, known, start)
        return [
            f"| {size:,} | {count:,} more by COPY in {copying:.0f} s, one graph of all in {making:.0f} s | | | | | |"
        ]
    began = time.process_time()
    spent = await store_all(store, TENANT, known)
    own = (time.process_time() - began) / count * 1e6
    lines = [
        f"| {size:,} | stored in batches of {_BATCH}: {count / spent:,.0f} memories/s, {own:.0f} us CPU each here | | | | | |"
    ]
    began = time.perf_counter()
    moved = await store.tend(TENANT, busy=lambda: False)
    rate = moved / (time.perf_counter() - began)
    return [*lines, f"| {size:,} | taken into the graph in the background: {rate:,.0f} memories/s | | | | | |"]


async def _searched(
    database: Database, known: Sentences, probes: tuple[list[str], Any], near: list[set[int]]
) -> list[str]:  # fmt: skip
    questions, asked = probes
    settle()
    store, size = PostgresMemoryStore(database), len(known.texts)
    at_text = {text: at for at, text in enumerate(known.texts)}
    queries = [tuple(one.astype(float).tolist()) for one in asked]

    def places(found: Sequence[Any]) -> list[int]:
        return [at_text[one.memory.content] for one in found]

    async def dense(at: int) -> Any:
        return await store.nearest(TENANT, queries[at], Filter(), now=NOW, limit=_K)

    async def narrow(at: int) -> Any:
        return await store.nearest(TENANT, queries[at], Filter(tags=("rare",)), now=NOW, limit=_K)

    async def small(at: int) -> Any:
        return await store.nearest(f"small-{at % SMALL_TENANTS}", queries[at], Filter(), now=NOW, limit=_K)

    rare = [at for at in range(size) if at % 100 == 0]
    spent, found, cpu = await with_cpu(database, dense, len(queries))
    lines = [row("dense, under RLS", size, spent, overlap([places(one) for one in found], near), cpu)]
    spent, found, cpu = await with_cpu(database, narrow, len(queries))
    wanted = [{rare[at] for at in one} for one in exact(known.vectors[rare], asked)]
    lines.append(
        row("dense, a tag one in a hundred has", size, spent, overlap([places(one) for one in found], wanted), cpu)
    )
    async with memory_served.recalling(store, TENANT, NOW) as recalling:
        brief = [shortened(one) for one in questions]

        async def ready(at: int) -> Any:
            return await recalling.recall(TENANT, questions[at], limit=_K, vector=queries[at])

        async def whole(at: int) -> Any:
            return await recalling.recall(TENANT, questions[at], limit=_K)

        async def short(at: int) -> Any:
            return await recalling.recall(TENANT, brief[at], limit=_K)

        async def called(at: int) -> Any:
            return await recalling.call(brief[at], limit=_K)

        for what, work in (
            ("dense, a tenant of 100 beside", small),
            ("hybrid, ranked, with neighbours", ready),
            ("the same with the question's embedding", whole),
            ("four words of it, with their embedding", short),
            ("four words by gRPC, with their embedding", called),
        ):
            spent, _, cpu = await with_cpu(database, work, len(queries))
            lines.append(row(what, size, spent, cpu=cpu))
    return lines


async def embedding_cost(texts: Sequence[str]) -> str:
    embedder = EmbeddedEmbedder()

    async def one(at: int) -> Any:
        return await embedder.embed([texts[at]])

    async def short(at: int) -> Any:
        return await embedder.embed([shortened(texts[at])])

    whole, brief = [(await timed(work, 100))[0] for work in (one, short)]
    embedder.close()
    lines = (("one question", whole), ("four words of it", brief))
    return "\n".join(row(f"embedding {what} (in process, for comparison)", 0, spent) for what, spent in lines)


@contextmanager
def fresh_cluster() -> Iterator[Cluster]:
    """A Postgres of this run's own, as the embedded mesh starts it."""
    with tempfile.TemporaryDirectory() as folder, running_cluster(Path(folder)) as cluster:
        yield cluster


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10000,100000")
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--real", type=int, default=30_000)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--peers-to", type=int, default=100_000)
    asked = parser.parse_args()
    sizes = [int(size) for size in asked.sizes.split(",")]
    real = min(max(sizes), asked.real) + _ASKED
    kept = asked.save / "sentences.npz" if asked.save else None
    if kept and kept.exists():
        known = memory_bulk.kept(kept)
    else:
        texts = asked.texts.read_text().splitlines() if asked.texts else sentences(real)
        known = memory_bulk.Sentences(texts, *asyncio.run(embedded(texts)))
        if kept:
            memory_bulk.keep(known, kept)
    known = memory_bulk.grown(known, max(sizes) + _ASKED, last=_ASKED)
    peers_to = asked.peers_to if asked.peers else 0
    with fresh_cluster() as cluster:
        asyncio.run(_print(measured(cluster, known, sizes, peers_to=peers_to)))
    sys.stdout.write(asyncio.run(embedding_cost(known.texts[-_ASKED:])) + "\n")


async def _print(lines: AsyncIterator[str]) -> None:
    async for line in lines:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
