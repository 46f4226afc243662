"""CEL (cel.dev) for all who judge by it: the package brings a command line whose terminal toolkit doubles a start."""

from __future__ import annotations

import re
import sys
from types import ModuleType
from typing import Any, Final

sys.modules.setdefault("cel.cli", ModuleType("cel.cli"))

import cel  # noqa: E402 - after what it must not bring along

# What the language's own library has (github.com/google/cel-spec, "Standard Definitions"); nothing is added to it.
FUNCTIONS: Final = frozenset(
    {
        "size", "contains", "startsWith", "endsWith", "matches", "int", "uint", "double",
        "string", "bytes", "type", "dyn", "timestamp", "duration", "getFullYear", "getMonth",
        "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getHours", "getMinutes", "getSeconds",
        "getMilliseconds",
        "of", "none", "ofNonZeroValue", "hasValue", "value", "orValue", "or",
    }
)  # fmt: skip
_NAME: Final = re.compile(r"[A-Za-z]\w*")


def compiled(text: str) -> Any:
    """An expression ready to evaluate. Raises ValueError when it does not parse or calls an unknown function."""
    program = cel.compile(text)
    unknown = sorted(name for name in set(program.functions()) - FUNCTIONS if _NAME.fullmatch(name))
    if unknown:
        raise ValueError(f"there is no function {unknown[0]}; there are {', '.join(sorted(FUNCTIONS))}")
    return program
