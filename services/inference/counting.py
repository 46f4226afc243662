"""Tokens of a prompt and of what a model wrote, by the model's own tokenizer where one is at hand."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from services.inference.providers.contract import (
    Message,
    ModelCall,
    Part,
    Sampling,
    Usage,
    estimate_input,
    estimate_tools,
)
from services.inference.route import Model
from services.inference.tokenizers import Count, Tokenizers, TokenizerUnknown
from services.inference.transcript import Written, believed
from shared.log import log


class TokenCounter:
    """Counts for any model of the mesh. What is not text (media, tool calls) has no tokenizer here: it is estimated."""

    def __init__(self, tokenizers: Tokenizers) -> None:
        self._tokenizers = tokenizers

    async def count(self, model: Model, messages: Sequence[Message]) -> Count:
        """Tokens of the messages, with what the model's chat form adds."""
        return await asyncio.to_thread(self._count, _tokenizer(model), messages)

    async def spent(self, model: Model, call: ModelCall, written: Written) -> Usage:
        """What an attempt used that its provider did not count, or not wholly: what the provider said of it stays."""
        return await asyncio.to_thread(self._spent, _tokenizer(model), call, written)

    def _count(self, name: str, messages: Sequence[Message]) -> Count:
        text = self._tokenizers.count(messages, name)
        others = sum(_beside_text(message) for message in messages)
        return replace(text, tokens=text.tokens + others, estimated=text.estimated or others > 0)

    def _spent(self, name: str, call: ModelCall, written: Written) -> Usage:
        known = written.usage or Usage(0, 0)
        asked, produced = known.input_tokens, known.output_tokens
        try:
            own = self._tokenizers.known(name)
            if not asked:
                asked = self._count(name, call.messages).tokens + estimate_tools(call) if own else estimate_input(call)
            if not produced:
                count = self._tokenizers.count_text(written.text, name).tokens
                produced = max(written.pieces, count) if own else believed(written.pieces, count)
        except (TokenizerUnknown, OSError) as error:
            log.warning("tokens.not_counted", model=name, error=str(error))
            asked, produced = asked or estimate_input(call), produced or written.counted
        return replace(known, input_tokens=asked, output_tokens=produced, estimated=True)


def _tokenizer(model: Model) -> str:
    return model.tokenizer or model.name


def _beside_text(message: Message) -> int:
    parts: tuple[Part, ...] = (*message.media, *message.tool_calls, *message.tool_results)
    if not parts:
        return 0
    return estimate_input(ModelCall("", (Message(message.role, parts),), Sampling(), 1))
