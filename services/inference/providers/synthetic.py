"""The synthetic model, for tests, drills and measurements: the same prompt and seed give the same words, at any pace.

A prompt whose last message begins with `say: ` is answered with the rest of that message.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, Iterator
from datetime import timedelta
from typing import Final

from services.inference.providers.contract import Chunk, FinishReason, ModelCall, Usage, estimate_input

_SAY: Final = "say: "
_WORDS: Final = [
    "the",
    "mesh",
    "holds",
    "when",
    "one",
    "part",
    "fails",
    "because",
    "each",
    "node",
    "keeps",
    "a",
    "lease",
    "and",
    "a",
    "log",
    "so",
    "work",
    "goes",
    "on",
    "elsewhere",
    "while",
    "readers",
    "see",
    "no",
    "gap",
    "and",
    "money",
    "is",
    "settled",
    "once",
]
_PIECES: Final = re.compile(r"\S+\s*|\s+")


class SyntheticProvider:
    """One word is one token."""

    name = "synthetic"

    def __init__(self, gap: timedelta) -> None:
        self._gap = gap.total_seconds()

    async def stream(self, call: ModelCall) -> AsyncGenerator[Chunk, None]:
        produced, finish = 0, FinishReason.STOP
        for word in _answer(call):
            if produced == call.max_output_tokens:
                finish = FinishReason.LENGTH
                break
            # A model with no latency still lets others run: one turn of the loop a token.
            await asyncio.sleep(self._gap)
            yield Chunk(text=word, token_count=1)
            produced += 1
        yield Chunk(finish_reason=finish, usage=Usage(estimate_input(call), produced))


def _answer(call: ModelCall) -> Iterator[str]:
    last = call.messages[-1].text
    if last.startswith(_SAY):
        return iter(_PIECES.findall(last.removeprefix(_SAY)))
    seed = "" if call.sampling.seed is None else str(call.sampling.seed)
    return _endless("\n".join((seed, *(message.text for message in call.messages))))


def _endless(prompt: str) -> Iterator[str]:
    digest = hashlib.sha256(prompt.encode()).digest()
    while True:
        for byte in digest:
            yield _WORDS[byte % len(_WORDS)] + " "
        digest = hashlib.sha256(digest).digest()
