"""The interceptor that lets nobody in without an identity signed by this mesh."""

from __future__ import annotations

from typing import Any, TypeAlias

import grpc

from shared import identity
from shared.errors import Unauthenticated

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


def authenticate(context: Context, verifier: identity.Verifier) -> None:
    """Makes the caller of this call the current principal. Raises Unauthenticated without a valid header."""
    for key, value in context.invocation_metadata() or ():
        if key == identity.HEADER and isinstance(value, str):
            identity.enter(verifier.verify(value), value)
            return
    raise Unauthenticated("the call carries no identity; call through Envoy")
