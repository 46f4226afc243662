"""Classifiers of one's own, ONNX files in a folder: heads over the mesh's embeddings, or models that read text."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from services.policy.errors import ClassifierUnavailable

_TEXT: Final = "tensor(string)"
_VECTOR: Final = "tensor(float)"


@dataclass(frozen=True, slots=True)
class _Loaded:
    session: Any
    input: Any
    output: str


class Classifiers:
    """Models by name; each is loaded once, when a rule first asks for it. Needs the extra `policy-onnx`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loaded: dict[str, _Loaded] = {}

    def has(self, name: str) -> bool:
        """Whether there is such a model."""
        return (self._folder / f"{name}.onnx").is_file()

    async def reads_text(self, name: str) -> bool:
        """Whether the model wants the text itself and no vector of it. Raises ClassifierUnavailable."""
        return bool((await self._model(name)).input.type == _TEXT)

    async def rate(self, name: str, text: str, vector: Sequence[float]) -> float:
        """How surely the text, or its vector, is of the last class. Raises ClassifierUnavailable."""
        model = await self._model(name)
        score = await asyncio.to_thread(_run, model, name, text, vector)
        if not 0 <= score <= 1:
            raise ClassifierUnavailable(f"the classifier {name} gives {score:g} and no probability", model=name)
        return score

    async def _model(self, name: str) -> _Loaded:
        if name not in self._loaded:
            self._loaded[name] = await asyncio.to_thread(_load, self._folder / f"{name}.onnx", name)
        return self._loaded[name]


def _load(path: Path, name: str) -> _Loaded:
    if not path.is_file():
        raise ClassifierUnavailable(f"there is no classifier {name}", model=name)
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError:
        raise ClassifierUnavailable(
            "install agentnet[policy-onnx] for rules of type onnx_classifier", model=name
        ) from None
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    try:
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except _faults() as error:
        raise ClassifierUnavailable(f"the classifier {name} does not load: {error}", model=name) from None
    inputs, outputs = session.get_inputs(), session.get_outputs()
    rated = [one.name for one in outputs if one.type == _VECTOR]
    if len(inputs) != 1 or inputs[0].type not in (_TEXT, _VECTOR) or not rated:
        problem = f"the classifier {name} must take one tensor of texts or of floats and give one of floats"
        raise ClassifierUnavailable(problem, model=name)
    return _Loaded(session, inputs[0], rated[-1])


def _run(model: _Loaded, name: str, text: str, vector: Sequence[float]) -> float:
    numpy = importlib.import_module("numpy")
    given = numpy.array([text], dtype=object) if model.input.type == _TEXT else numpy.array([vector], numpy.float32)
    if len(model.input.shape) > given.ndim:
        given = given[:, None]
    try:
        (rated,) = model.session.run([model.output], {model.input.name: given})
    except _faults() as error:
        raise ClassifierUnavailable(
            f"the classifier {name} does not take what it is given: {error}", model=name
        ) from None
    return float(numpy.ravel(rated)[-1])


@cache
def _faults() -> tuple[type[Exception], ...]:
    """What the runtime raises: classes of its own, which have nothing in common but Exception."""
    own = vars(importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")).values()
    return ValueError, RuntimeError, *(one for one in own if isinstance(one, type) and issubclass(one, Exception))
