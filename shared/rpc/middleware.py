"""Middleware of the operator's own: what runs around every call of a service, in the order it is named in."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Call:
    """A call that was admitted; whose it is, `shared.identity.current()` tells. The metadata is without credentials."""

    method: str
    metadata: Mapping[str, str]


# Entered before the handler and left after it, of a stream after its end. A MeshError it raises is the caller's
# answer; what the handler raises passes through it.
Middleware = Callable[[Call], AbstractAsyncContextManager[None]]


def load(names: Sequence[str]) -> tuple[Middleware, ...]:
    """Each by the name of its factory, `package.module:factory`. Raises ImportError and AttributeError."""
    found = []
    for name in names:
        module, _, factory = name.partition(":")
        found.append(getattr(importlib.import_module(module), factory)())
    return tuple(found)
