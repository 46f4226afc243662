"""Texts as a model reads them: cut to its window, and padded to the longest of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from services.inference.embeddings.contract import TokenIds, Tokenised


class Tokens:
    """A tokenizer.json and a window."""

    def __init__(self, file: Path, window: int) -> None:
        """Raises what the tokenizer says of a file it cannot read."""
        self._tokenizer = Tokenizer.from_file(str(file))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._window = window

    def tokenise(self, texts: Sequence[str]) -> list[Tokenised]:
        return [self._cut(encoding) for encoding in self._tokenizer.encode_batch(list(texts))]

    def words(self) -> list[str]:
        """The vocabulary, in its order."""
        known = self._tokenizer.get_vocab()
        return sorted(known, key=known.__getitem__)

    def _cut(self, encoding: Encoding) -> Tokenised:
        ids: TokenIds = encoding.ids
        if len(ids) <= self._window:
            return Tokenised(ids, cut=False)
        return Tokenised([*ids[: self._window - 1], ids[-1]], cut=True)  # the end marker stays


def padded(texts: Sequence[TokenIds]) -> dict[str, NDArray[np.int64]]:
    """A model's inputs by the names that models of BERT's kind have for them."""
    longest = max(map(len, texts))
    ids, mask = np.zeros((2, len(texts), longest), dtype=np.int64)
    for row, tokens in enumerate(texts):
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
