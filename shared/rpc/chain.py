"""The server's interceptors in order: log, errors, auth, deadline, the operator's own; one wrapper for each call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from types import TracebackType
from typing import Any, TypeAlias

import grpc

from shared.identity import HEADER, Verifier
from shared.rpc.auth import authenticate
from shared.rpc.deadline import within
from shared.rpc.errors import answer_with
from shared.rpc.log import entered, finished
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
        self._wrapped: dict[str, tuple[object, Handler]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None  # no such method: grpc answers UNIMPLEMENTED
        method = handler_call_details.method
        known, wrapped = self._wrapped.get(method, (None, None))
        if known is not handler:
            wrapped = self._wrap(handler, method)
            self._wrapped[method] = handler, wrapped
        return wrapped

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
            async with _Served(self._verifier_of(method), method, context, streaming=False):
                if self._middleware:
                    async with self._own(method, context):
                        return await call(parse(request), context)
                return await call(parse(request), context)

        return unary

    def _stream(self, call: Any, method: str, parse: Parse) -> Any:
        async def stream(request: bytes, context: Context) -> AsyncIterator[Any]:
            async with (
                _Served(self._verifier_of(method), method, context, streaming=True),
                self._own(method, context),
                aclosing(call(parse(request), context)) as responses,
            ):
                async for response in responses:
                    yield response

        return stream

    def _verifier_of(self, method: str) -> Verifier | None:
        return None if method.startswith(self._open) else self._verifier

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


class _Served:
    """One call: its line in the log, its errors, its caller, its deadline. Four contexts made of generators would take
    as long as the whole of a short call.
    """

    __slots__ = ("_context", "_entered", "_limit", "_method", "_streaming", "_verifier")

    def __init__(self, verifier: Verifier | None, method: str, context: Context, *, streaming: bool) -> None:
        self._verifier = verifier
        self._method = method
        self._context = context
        self._streaming = streaming
        self._limit: asyncio.Timeout | None = None

    async def __aenter__(self) -> None:
        metadata = self._context.invocation_metadata() or ()  # made anew by each call of it
        self._entered = entered(metadata)
        try:
            if self._verifier:
                authenticate(metadata, self._verifier)
            self._limit = within(self._context, streaming=self._streaming)
            if self._limit:
                await self._limit.__aenter__()
        except BaseException as error:
            await self._ended(error)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._limit:
            try:
                await self._limit.__aexit__(kind, error, trace)
            except TimeoutError as late:
                error = late
        await self._ended(error)

    async def _ended(self, error: BaseException | None) -> None:
        try:
            if error:
                await answer_with(error, self._method, self._context)
        finally:
            finished(self._method, self._context, self._entered)
