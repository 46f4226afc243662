"""The interceptor that turns every error into google.rpc.Status, and the unexpected into an opaque INTERNAL."""

from __future__ import annotations

import secrets
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from shared.errors import STATUS_TRAILER, DeadlineExceeded, Internal, InvalidArgument, MeshError, Reason
from shared.log import log
from shared.rpc.status import from_rpc

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


async def answer_with(error: BaseException, method: str, context: Context) -> None:
    """Ends the call with the error; a cancelled call stays cancelled."""
    if isinstance(error, MeshError):
        await abort(context, error)
    elif isinstance(error, grpc.aio.AioRpcError):
        await abort(context, from_rpc(error))
    elif isinstance(error, DecodeError):
        problem = "the message does not parse; check that the client has this mesh's contract"
        await abort(context, InvalidArgument(problem, field="(message)", reason=Reason.ERROR_REASON_MESSAGE_MALFORMED))
    elif isinstance(error, TimeoutError):
        await abort(context, DeadlineExceeded("the deadline passed before the work was done"))
    elif isinstance(error, Exception) and not isinstance(error, grpc.aio.AbortError):  # nothing unexpected gets out
        reference = secrets.token_hex(8)
        log.error("rpc.fault", method=method, reference=reference, exc_info=error)
        await abort(context, Internal("internal error; quote the reference to an operator", reference=reference))


async def abort(context: Context, error: MeshError) -> None:
    """Ends the call with this error."""
    trailer = ((STATUS_TRAILER, error.status().SerializeToString()),)
    await context.abort(error.code, error.message, trailer)
