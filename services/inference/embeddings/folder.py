"""An operator's own embedding model: a folder with model.onnx, tokenizer.json and embedding.json."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import onnxruntime
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.inference.embeddings import device as devices
from services.inference.embeddings.contract import Computed, TokenIds, Tokenised, Worded
from services.inference.embeddings.device import Device
from services.inference.embeddings.tokens import Tokens, padded

_MODEL: Final = "model.onnx"
_TOKENIZER: Final = "tokenizer.json"
_SETTINGS: Final = "embedding.json"
# Quantises a whole batch by its largest number.
_BY_BATCH: Final = b"DynamicQuantizeLinear"


class FolderInvalid(ValueError):
    """The folder holds no model that can be used. Says which file, and why."""


class FolderSettings(BaseModel):
    """embedding.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = Field(ge=1, le=8192, description="numbers in a vector")
    pooling: Literal["mean", "cls", "none"] = Field(
        default="mean", description="a text's vector is its tokens' mean, its first token's, or what the model gives"
    )
    window: int = Field(default=512, ge=2, le=8192, description="tokens a text is cut to, marks included")
    query_prefix: str = Field(default="", max_length=1000, description="stands before what is searched with")
    passage_prefix: str = Field(default="", max_length=1000, description="stands before what is kept")
    sha256: str = Field(default="", pattern="^([0-9a-f]{64})?$", description="of model.onnx; empty: not checked")


class FolderModel:
    """Vectors are scaled to unit length. Its tokens have no vectors of their own."""

    def __init__(self, name: str, folder: Path, device: Device, *, threads: int = 1) -> None:
        """Raises FolderInvalid, and DeviceMissing."""
        settings = _settings(folder)
        weights = _model(folder, settings)
        self.name = name
        self.worded = Worded(settings.query_prefix, settings.passage_prefix)
        self.by_batch = _BY_BATCH in weights
        self.version = hashlib.sha256(weights + settings.model_dump_json().encode()).hexdigest()
        self._settings = settings
        self._tokens = _tokens(folder, settings.window)
        available = onnxruntime.get_available_providers()
        self._session = _session(weights, threads, devices.providers(device, available))
        self.device = devices.loaded(device, available, self._session.get_providers())
        self._inputs = [given.name for given in self._session.get_inputs()]
        self._tried()

    def tokenise(self, texts: Sequence[str]) -> list[Tokenised]:
        return self._tokens.tokenise(texts)

    def vectors(self, texts: Sequence[TokenIds]) -> list[Computed]:
        given = padded(texts)
        (found, *_) = self._session.run(None, {name: given[name] for name in self._inputs})
        if self._settings.pooling == "cls":
            found = found[:, 0]
        elif self._settings.pooling == "mean":
            weights = given["attention_mask"][..., None].astype(np.float32)
            found = (found * weights).sum(axis=1) / weights.sum(axis=1)
        size = np.maximum(np.linalg.norm(found, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        return [Computed(tuple(row)) for row in (found / size).tolist()]

    def _tried(self) -> None:
        """Computes one text, to know before anybody asks that it can."""
        if strange := sorted(set(self._inputs) - padded([[0]]).keys()):
            raise FolderInvalid(f"{_MODEL} wants {', '.join(strange)}; known are {', '.join(padded([[0]]))}")
        rank = 2 if self._settings.pooling == "none" else 3
        shape = self._session.get_outputs()[0].shape
        if len(shape) != rank:
            wants = f"pooling {self._settings.pooling} needs {rank}: choose another pooling in {_SETTINGS}"
            raise FolderInvalid(f"the first output of {_MODEL} has {len(shape)} dimensions, and {wants}")
        try:
            ((vector, _),) = self.vectors([self.tokenise(["one"])[0].ids])
        except Exception as error:
            raise FolderInvalid(f"{_MODEL} cannot compute a text of {_TOKENIZER}: {_first_line(error)}") from error
        if len(vector) != self._settings.width:
            raise FolderInvalid(f"{_MODEL} makes vectors {len(vector)} wide, {_SETTINGS} says {self._settings.width}")


def _settings(folder: Path) -> FolderSettings:
    try:
        return FolderSettings.model_validate_json(_read(folder, _SETTINGS))
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(part) for part in fault["loc"])
        raise FolderInvalid(f"{_SETTINGS}: {place + ': ' if place else ''}{fault['msg']}") from None


def _model(folder: Path, settings: FolderSettings) -> bytes:
    weights = _read(folder, _MODEL)
    found = hashlib.sha256(weights).hexdigest()
    if settings.sha256 not in {"", found}:
        raise FolderInvalid(f"{_MODEL} has the SHA-256 {found}, {_SETTINGS} says {settings.sha256}")
    return weights


def _tokens(folder: Path, window: int) -> Tokens:
    _read(folder, _TOKENIZER)
    try:
        return Tokens(folder / _TOKENIZER, window)
    except Exception as error:  # the library has no narrower one
        raise FolderInvalid(f"{_TOKENIZER}: {_first_line(error)}") from error


def _session(weights: bytes, threads: int, providers: Sequence[str]) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(weights, options, providers=providers)
    except Exception as error:  # each of its faults is a class of its own
        raise FolderInvalid(f"{_MODEL}: {_first_line(error)}") from error


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise FolderInvalid(f"{name}: {error.strerror}") from None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
