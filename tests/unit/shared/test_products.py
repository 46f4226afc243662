"""Products of matrices in pieces: the same numbers, on one thread."""

from __future__ import annotations

import numpy as np
import pytest

from shared.products import product


@pytest.mark.parametrize("rows", [0, 1, 340, 342, 1_000])
@pytest.mark.parametrize("columns", [0, 1, 12, 5_000])
def test_a_product_in_pieces_is_the_product(rows: int, columns: int) -> None:
    numbers = np.random.default_rng(7)
    one = numbers.standard_normal((rows, 64)).astype(np.float32)
    other = numbers.standard_normal((columns, 64)).astype(np.float32).T
    found = product(one, other)
    assert found.shape == (rows, columns)
    assert np.allclose(found, one @ other, atol=1e-4)
