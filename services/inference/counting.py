"""Tokens of a prompt, as the model's own tokenizer counts them where one is at hand."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from services.inference.providers.contract import Message, ModelCall, Part, Sampling, estimate_input
from services.inference.route import Model
from services.inference.tokenizers import Count, Tokenizers


class TokenCounter:
    """Counts for any model of the mesh. What is not text (media, tool calls) has no tokenizer here: it is estimated."""

    def __init__(self, tokenizers: Tokenizers) -> None:
        self._tokenizers = tokenizers

    async def count(self, model: Model, messages: Sequence[Message]) -> Count:
        """Tokens of the messages, with what the model's chat form adds."""
        text = await asyncio.to_thread(self._tokenizers.count, messages, model.tokenizer or model.name)
        others = sum(_beside_text(message) for message in messages)
        return replace(text, tokens=text.tokens + others, estimated=text.estimated or others > 0)


def _beside_text(message: Message) -> int:
    parts: tuple[Part, ...] = (*message.media, *message.tool_calls, *message.tool_results)
    if not parts:
        return 0
    return estimate_input(ModelCall("", (Message(message.role, parts),), Sampling(), 1))
