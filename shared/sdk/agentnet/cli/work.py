"""How a command does its work: to its end, or until the person stops watching."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any

from rich.console import Console

err = Console(stderr=True, highlight=False)


def do(work: Coroutine[Any, Any, None], *, what: str) -> None:
    """Runs the work. Ctrl-C ends the watching with 130; what was watched goes on."""
    try:
        asyncio.run(work)
    except KeyboardInterrupt:
        err.print(f"\nstopped watching; the {what} goes on")
        sys.exit(130)
