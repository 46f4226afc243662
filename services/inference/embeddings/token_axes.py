"""Vectors of single tokens, made small: along the axes in which the embedded model's tokens differ most.

The axes are `token_axes.npy`, which deploy/codegen/token_axes.py writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.products import product

WIDTH: Final = 64
# Of a longer text the first ones.
MOST: Final = 96
# A byte is so many times the component of a vector of unit length.
SCALE: Final = 127
_AXES: Final = np.load(Path(__file__).with_name("token_axes.npy")).astype(np.float32)


def packed(hidden: NDArray[np.float32], lengths: Sequence[int]) -> list[bytes]:
    """The first tokens of each row, as many as it has, each `WIDTH` bytes."""
    first = hidden[:, :MOST]
    small = product(first.reshape(-1, first.shape[2]), _AXES).reshape(*first.shape[:2], WIDTH)
    unit = small / np.maximum(np.linalg.norm(small, axis=2, keepdims=True), np.finfo(np.float32).tiny)
    whole = np.rint(unit * SCALE).astype(np.int8)
    return [row[: max(length, 0)].tobytes() for row, length in zip(whole, lengths, strict=True)]
