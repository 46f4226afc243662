"""A whole answer as data, and providers that give one without a model: from the cache, or from another call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from pydantic import BaseModel, ConfigDict

from agentnet.inference.v1 import generation_pb2
from agentnet.inference.v1 import inference_service_pb2 as pb
from services.inference.errors import GenerationLost, GenerationNotFound, StreamBroken
from services.inference.providers.contract import Chunk, FinishReason, ModelCall, ToolDelta, Usage
from services.inference.transcript import Transcript
from shared.errors import Unavailable

_FINISH = {
    generation_pb2.FINISH_REASON_LENGTH: FinishReason.LENGTH,
    generation_pb2.FINISH_REASON_CONTENT_FILTER: FinishReason.CONTENT_FILTER,
    generation_pb2.FINISH_REASON_TOOL_CALLS: FinishReason.TOOL_CALLS,
}
_PIECE = 1024
_NOT_WELL = "the call that was shared did not end well"


class AskedTool(BaseModel):
    """A tool call of an answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    name: str
    arguments: str


class Answer(BaseModel):
    """What a model answered, after policy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    tools: tuple[AskedTool, ...] = ()
    finish: FinishReason
    input_tokens: int
    output_tokens: int
    kept_at: float = 0.0
    """Seconds since 1970."""

    @classmethod
    def of(cls, transcript: Transcript) -> Answer:
        usage = transcript.spent()
        return cls(
            text=transcript.shown,
            tools=tuple(
                AskedTool(id=call.id, name=call.name, arguments=call.arguments) for call in transcript.tools_shown
            ),
            finish=transcript.finish,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
        )

    def chunks(self) -> list[Chunk]:
        """The answer as a stream, in pieces of about a thousand characters."""
        pieces = [self.text[start : start + _PIECE] for start in range(0, len(self.text), _PIECE)]
        said = [Chunk(piece, self.output_tokens if place == 0 else 0) for place, piece in enumerate(pieces)]
        tools = tuple(ToolDelta(index, tool.id, tool.name, tool.arguments) for index, tool in enumerate(self.tools))
        usage = Usage(self.input_tokens, self.output_tokens)
        return [*said, Chunk(tools=tools, finish_reason=self.finish, usage=usage)]


class KeptAnswer:
    """A provider that gives one kept answer."""

    def __init__(self, name: str, answer: Answer) -> None:
        self.name = name
        self._answer = answer

    async def stream(self, call: ModelCall) -> AsyncGenerator[Chunk, None]:
        for chunk in self._answer.chunks():
            await asyncio.sleep(0)
            yield chunk


class SharedAnswer:
    """A provider that listens to a generation of the same request while it runs, at whichever replica."""

    def __init__(self, name: str, leader: Callable[[], AsyncGenerator[bytes, None]]) -> None:
        self.name = name
        self._leader = leader

    async def stream(self, call: ModelCall) -> AsyncGenerator[Chunk, None]:
        index = 0
        async with aclosing(self._leader()) as events:
            async for data in self._whole(events):
                event = pb.GenerateResponse.FromString(data).event
                kind = event.WhichOneof("event")
                if kind in ("failed", "failover"):
                    raise StreamBroken(_NOT_WELL, provider=self.name)
                if chunk := _heard(event, kind, index):
                    index += bool(chunk.tools)
                    yield chunk

    async def _whole(self, events: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Its events. A leader whose replica died, or that nobody can be told of, is a broken stream."""
        try:
            async for data in events:
                yield data
        except (GenerationLost, GenerationNotFound, Unavailable) as error:
            raise StreamBroken(_NOT_WELL, provider=self.name) from error


def _heard(event: Any, kind: str | None, index: int) -> Chunk | None:
    match kind:
        case "text":
            return Chunk(event.text.text, event.text.token_count)
        case "reasoning":
            return Chunk(reasoning=event.reasoning.text, token_count=event.reasoning.token_count)
        case "tool_call":
            call = event.tool_call.tool_call
            return Chunk(tools=(ToolDelta(index, call.id, call.name, call.arguments),))
        case "finished":
            spent = event.finished.usage
            finish = _FINISH.get(event.finished.finish_reason, FinishReason.STOP)
            counts = (spent.input_tokens, spent.output_tokens, spent.cached_input_tokens, spent.reasoning_tokens)
            return Chunk(finish_reason=finish, usage=Usage(*counts, estimated=spent.estimated))
    return None
