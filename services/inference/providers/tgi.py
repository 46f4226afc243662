"""Text Generation Inference's own stream (huggingface.co/docs/text-generation-inference): no chat template needed."""

from __future__ import annotations

import json
from typing import Any, Final

from services.inference.providers.contract import Chunk, FinishReason, Message, ModelCall, Role, Usage
from services.inference.providers.http import HttpCall
from services.inference.providers.refusals import broken_by
from services.inference.providers.sse import ServerEvent

_FINISH: Final = {
    "length": FinishReason.LENGTH,
    "eos_token": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
}


class GenerateStreamDialect:
    """`/generate_stream`: a prompt in, tokens out. Its usage has no prompt tokens: they are counted here."""

    def request(self, call: ModelCall) -> HttpCall:
        sampling, form = call.sampling, call.response_format
        chosen = {
            "temperature": sampling.temperature or None,  # 0 is refused: greedy is the default
            "top_p": sampling.top_p if sampling.top_p != 1 else None,
            "frequency_penalty": sampling.frequency_penalty,
            "seed": sampling.seed,
            "stop": list(sampling.stop) or None,
            "grammar": {"type": "json", "value": dict(form.json_schema)} if form else None,
        }
        parameters: dict[str, Any] = {"max_new_tokens": call.max_output_tokens, "details": True}
        parameters |= {name: value for name, value in chosen.items() if value is not None}
        return HttpCall("/generate_stream", {"inputs": _prompt(call.messages), "parameters": parameters})

    def reader(self, provider: str) -> GenerateStreamReader:
        return GenerateStreamReader(provider)


class GenerateStreamReader:
    """Reads one event a token; the last one has the details."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self.whole = False
        self.ended = False

    def alike(self, events: bytes, at: int) -> tuple[None, int]:
        """Each event is read by itself."""
        return None, at

    def read(self, event: ServerEvent) -> Chunk | None:
        data = json.loads(event.data)
        if data.get("error"):
            raise broken_by(data, provider=self._provider)
        token = data["token"]
        text = "" if token.get("special") else token["text"]
        details = data.get("details")
        if data.get("generated_text") is None and details is None:
            return Chunk(text, 1) if text else None
        self.whole = self.ended = True
        finish = _FINISH.get((details or {}).get("finish_reason") or "", FinishReason.STOP)
        generated = (details or {}).get("generated_tokens") or 0
        usage = Usage(0, generated, estimated=True) if generated else None
        return Chunk(text, int(bool(text)), finish, usage)


def _prompt(messages: tuple[Message, ...]) -> str:
    said = "\n".join(f"{message.name or message.role.value}: {message.text}" for message in messages)
    return f"{said}\n{Role.ASSISTANT.value}: "
