"""The server's interceptors in order: log, errors, auth, deadline, the operator's own; one wrapper for each call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any, TypeAlias

import grpc

from shared.identity import HEADER, Verifier
from shared.rpc.auth import authenticate
from shared.rpc.deadline import deadline
from shared.rpc.errors import errors
from shared.rpc.log import logged
from shared.rpc.middleware import Call, Middleware

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"
Parse = Callable[[bytes], Any]


class Chain(grpc.aio.ServerInterceptor):
    """All of ours in one, so that a streamed message passes one wrapper and not five.

    Requests are parsed inside the chain: a malformed message is an error like any other.
    """

    def __init__(
        self, verifier: Verifier, *, open_to_all: tuple[str, ...], middleware: tuple[Middleware, ...] = ()
    ) -> None:
        self._verifier = verifier
        self._open = open_to_all
        self._middleware = middleware

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None  # no such method: grpc answers UNIMPLEMENTED
        return self._wrap(handler, handler_call_details.method)

    def _wrap(self, handler: grpc.RpcMethodHandler[Any, Any], method: str) -> Handler:
        parse: Parse = handler.request_deserializer or bytes
        if handler.request_streaming:  # none of the contract does; reflection does, and needs none of this
            return handler if method.startswith(self._open) else None
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(handler.unary_stream, method, parse), bytes, handler.response_serializer
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(handler.unary_unary, method, parse), bytes, handler.response_serializer
        )

    def _unary(self, call: Any, method: str, parse: Parse) -> Any:
        async def unary(request: bytes, context: Context) -> Any:
            async with self._around(method, context, streaming=False):
                return await call(parse(request), context)

        return unary

    def _stream(self, call: Any, method: str, parse: Parse) -> Any:
        async def stream(request: bytes, context: Context) -> AsyncIterator[Any]:
            async with (
                self._around(method, context, streaming=True),
                aclosing(call(parse(request), context)) as responses,
            ):
                async for response in responses:
                    yield response

        return stream

    @asynccontextmanager
    async def _around(self, method: str, context: Context, *, streaming: bool) -> AsyncIterator[None]:
        async with logged(method, context), errors(method, context):
            if not method.startswith(self._open):
                authenticate(context, self._verifier)
            async with deadline(context, streaming=streaming), self._own(method, context):
                yield

    @asynccontextmanager
    async def _own(self, method: str, context: Context) -> AsyncIterator[None]:
        if not self._middleware or method.startswith(self._open):
            yield
            return
        given = {key: str(value) for key, value in context.invocation_metadata() or () if key != HEADER}
        async with AsyncExitStack() as stack:
            for middleware in self._middleware:
                await stack.enter_async_context(middleware(Call(method, given)))
            yield
