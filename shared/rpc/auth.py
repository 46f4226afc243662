"""The interceptor that lets nobody in without an identity signed by this mesh."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from shared import identity
from shared.errors import Unauthenticated

Metadata: TypeAlias = Iterable[tuple[str, str | bytes]]


def authenticate(metadata: Metadata, verifier: identity.Verifier) -> None:
    """Makes the caller of this call the current principal. Raises Unauthenticated without a valid header."""
    for key, value in metadata:
        if key == identity.HEADER and isinstance(value, str):
            identity.enter(verifier.verify(value), value)
            return
    raise Unauthenticated("the call carries no identity; call through Envoy")
