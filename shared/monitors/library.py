"""What a kind of thing to look for is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind: patterns, and a check of what they find. Kinds not `by_default` must be asked for by name."""

    patterns: tuple[str, ...]
    check: Callable[[str], bool] | None = None
    ignore_case: bool = False
    by_default: bool = True
