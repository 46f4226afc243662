"""Between a gRPC error at the client's side and a MeshError."""

from __future__ import annotations

import grpc
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from shared.errors import STATUS_TRAILER, MeshError, Unavailable, from_status

# Without our details these are gRPC's own words for a stream that was reset under the call.
_TRANSPORT = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)


def from_rpc(error: grpc.aio.AioRpcError) -> MeshError:
    """The MeshError the server raised, or one that says the call never got there."""
    for key, value in error.trailing_metadata() or ():
        if key == STATUS_TRAILER and isinstance(value, bytes):
            try:
                return from_status(status_pb2.Status.FromString(value))
            except DecodeError:
                break
    if error.code() in _TRANSPORT:
        return Unavailable("the connection broke in the middle of the call", why=error.details() or "")
    message = error.details() or error.code().name.lower()
    return from_status(status_pb2.Status(code=error.code().value[0], message=message))
