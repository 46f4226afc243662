"""Products of matrices by the calling thread alone: spread over cores, small ones cost more to wait for than to do."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

# Multiplications up to which OpenBLAS keeps to one thread.
_SMALL: Final = 262_144


def product(rows: NDArray[np.float32], columns: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same as `rows @ columns`, a few rows at a time."""
    step = max(_SMALL // max(columns.size, 1), 1)
    whole = len(rows) - len(rows) % step
    parts = rows[:whole].reshape(-1, step, rows.shape[1]) @ columns
    return np.concatenate([parts.reshape(whole, columns.shape[1]), rows[whole:] @ columns])
