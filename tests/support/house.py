"""A provider of one's own as a package would bring it: a wire format nobody else speaks, over the mesh's connections."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import aiohttp

from services.inference.providers.contract import Chunk, FinishReason, ModelCall, Usage
from services.inference.providers.http import Endpoint, HttpCall, HttpProvider
from services.inference.providers.refusals import broken_by
from services.inference.providers.sse import ServerEvent


class HouseDialect:
    """Says `{"say": …}` a piece and `{"over": …}` at the end."""

    def request(self, call: ModelCall) -> HttpCall:
        text = [message.text for message in call.messages]
        return HttpCall("/say", {"model": call.model, "text": text, "most": call.max_output_tokens})

    def reader(self, provider: str) -> HouseReader:
        return HouseReader(provider)


class HouseReader:
    """Reads one answer."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self.whole = False
        self.ended = False

    def read(self, event: ServerEvent) -> Chunk | None:
        data = json.loads(event.data)
        if error := data.get("error"):
            raise broken_by(error, provider=self._provider)
        if "over" not in data:
            return Chunk(data["say"], token_count=1)
        self.whole = self.ended = True
        usage = Usage(data["asked"], data["said"]) if "asked" in data else None
        return Chunk(finish_reason=FinishReason(data["over"]), usage=usage)

    def alike(self, events: bytes, at: int) -> tuple[None, int]:
        return None, at


def provider(name: str, options: Mapping[str, Any], session: aiohttp.ClientSession) -> HttpProvider:
    """What its entry point names."""
    proof = {"authorization": f"Bearer {options['api_key'].get_secret_value()}"}
    return HttpProvider(Endpoint(name, options["base_url"], proof), HouseDialect(), session)
