"""Where the embedded language model runs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from deploy.local.model_server import ALL_LAYERS, GpuMissing, gpu_layers


@pytest.mark.parametrize(
    ("device", "asked", "found", "layers"),
    [
        ("auto", ALL_LAYERS, ["CPU"], 0),
        ("auto", ALL_LAYERS, ["CPU", "GPU"], ALL_LAYERS),
        ("auto", 12, ["IGPU", "CPU"], 12),
        ("gpu", ALL_LAYERS, ["CPU", "GPU"], ALL_LAYERS),
        ("cpu", ALL_LAYERS, ["CPU", "GPU"], 0),
        ("auto", ALL_LAYERS, ["CPU", "ACCEL"], 0),
    ],
)
def test_layers_go_to_a_graphics_processor_where_there_is_one(
    device: str, asked: int, found: list[str], layers: int
) -> None:
    assert gpu_layers(device, asked, found) == layers


def test_a_graphics_processor_that_is_demanded_and_missing_is_named() -> None:
    with pytest.raises(GpuMissing, match="sees only CPU; install xllamacpp built for the processor"):
        gpu_layers("gpu", ALL_LAYERS, ["CPU"])
    with pytest.raises(ValueError, match="one of auto, cpu, gpu"):
        gpu_layers("tpu", ALL_LAYERS, ["CPU"])


def test_the_real_server_does_not_start_on_another_device_in_silence() -> None:
    pytest.importorskip("xllamacpp")
    environment = {
        **os.environ,
        "AGENTNET_MODEL_DEVICE": "tpu",
        "AGENTNET_MODEL_LISTEN": "127.0.0.1:1",
        "AGENTNET_MODEL_KEY": "k",
    }
    command = (sys.executable, "-m", "deploy.local.model_server")
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr.strip() == "AGENTNET_MODEL_DEVICE is one of auto, cpu, gpu, not tpu"
