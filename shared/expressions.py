"""CEL (cel.dev) for all who judge by it: the package brings a command line whose terminal toolkit doubles a start."""

from __future__ import annotations

import sys
from types import ModuleType

sys.modules.setdefault("cel.cli", ModuleType("cel.cli"))

import cel  # noqa: E402 - after what it must not bring along

__all__ = ["cel"]
