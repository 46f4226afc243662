"""How the embedded model is computed on a CPU: in int8 where the processor multiplies int8 in one instruction, else in
floats. Vectors are the same but for rounding.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Final

# Without these products of bytes are summed in 16 bits, and overflow.
_DOT_PRODUCTS: Final = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
_PROCESSOR: Final = Path("/proc/cpuinfo")


class Arithmetic(StrEnum):
    """`auto` is int8 where the processor has dot products of bytes."""

    AUTO = "auto"
    FLOAT = "float"


def in_int8(chosen: Arithmetic, processor: Path = _PROCESSOR) -> bool:
    """Whether to compute in int8 here. What the processor can is known on Linux alone."""
    if chosen is Arithmetic.FLOAT or not processor.is_file():
        return False
    flags = next((line for line in processor.read_text().splitlines() if line.startswith("flags")), "")
    return not _DOT_PRODUCTS.isdisjoint(flags.split())
