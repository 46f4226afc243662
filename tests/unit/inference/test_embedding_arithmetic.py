"""The embedded embedding model in int8 and in floats: one and the same, where the processor can."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from services.inference.embeddings import token_axes
from services.inference.embeddings.arithmetic import Arithmetic, in_int8
from services.inference.embeddings.device import Device
from services.inference.embeddings.minilm import MiniLM

TEXTS = [
    "",
    "tea",
    "Where do the two rivers meet?",
    "Caroline: I went to a support group yesterday and it was so powerful.",
    "def f(x): return x ** 2  # " + "0x" + "f" * 200,
    "日本語のテキスト 😀 Привет",
    "word " * 300,
    " ".join(f"Sentence {number} is about copper and {number * 7} more." for number in range(12)),
]
needs_dot_products = pytest.mark.skipif(not in_int8(Arithmetic.AUTO), reason="the processor multiplies no bytes")


@cache
def model(arithmetic: Arithmetic) -> MiniLM:
    return MiniLM(Device.CPU, arithmetic=arithmetic)


def processor(folder: Path, flags: str) -> Path:
    found = folder / "cpuinfo"
    found.write_text(f"processor\t: 0\nmodel name\t: one avx512_vnni\nflags\t\t: fpu {flags} avx2\nbugs\t\t:\n")
    return found


@pytest.mark.parametrize("flag", ["avx512_vnni", "avx_vnni", "amx_int8"])
def test_a_processor_with_dot_products_of_bytes_computes_in_int8(flag: str, tmp_path: Path) -> None:
    assert in_int8(Arithmetic.AUTO, processor(tmp_path, flag))
    assert not in_int8(Arithmetic.FLOAT, processor(tmp_path, flag))


def test_another_processor_and_one_nobody_knows_compute_in_floats(tmp_path: Path) -> None:
    assert not in_int8(Arithmetic.AUTO, processor(tmp_path, "avx512f"))
    assert not in_int8(Arithmetic.AUTO, tmp_path / "none")


@needs_dot_products
def test_vectors_in_int8_are_those_in_floats() -> None:
    fast, exact = model(Arithmetic.AUTO), model(Arithmetic.FLOAT)
    assert (fast.int8, exact.int8) == (True, False)
    for text in exact.tokenise(TEXTS):
        (one,), (other,) = fast.vectors([text.ids]), exact.vectors([text.ids])
        assert np.dot(one.vector, other.vector) > 0.99999
        bytes_ = [np.frombuffer(given.token_vectors, np.int8).astype(int) for given in (one, other)]
        assert len(bytes_[0]) == min(len(text.ids) - 2, token_axes.MOST) * token_axes.WIDTH
        assert np.abs(bytes_[0] - bytes_[1]).max(initial=0) <= 2


@pytest.mark.parametrize("arithmetic", list(Arithmetic))
def test_a_vector_is_the_same_alone_in_any_batch_and_again(arithmetic: Arithmetic) -> None:
    used = model(arithmetic)
    texts = [text.ids for text in used.tokenise(TEXTS)]
    together = used.vectors(texts)
    assert used.vectors(texts) == together
    for ids, one in zip(texts, together, strict=True):
        (alone,) = used.vectors([ids])
        assert np.abs(np.subtract(alone.vector, one.vector)).max() < 1e-5
