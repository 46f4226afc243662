"""`python -m deploy.codegen.token_axes`: the axes along which the tokens of the embedded model differ most.

They are the principal axes, not centred, of the tokens of this repository's pages and of the words of the model's
vocabulary. Vectors of tokens are kept by the name of their model: other axes need another name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.inference.embeddings import token_axes
from services.inference.embeddings.arithmetic import Arithmetic
from services.inference.embeddings.device import Device
from services.inference.embeddings.minilm import MiniLM

ROOT: Final = Path(__file__).resolve().parents[2]
_WRITTEN: Final = Path(token_axes.__file__).with_name("token_axes.npy")
_SENTENCE: Final = re.compile(r"(?<=[.!?])\s+|\n\n|\|")
_LENGTHS: Final = range(30, 300)
_SENTENCES: Final = 1_500
_LINES: Final = 1_500
_WORDS_A_LINE: Final = 6
_BATCH: Final = 32


def main() -> None:
    model = MiniLM(Device.CPU, threads=1, arithmetic=Arithmetic.FLOAT)
    moments = sum(_moments(model, given) for given in (_sentences(), _lines(model.words())))
    _, axes = np.linalg.eigh(moments)
    np.save(_WRITTEN, axes[:, ::-1][:, : token_axes.WIDTH].astype(np.float16))


def texts() -> list[str]:
    """All it is made from."""
    return _sentences() + _lines(MiniLM(Device.CPU, arithmetic=Arithmetic.FLOAT).words())


def _sentences() -> list[str]:
    """Some of the pages', spread evenly."""
    pages = sorted((ROOT / "docs").rglob("*.md"))
    found = [part.strip() for page in pages for part in _SENTENCE.split(page.read_text())]
    fitting = [one for one in dict.fromkeys(found) if len(one) in _LENGTHS]
    return fitting[:: max(len(fitting) // _SENTENCES, 1)][:_SENTENCES]


def _lines(words: Sequence[str]) -> list[str]:
    """Plain words, a few a line, spread evenly over the vocabulary."""
    plain = [word for word in words if re.fullmatch("[a-z]{3,}", word)]
    return [" ".join(plain[at::_LINES][:_WORDS_A_LINE]) for at in range(_LINES)]


def _moments(model: MiniLM, texts: Sequence[str]) -> NDArray[np.float32]:
    """Second moments of the tokens' vectors of unit length, a token on average."""
    tokens = np.concatenate(list(_tokens(model, texts)))
    moments: NDArray[np.float32] = tokens.T @ tokens / len(tokens)
    return moments


def _tokens(model: MiniLM, texts: Sequence[str]) -> Iterator[NDArray[np.float32]]:
    read = sorted((one.ids for one in model.tokenise(texts)), key=len)
    for start in range(0, len(read), _BATCH):
        batch = read[start : start + _BATCH]
        for tokens, hidden in zip(batch, model.hidden(batch)[0], strict=True):
            own = hidden[1 : len(tokens) - 1]
            yield own / np.linalg.norm(own, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
