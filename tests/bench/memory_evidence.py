"""Does recall find the turns that hold the answer? Evidence retrieval on LoCoMo, or on conversations in its format.

    python -m tests.bench.memory_evidence PATH [--from N] [--to N] [--learn] [--reranker NAME]

PATH is your own copy of the conversations: the file `locomo10.json` or a folder of one JSON file each. They are licensed for
non-commercial use and are not part of this repository. Whatever is tuned is tuned on the first five (`--to 5`); the rest
(`--from 5`) is for judgement. `--learn` fits the weights of ranking on the chosen ones, after judging each conversation by
weights fitted on the others, and writes them to services/memory/weights.json. `ours, unread` is ours where no vectors of tokens are known.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from services.memory import rank
from services.memory.remember import embedded_text
from services.memory.rerank import SecondLook, reranker_named
from services.memory.store import Corpus, Embedding, Entry, Filter, Gathered, Memory, MemoryType, Probe
from services.memory.store_memory import InMemoryStore
from services.memory.texts import Reading, query_words
from services.memory.tokens import estimate
from services.memory.words import bm25, counted
from tests.bench import memory_full_text
from tests.support.plain_embedder import EmbeddedEmbedder
from tests.support.postgres import running_cluster

_WEIGHTS = Path(__file__).parents[2] / "services" / "memory" / "weights.json"
_CATEGORIES = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop"}
_BUDGETS = (500, 1_000, 2_000, 4_000)
_POOL = 60
_SEEN = 150
TENANT = "bench"


@dataclass(frozen=True)
class Question:
    """A question, its category and the ids of the turns that answer it."""

    text: str
    category: int
    evidence: frozenset[str]


@dataclass(frozen=True)
class Conversation:
    """Turns as memories, with their questions."""

    name: str
    turns: tuple[Memory, ...]
    questions: tuple[Question, ...]


@dataclass
class Case:
    """One question with what was gathered for it and what the plain rankings need."""

    conversation: str
    question: Question
    gathered: Gathered
    everything: list[tuple[Memory, float]]
    corpus: Corpus
    stored: datetime
    tokens: bytes = b""
    """The vectors of the question's tokens."""
    full_text: list[str] = field(default_factory=list)
    """The ids of the turns that Postgres's full text search finds, best first."""


def conversations(path: Path) -> list[Conversation]:
    """Reads both formats in which the conversations are published."""
    if path.is_dir():
        found = [json.loads(file.read_text()) for file in sorted(path.glob("*.json"))]
    else:
        found = json.loads(path.read_text())
    return [_conversation(one, at) for at, one in enumerate(found)]


def _conversation(data: Mapping[str, Any], at: int) -> Conversation:
    talk = data.get("conversation", data)
    turns = []
    for number in range(1, len(talk)):
        began = _time(talk.get(f"session_{number}_date_time", ""))
        for place, turn in enumerate(talk.get(f"session_{number}", [])):
            turns.append(_memory(turn, f"s{number}", began + timedelta(seconds=place)))
    known = {turn.turn_id for turn in turns}
    questions = []
    for one in data["qa"]:
        evidence = frozenset(re.findall(r"D\d+:\d+", " ".join(one.get("evidence", [])))) & known
        if evidence and one["category"] in _CATEGORIES:
            questions.append(Question(one["question"], one["category"], evidence))
    return Conversation(str(data.get("sample_id", at)), tuple(turns), tuple(questions))


def _memory(turn: Mapping[str, Any], session: str, at: datetime) -> Memory:
    text = turn.get("clean_text") or turn.get("text") or ""
    if caption := turn.get("blip_caption"):
        text += f" (shares a photo of {caption})"
    return Memory(
        id=turn["dia_id"], content=text, content_hash=f"{turn['dia_id']}".encode(), memory_type=MemoryType.EPISODIC,
        agent=turn["speaker"], session_id=session, turn_id=turn["dia_id"], tags=(), metadata={}, importance=0.5,
        created_at=at,
    )  # fmt: skip


def _time(text: str) -> datetime:
    cleaned = text.replace(",", "").strip()
    for form in ("%I:%M %p on %d %B %Y", "%Y-%m-%d"):
        try:
            return datetime.strptime(cleaned, form).replace(tzinfo=UTC)
        except ValueError:
            continue
    return datetime(2023, 1, 1, tzinfo=UTC)


async def cases(found: Sequence[Conversation], embed: Callable[[list[str]], Any]) -> list[Case]:
    """Stores every conversation and gathers for each of its questions, as Recall does."""
    made = []
    for conversation in found:
        store = InMemoryStore()
        embeddings = await embed([embedded_text(turn) for turn in conversation.turns])
        entries = [Entry(turn, *one) for turn, one in zip(conversation.turns, embeddings, strict=True)]
        await store.add(TENANT, entries)
        asked = await embed([question.text for question in conversation.questions])
        for question, one in zip(conversation.questions, asked, strict=True):
            made.append(await _case(store, conversation, question, one))
        sys.stderr.write(f"{conversation.name}: {len(entries)} turns, {len(asked)} questions\n")
    return made


async def search_full_text(dsn: str, found: Sequence[Conversation], made: Sequence[Case]) -> None:
    """Asks Postgres too."""
    for conversation in found:
        mine = [case for case in made if case.conversation == conversation.name]
        told = [(turn.turn_id, turn.content) for turn in conversation.turns]
        known = await memory_full_text.orders(dsn, told, [case.question.text for case in mine])
        for case in mine:
            case.full_text = known[case.question.text]


async def _case(store: InMemoryStore, conversation: Conversation, question: Question, asked: Embedding) -> Case:
    now = conversation.turns[-1].created_at
    words = query_words(question.text)
    found = await store.gather(TENANT, Probe(asked.vector, words, _POOL, 1, tokens=True), Filter(), now=now)
    gathered = rank.with_neighbours(found, lambda _: True)
    everything = await store.nearest(TENANT, asked.vector, Filter(), now=now, limit=10_000)
    pairs = [(one.memory, one.cosine) for one in everything]
    return Case(conversation.name, question, gathered, pairs, gathered.corpus, now, asked.tokens)


def by_dense(case: Case) -> list[Memory]:
    return [memory for memory, _ in case.everything]


def by_bm25(case: Case) -> list[Memory]:
    words = query_words(case.question.text)
    scored = [(bm25(counted(memory.content), words, case.corpus), memory) for memory, _ in case.everything]
    return [memory for _, memory in sorted(scored, key=lambda one: (-one[0], one[1].place))]


def by_full_text(case: Case) -> list[Memory]:
    known = {memory.turn_id: memory for memory, _ in case.everything}
    return [known[turn] for turn in case.full_text]


def by_rrf(case: Case) -> list[Memory]:
    score: dict[str, float] = defaultdict(float)
    for order in (by_dense(case), by_bm25(case)):
        for place, memory in enumerate(order):
            score[memory.id] += 1 / (60 + place)
    return sorted(by_dense(case), key=lambda memory: -score[memory.id])


def by_ours(case: Case, weights: rank.Weights = rank.LEARNED) -> list[Memory]:
    return [one.memory for one in _ranked(case, limit=200, weights=weights)]


def by_ours_unread(case: Case, weights: rank.Weights = rank.LEARNED) -> list[Memory]:
    return by_ours(replace(case, tokens=b""), weights)


def _ranked(case: Case, *, limit: int, weights: rank.Weights = rank.LEARNED) -> list[rank.Ranked]:
    query, reading = case.question.text, Reading(case.question.text, case.gathered, case.tokens)
    return rank.ranked(
        query, case.gathered, rank.Taste(), now=case.stored, limit=limit, weights=weights, reading=reading
    )


def reranked_by(name: str) -> Callable[[Case], list[Memory]]:
    """What Recall gives with this reranker, all it sees."""
    look = SecondLook(reranker_named(name), _SEEN, timedelta(minutes=1))

    def order(case: Case) -> list[Memory]:
        seen = asyncio.run(look.reordered(case.question.text, _ranked(case, limit=_SEEN), least=_SEEN))
        return [one.memory for one in seen]

    return order


WAYS: dict[str, Callable[[Case], list[Memory]]] = {
    "dense alone": by_dense,
    "BM25": by_bm25,
    "Postgres full text": by_full_text,
    "plain RRF": by_rrf,
    "ours": by_ours,
    "ours, unread": by_ours_unread,
}


def judged(order: Sequence[Memory], evidence: frozenset[str]) -> list[float]:
    """Recall at 5, 10 and 20, the reciprocal rank of the first evidence, and recall within the budgets."""
    at = [place for place, memory in enumerate(order) if memory.turn_id in evidence]
    spent = np.cumsum([estimate(memory.content) + 4 for memory in order]) if order else np.zeros(0)
    recalls = [sum(place < most for place in at) / len(evidence) for most in (5, 10, 20)]
    within = [sum(spent[place] <= budget for place in at) / len(evidence) for budget in _BUDGETS]
    return [*recalls, 1 / (at[0] + 1) if at else 0.0, *within]


def table(rows: Mapping[str, Sequence[tuple[int, list[float]]]]) -> Iterator[str]:
    """One line a way and category."""
    yield "| way | questions | recall@5 | @10 | @20 | MRR | " + " | ".join(f"{b} tokens" for b in _BUDGETS) + " |"
    yield "|---|---|---|---|---|---|" + "---|" * len(_BUDGETS)
    for way, judgements in rows.items():
        for category, name in (0, "all"), *_CATEGORIES.items():
            mine = [values for kind, values in judgements if category in (0, kind)]
            if mine:
                cells = " | ".join(f"{value:.3f}" for value in np.mean(mine, axis=0))
                yield f"| {way}, {name} | {len(mine)} | {cells} |"


def learn(found: Sequence[Case]) -> rank.Weights:
    """With what is known of the tokens, and without."""
    base, unread = _learned([replace(case, tokens=b"") for case in found])
    base_read, read = _learned(found)
    return rank.Weights(base, read | {"read": round(base_read - base, 4)}, unread)


def _learned(
    found: Sequence[Case], *, steps: int = 300, rate: float = 0.05, decay: float = 1e-3
) -> tuple[float, dict[str, float]]:
    """The base and the weights under which the evidence of each question stands first among its own candidates (ListNet, by Adam), then so
    scaled that the sum is the logarithm of the odds that a candidate is evidence.
    """
    names, lists = _lists(found)
    rows = np.concatenate([one for one, _ in lists])
    mean, scale = rows.mean(axis=0), rows.std(axis=0) + 1e-9
    scaled = [((one - mean) / scale, wanted) for one, wanted in lists]
    solution = _listwise([one for one in scaled if one[1].any()], steps=steps, rate=rate, decay=decay)
    sums = np.concatenate([one @ solution for one, _ in scaled])
    told = np.stack([sums, np.ones_like(sums)], axis=1)
    wanted = np.concatenate([one for _, one in lists])
    slope, base = _newton(told, wanted, np.ones_like(wanted), steps=30, decay=1e-9)
    slopes = slope * solution / scale
    shifted = float(base) - float((slopes * mean).sum())
    known = {name: round(float(slope), 4) for name, slope in zip(names, slopes, strict=True)}
    return round(shifted, 4), {name: slope for name, slope in known.items() if slope}


def _lists(found: Sequence[Case]) -> tuple[list[str], list[tuple[Any, Any]]]:
    """By question the signs of its candidates, and which of them are evidence."""
    names: list[str] = []
    lists = []
    for case in found:
        names, values = rank.signs(case.question.text, case.gathered, case.tokens)
        pool = [one.memory.turn_id for one in case.gathered.pool]
        lists.append((values, np.array([turn in case.question.evidence for turn in pool], float)))
    return names, lists


def _listwise(lists: Sequence[tuple[Any, Any]], *, steps: int, rate: float, decay: float) -> Any:
    """Minimises the cross entropy between where the evidence is and the softmax of the sums."""
    solution = np.zeros(lists[0][0].shape[1])
    drift, spread = np.zeros_like(solution), np.zeros_like(solution)
    for step in range(1, steps + 1):
        slope = decay * solution
        for rows, wanted in lists:
            sums = rows @ solution
            chances = np.exp(sums - sums.max())
            slope = slope + rows.T @ (chances / chances.sum() - wanted / wanted.sum()) / len(lists)
        drift, spread = 0.9 * drift + 0.1 * slope, 0.999 * spread + 0.001 * slope**2
        solution = solution - rate * (drift / (1 - 0.9**step)) / (np.sqrt(spread / (1 - 0.999**step)) + 1e-8)
    return solution


def _newton(rows: Any, wanted: Any, weights: Any, *, steps: int, decay: float) -> Any:
    solution = np.zeros(rows.shape[1])
    ridge = np.eye(rows.shape[1]) * decay
    ridge[-1, -1] = 0
    for _ in range(steps):
        chance = 1 / (1 + np.exp(-rows @ solution))
        slope = rows.T @ (weights * (chance - wanted)) + ridge @ solution
        curve = (rows * (weights * chance * (1 - chance))[:, None]).T @ rows + ridge
        step = np.linalg.solve(curve + 1e-9 * np.eye(len(curve)), slope)
        solution -= step
        if np.abs(step).max() < 1e-6:
            break
    return solution


def measure(found: Sequence[Case], ways: Mapping[str, Callable[[Case], list[Memory]]]) -> dict[str, list[Any]]:
    return {
        name: [(case.question.category, judged(way(case), case.question.evidence)) for case in found]
        for name, way in ways.items()
    }


def cross_judged(found: Sequence[Case]) -> dict[str, list[Any]]:
    """Each conversation judged by weights learned from the others."""
    ways = {"ours": by_ours, "ours, unread": by_ours_unread}
    rows: dict[str, list[Any]] = {f"{name}, learned on the others": [] for name in ways}
    for held in dict.fromkeys(case.conversation for case in found):
        weights = learn([case for case in found if case.conversation != held])
        mine = [case for case in found if case.conversation == held]
        for name, way in ways.items():
            rows[f"{name}, learned on the others"] += measure(mine, {name: partial(way, weights=weights)})[name]
    return rows


async def _embed_all(texts: list[str]) -> list[Embedding]:
    embedder = EmbeddedEmbedder()
    try:
        found = await embedder.embed(texts)
        return [Embedding(*one) for one in zip(found.vectors, found.token_vectors, strict=True)]
    finally:
        embedder.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--from", dest="start", type=int, default=0)
    parser.add_argument("--to", dest="end", type=int, default=None)
    parser.add_argument("--learn", action="store_true")
    parser.add_argument("--reranker", help="adds a way: ours with this one's second look")
    asked = parser.parse_args()
    chosen = conversations(asked.path)[asked.start : asked.end]
    found = asyncio.run(cases(chosen, _embed_all))
    with tempfile.TemporaryDirectory() as folder, running_cluster(Path(folder)) as cluster:
        asyncio.run(search_full_text(cluster.dsn("memory"), chosen, found))
    if asked.learn:
        rows = measure(found, {name: way for name, way in WAYS.items() if not name.startswith("ours")})
        rows |= cross_judged(found)
        _WEIGHTS.write_text(json.dumps(asdict(learn(found)), indent=2) + "\n")
    else:
        second = {f"ours, then {asked.reranker}": reranked_by(asked.reranker)} if asked.reranker else {}
        rows = measure(found, WAYS | second)
    sys.stdout.write("\n".join(table(rows)) + "\n")


if __name__ == "__main__":
    main()
