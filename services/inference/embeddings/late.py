"""The embedded embedding model as a service starts it: what runs on the CPU is imported with its first text."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from importlib import import_module
from typing import Final

from services.inference.embeddings import device as devices
from services.inference.embeddings.arithmetic import Arithmetic
from services.inference.embeddings.contract import Computed, TokenIds, Tokenised, VectorModel
from services.inference.embeddings.device import Device
from shared.log import log

MODEL: Final = "minilm-l6-v2"
_MODULE: Final = "services.inference.embeddings.minilm"


class LateMiniLM:
    """MiniLM on the CPU: a replica that embeds nothing does without its 100 MB, and the 30 MB of its libraries."""

    name = MODEL

    def __init__(self, *, threads: int = 1, arithmetic: Arithmetic = Arithmetic.AUTO) -> None:
        self._threads = threads
        self._arithmetic = arithmetic
        self._loading = threading.Lock()  # texts are tokenised in one thread and computed in another
        self._loaded: VectorModel | None = None

    def tokenise(self, texts: Sequence[str]) -> list[Tokenised]:
        return self._model().tokenise(texts)

    def vectors(self, texts: Sequence[TokenIds]) -> list[Computed]:
        return self._model().vectors(texts)

    def _model(self) -> VectorModel:
        with self._loading:
            if self._loaded is None:
                model = import_module(_MODULE).MiniLM(Device.CPU, threads=self._threads, arithmetic=self._arithmetic)
                log.info("embedding.loaded", model=MODEL, device=Device.CPU.value, int8=model.int8)
                self._loaded = model
            return self._loaded


def here(device: Device, *, threads: int, arithmetic: Arithmetic = Arithmetic.AUTO) -> tuple[VectorModel, Device]:
    """The model on the device there is. What is to run on a GPU is loaded at once, to know that it does. Raises
    DeviceMissing.
    """
    if device is Device.CPU or (device is Device.AUTO and not devices.built_for_cuda()):
        return LateMiniLM(threads=threads, arithmetic=arithmetic), Device.CPU
    model = import_module(_MODULE).MiniLM(device, threads=threads, arithmetic=arithmetic)
    log.info("embedding.loaded", model=MODEL, device=model.device.value)
    return model, model.device
