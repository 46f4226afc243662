"""Which processor computes: a decision over what onnxruntime was built with."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from shared.settings import BadSetting

_CUDA: Final = "CUDAExecutionProvider"
CPU: Final = "CPUExecutionProvider"


class Device(StrEnum):
    """Where vectors are computed. `auto` is CUDA when there is one."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class DeviceMissing(BadSetting):
    """The device that was demanded is not there: the service must not start on another one in silence."""

    setting = "AGENTNET_INFERENCE_EMBEDDING_DEVICE"

    def __init__(self, available: Sequence[str], *, loaded: Sequence[str] = ()) -> None:
        if _CUDA in available:
            found = f"CUDA did not load, the session runs on {', '.join(loaded)}; check the driver"
        else:
            found = f"this onnxruntime has only {', '.join(available)}; install onnxruntime-gpu in its place"
        super().__init__(f"embedding_device is cuda, but {found}, or set embedding_device to auto or cpu")


def built_for_cuda() -> bool:
    """Whether the onnxruntime that is installed carries CUDA, told without loading it."""
    spec = find_spec("onnxruntime")
    return bool(spec and spec.origin and any(Path(spec.origin).parent.glob("capi/*providers_cuda*")))


def providers(device: Device, available: Sequence[str]) -> list[str]:
    """The execution providers to ask for, best first. Raises DeviceMissing."""
    if device is Device.CPU or (device is Device.AUTO and _CUDA not in available):
        return [CPU]
    if _CUDA not in available:
        raise DeviceMissing(available)
    return [_CUDA, CPU]


def loaded(device: Device, available: Sequence[str], session: Sequence[str]) -> Device:
    """The device a session really has: onnxruntime falls back without an error. Raises DeviceMissing."""
    if _CUDA in session:
        return Device.CUDA
    if device is Device.CUDA:
        raise DeviceMissing(available, loaded=session)
    return Device.CPU
