"""An operator's own embedding model: what its folder says holds, and what is wrong with it stops the start."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from services.inference.catalog import CatalogInvalid
from services.inference.embeddings.device import Device
from services.inference.embeddings.folder import FolderInvalid, FolderModel
from services.inference.embeddings.main import with_others
from services.inference.embeddings.settings import EmbeddingSettings
from shared.clock import SystemClock
from tests.support.inference import CountingEmbedder

WIDTH = 8
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "ask", ":", "keep", "tea", "copper", "river"]
TABLE = np.random.default_rng(5).normal(size=(len(WORDS), WIDTH)).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model whose tokens are rows of a table, pooled by their mean, with prefixes."""
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=40)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    write_model(tmp_path)
    says(tmp_path, width=WIDTH, query_prefix="ask: ", passage_prefix="keep: ")
    return tmp_path


def write_model(folder: Path, inputs: Sequence[str] = ("input_ids", "attention_mask"), *, first: bool = False) -> None:
    """`first`: what it gives is the first token's row."""
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["rows"])]
    if first:
        nodes.append(helper.make_node("Gather", ["rows", "place"], ["out"], axis=1))
    else:
        nodes.append(helper.make_node("Identity", ["rows"], ["out"]))
    shape = ["batch", WIDTH] if first else ["batch", "tokens", WIDTH]
    graph = helper.make_graph(
        nodes,
        "own",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in inputs],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(TABLE, "table"), numpy_helper.from_array(np.array(0), "place")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (folder / "model.onnx").write_bytes(made.SerializeToString())


def says(folder: Path, **settings: Any) -> None:
    (folder / "embedding.json").write_text(json.dumps(settings))


def loaded(folder: Path) -> FolderModel:
    return FolderModel("own", folder, Device.CPU)


def vector(model: FolderModel, text: str) -> Sequence[float]:
    return model.vectors([model.tokenise([text])[0].ids])[0].vector


def unit(*words: str) -> Any:
    mean = TABLE[[WORDS.index(word) for word in words]].mean(axis=0)
    return mean / np.linalg.norm(mean)


def test_the_mean_of_its_tokens_is_of_unit_length_and_the_same_in_any_batch(folder: Path) -> None:
    model = loaded(folder)
    assert vector(model, "tea") == pytest.approx(unit("[CLS]", "tea", "[SEP]"), abs=1e-6)
    read = model.tokenise(["tea", "tea copper river river tea"])
    assert [len(text.ids) for text in read] == [3, 7]  # what the tokenizer's file cuts and pads is left to us
    together = model.vectors([text.ids for text in read])
    assert together[0].vector == pytest.approx(vector(model, "tea"), abs=1e-6)
    assert together[0].token_vectors == b""


def test_the_first_token_or_what_the_model_gives_is_taken_where_its_settings_say_so(folder: Path) -> None:
    says(folder, width=WIDTH, pooling="cls")
    assert vector(loaded(folder), "tea copper") == pytest.approx(unit("[CLS]"), abs=1e-6)
    write_model(folder, first=True)
    says(folder, width=WIDTH, pooling="none")
    assert vector(loaded(folder), "tea copper") == pytest.approx(unit("[CLS]"), abs=1e-6)


def test_a_text_longer_than_the_window_is_cut_and_keeps_its_end_mark(folder: Path) -> None:
    says(folder, width=WIDTH, window=4)
    (read,) = loaded(folder).tokenise(["tea tea copper river"])
    assert ([WORDS[one] for one in read.ids], read.cut) == (["[CLS]", "tea", "tea", "[SEP]"], True)


def test_a_model_of_the_right_hash_is_taken(folder: Path) -> None:
    says(folder, width=WIDTH, sha256=hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest())
    assert not loaded(folder).by_batch


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "embedding.json"])
def test_a_file_that_is_missing_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(FolderInvalid, match=rf"{name}: No such file"):
        loaded(folder)


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("model.onnx", "x", r"model\.onnx: .+"),
        ("tokenizer.json", "x", r"tokenizer\.json: .+"),
        ("embedding.json", "x", r"embedding\.json: Invalid JSON"),
        ("embedding.json", "{}", r"embedding\.json: width: Field required"),
        ("embedding.json", '{"width": 8, "pool": "cls"}', r"embedding\.json: pool: Extra inputs"),
        ("embedding.json", '{"width": 9}', r"model\.onnx makes vectors 8 wide, embedding\.json says 9"),
        ("embedding.json", '{"width": 8, "pooling": "none"}', r"has 3 dimensions, and pooling none needs 2"),
        ("embedding.json", json.dumps({"width": 8, "sha256": "0" * 64}), r"has the SHA-256 [0-9a-f]{64}, .+ says 0000"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(folder: Path, name: str, content: str, fault: str) -> None:
    (folder / name).write_text(content)
    with pytest.raises(FolderInvalid, match=fault):
        loaded(folder)


def test_a_model_that_wants_what_no_text_has_is_refused(folder: Path) -> None:
    write_model(folder, ["input_ids", "pixels"])
    with pytest.raises(FolderInvalid, match="wants pixels; known are input_ids, attention_mask, token_type_ids"):
        loaded(folder)


def test_a_tokenizer_of_another_model_is_refused(folder: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 900}, unk_token="[UNK]"))
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(FolderInvalid, match=r"model\.onnx cannot compute a text of tokenizer\.json"):
        loaded(folder)


async def test_questions_and_passages_are_worded_as_the_model_wants_and_cached_apart(folder: Path) -> None:
    async with embedding_models({"own": folder}) as found:
        assert list(found.names) == ["minilm-l6-v2", "own"]
        own = found.find("own")
        asked = (await own.embed(["tea"], query=True)).vectors
        kept = (await own.embed(["tea"], query=False)).vectors
        again = await own.embed(["tea"], query=True)
    assert asked[0] == pytest.approx(unit("[CLS]", "ask", ":", "tea", "[SEP]"), abs=1e-6)
    assert kept[0] == pytest.approx(unit("[CLS]", "keep", ":", "tea", "[SEP]"), abs=1e-6)
    assert (again.vectors, again.tokens) == (asked, 0)


async def test_a_folder_that_cannot_be_used_stops_the_start_with_its_place(folder: Path) -> None:
    says(folder, width=9)
    with pytest.raises(CatalogInvalid, match=r"embeddings\.own\.folder: .+ makes vectors 8 wide"):
        async with embedding_models({"own": folder}):
            pass


def embedding_models(folders: dict[str, Path]) -> Any:
    settings = EmbeddingSettings.model_validate(
        {
            "listen": "127.0.0.1:0",
            "identity_keys": "none",
            "postgres_dsn": "x",
            "embedding_wait": timedelta(),
            "embedding_device": "cpu",
        }
    )
    nobody: Any = None
    return with_others(
        CountingEmbedder(), folders, {}, settings, nobody, paid=nobody, tokenizers=nobody, redis=nobody,
        clock=SystemClock(), tenant=lambda: "tenant",
    )  # fmt: skip
