"""The bench of evidence retrieval, on a conversation of our own making in both published formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from services.memory import rank
from tests.bench import memory_evidence as bench
from tests.bench import memory_peers
from tests.support.memory import HashingEmbedder

TALK: dict[str, Any] = {
    "speaker_a": "Ada",
    "speaker_b": "Bob",
    "session_1_date_time": "1:56 pm on 8 May, 2023",
    "session_1": [
        {"speaker": "Ada", "dia_id": "D1:1", "text": "I adopted a greyhound from the shelter."},
        {"speaker": "Bob", "dia_id": "D1:2", "text": "Lovely! What is its name?"},
        {"speaker": "Ada", "dia_id": "D1:3", "text": "Comet, because of the tail.", "blip_caption": "a grey dog"},
    ],
    "session_2_date_time": "10:00 am on 1 June, 2023",
    "session_2": [
        {"speaker": "Bob", "dia_id": "D2:1", "text": "I started to learn the cello."},
        {"speaker": "Ada", "dia_id": "D2:2", "text": "The weather is nice today."},
    ],
    "qa": [
        {"question": "Which dog did Ada adopt?", "evidence": ["D1:1"], "category": 4},
        {"question": "What is the name of Ada's greyhound?", "evidence": ["D1:1; D1:3"], "category": 1},
        {"question": "Which instrument does Bob learn?", "evidence": ["D2:1"], "category": 4},
        {"question": "Unanswerable?", "evidence": ["D2:2"], "category": 5},
        {"question": "Without evidence?", "evidence": [], "category": 2},
    ],
}


@pytest.fixture(params=["folder", "file"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "folder":
        (tmp_path / "1.json").write_text(json.dumps(TALK))
        (tmp_path / "2.json").write_text(json.dumps(TALK))
        return tmp_path
    nested = {"conversation": {key: value for key, value in TALK.items() if key != "qa"}, "qa": TALK["qa"]}
    file = tmp_path / "all.json"
    file.write_text(json.dumps([nested | {"sample_id": "one"}, nested | {"sample_id": "two"}]))
    return file


def test_both_formats_are_read_alike(path: Path) -> None:
    first, second = bench.conversations(path)
    assert [turn.turn_id for turn in first.turns] == ["D1:1", "D1:2", "D1:3", "D2:1", "D2:2"]
    assert first.turns[2].content == "Comet, because of the tail. (shares a photo of a grey dog)"
    assert [str(turn.created_at) for turn in first.turns[2:4]] == [
        "2023-05-08 13:56:02+00:00",
        "2023-06-01 10:00:00+00:00",
    ]
    assert [question.evidence for question in first.questions] == [{"D1:1"}, {"D1:1", "D1:3"}, {"D2:1"}]
    assert second.turns[0].agent == "Ada"


async def test_every_way_is_judged_and_the_table_has_every_category(path: Path) -> None:
    found = await bench.cases(bench.conversations(path), HashingEmbedder().embed)
    rows = bench.measure(found, bench.WAYS)
    lines = list(bench.table(rows))
    assert set(rows) == {"dense alone", "BM25", "Postgres full text", "plain RRF", "ours", "ours, unread"}
    assert all(len(judgements) == 6 for judgements in rows.values())
    assert [line.split(" | ")[0] for line in lines[2:5]] == [
        "| dense alone, all",
        "| dense alone, multi-hop",
        "| dense alone, single-hop",
    ]
    assert {turn.turn_id for turn in bench.by_ours(found[0])[:2]} == {"D1:1", "D1:3"}


def test_a_judgement_counts_what_it_says(path: Path) -> None:
    turns = bench.conversations(path)[0].turns
    recall5, recall10, recall20, reciprocal, *within = bench.judged(turns, frozenset({"D1:2", "D2:2"}))
    assert (recall5, recall10, recall20, reciprocal) == (1.0, 1.0, 1.0, 0.5)
    assert within == [1.0] * 4
    assert bench.judged(turns[:1], frozenset({"D2:2"}))[:4] == [0.0, 0.0, 0.0, 0.0]


async def test_learning_finds_weights_that_rank_the_evidence_first(path: Path) -> None:
    found = await bench.cases(bench.conversations(path), HashingEmbedder().embed)
    weights = bench.learn(found)
    names, _ = rank.signs("q", found[0].gathered)
    assert set(weights.unread) <= set(names)
    assert set(weights.read) <= set(names)
    for case in found:
        assert bench.by_ours(case, weights)[0].turn_id in case.question.evidence
    judged = bench.cross_judged(found)
    assert {name: len(rows) for name, rows in judged.items()} == {
        "ours, learned on the others": 6,
        "ours, unread, learned on the others": 6,
    }


def test_other_stores_are_measured_where_they_are_installed() -> None:
    import numpy as np

    vectors = np.eye(384, dtype=np.float16)[:50]
    wanted = [set(range(at, at + 1)) for at in range(3)]
    lines = list(memory_peers.measured(vectors, vectors[:3], wanted, lambda *cells: cells, lambda found, _: found))
    for _, size, spent, found in lines:
        assert (size, len(spent), [one[0] for one in found]) == (50, 3, [0, 1, 2])
