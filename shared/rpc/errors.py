"""The interceptor that turns every error into google.rpc.Status, and the unexpected into an opaque INTERNAL."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from shared.errors import STATUS_TRAILER, DeadlineExceeded, Internal, InvalidArgument, MeshError, Reason
from shared.log import log
from shared.rpc.status import from_rpc

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


@asynccontextmanager
async def errors(method: str, context: Context) -> AsyncIterator[None]:
    """Ends the call with the error raised inside; a cancelled call stays cancelled."""
    try:
        yield
    except (asyncio.CancelledError, grpc.aio.AbortError, GeneratorExit):
        raise
    except MeshError as error:
        await abort(context, error)
    except grpc.aio.AioRpcError as error:
        await abort(context, from_rpc(error))
    except DecodeError:
        problem = "the message does not parse; check that the client has this mesh's contract"
        await abort(context, InvalidArgument(problem, field="(message)", reason=Reason.ERROR_REASON_MESSAGE_MALFORMED))
    except TimeoutError:
        await abort(context, DeadlineExceeded("the deadline passed before the work was done"))
    except Exception as error:  # noqa: BLE001 - the last interceptor: nothing unexpected may reach a caller
        reference = secrets.token_hex(8)
        log.error("rpc.fault", method=method, reference=reference, exc_info=error)
        await abort(context, Internal("internal error; quote the reference to an operator", reference=reference))


async def abort(context: Context, error: MeshError) -> None:
    """Ends the call with this error."""
    trailer = ((STATUS_TRAILER, error.status().SerializeToString()),)
    await context.abort(error.code, error.message, trailer)
