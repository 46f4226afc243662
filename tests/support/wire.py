"""Providers' real wire formats, written as their documentation shows them: one answer of each kind for each dialect."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.inference.catalog import Kind, ProviderEntry
from services.inference.providers.anthropic import MessagesDialect
from services.inference.providers.contract import Provider, Usage
from services.inference.providers.http import Dialect
from services.inference.providers.openai_chat import ChatDialect, azure
from services.inference.providers.openai_responses import ResponsesDialect
from services.inference.providers.tgi import GenerateStreamDialect
from services.inference.providers.tool_form import ToolForm
from services.inference.wiring import dialect
from tests.support.house import HouseDialect

Lines = list[bytes]


def sse(data: dict[str, Any], name: str = "") -> bytes:
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


@dataclass(frozen=True, slots=True)
class Wire:
    """How one dialect says things. `text` gives a stream of events that say words; `tools` one that asks for a tool in
    pieces; `error` what an error in the middle looks like. What a dialect does not have is empty. `around` is what
    stands around its provider.
    """

    dialect: Dialect
    path: str
    text: Callable[[Sequence[str]], Lines]
    usage: Usage
    error: bytes
    overloaded: bytes
    tools: Callable[[Sequence[str]], Lines] | None = None
    reasoning: Callable[[str], Lines] | None = None
    no_usage: Callable[[Sequence[str]], Lines] | None = None
    filtered: Lines = field(default_factory=list)
    around: Callable[[Provider], Provider] = lambda provider: provider
    too_long: tuple[int, dict[str, Any]] = (400, {})


def _chat(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return sse({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]})


_CHAT_USAGE = sse(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "choices": [],
        "usage": {
            "prompt_tokens": 12,
            "completion_tokens": 5,
            "total_tokens": 17,
            "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 2},
        },
    }
)
_DONE = b"data: [DONE]\n\n"


def _chat_text(words: Sequence[str]) -> Lines:
    said = [_chat({"content": word}) for word in words]
    return [_chat({"role": "assistant", "content": ""}), *said, _chat({}, "stop"), _CHAT_USAGE, _DONE]


def _chat_without_usage(words: Sequence[str]) -> Lines:
    return [*(_chat({"content": word}) for word in words), _chat({}, "stop"), _DONE]


def _chat_tools(pieces: Sequence[str]) -> Lines:
    first = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": ""}}
    rest = [_chat({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}) for piece in pieces]
    return [_chat({"tool_calls": [first]}), *rest, _chat({}, "tool_calls"), _CHAT_USAGE, _DONE]


def _chat_wire(dialect: Dialect, path: str) -> Wire:
    return Wire(
        dialect=dialect,
        path=path,
        text=_chat_text,
        usage=Usage(12, 5, 4, 2),
        error=sse({"error": {"message": "secret prompt", "type": "server_error", "code": None}}),
        overloaded=sse({"error": {"message": "secret prompt", "type": "overloaded_error", "code": "slow_down"}}),
        tools=_chat_tools,
        reasoning=lambda thought: [
            _chat({"reasoning_content": thought}), _chat({"content": "So."}), _chat({}, "stop"), _DONE,
        ],
        no_usage=_chat_without_usage,
        filtered=[_chat({"content": "Half"}), _chat({}, "content_filter"), _DONE],
        too_long=(400, {"error": {"message": "too long", "code": "context_length_exceeded"}}),
    )  # fmt: skip


def _response(status: str, **changes: Any) -> dict[str, Any]:
    usage = {
        "input_tokens": 12,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 17,
    }
    return {"id": "resp_1", "object": "response", "status": status, "usage": usage, **changes}


def _responded(kind: str, **data: Any) -> bytes:
    return sse({"type": kind, "sequence_number": 1, **data}, kind)


_RESPONSE_BEGINS = [
    _responded("response.created", response=_response("in_progress", usage=None)),
    _responded("response.output_item.added", output_index=0, item={"type": "message", "id": "m1", "content": []}),
]


def _responses_text(words: Sequence[str]) -> Lines:
    said = [_responded("response.output_text.delta", output_index=0, content_index=0, delta=word) for word in words]
    done = _responded("response.output_text.done", output_index=0, text="".join(words))
    return [*_RESPONSE_BEGINS, *said, done, _responded("response.completed", response=_response("completed"))]


def _responses_tools(pieces: Sequence[str]) -> Lines:
    item = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "look_up", "arguments": ""}
    deltas = [
        _responded("response.function_call_arguments.delta", output_index=0, item_id="fc_1", delta=piece)
        for piece in pieces
    ]
    added = _responded("response.output_item.added", output_index=0, item=item)
    return [added, *deltas, _responded("response.completed", response=_response("completed"))]


def _responses_without_usage(words: Sequence[str]) -> Lines:
    said = [_responded("response.output_text.delta", output_index=0, content_index=0, delta=word) for word in words]
    return [*said, _responded("response.completed", response=_response("completed", usage=None))]


def _messages(kind: str, **data: Any) -> bytes:
    return sse({"type": kind, **data}, kind)


_MESSAGE_START = _messages(
    "message_start",
    message={
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "content": [],
        "usage": {
            "input_tokens": 8,
            "cache_read_input_tokens": 4,
            "cache_creation_input_tokens": 0,
            "output_tokens": 1,
        },
    },
)
_PING = _messages("ping")


def _message_end(reason: str, usage: dict[str, int] | None = None) -> Lines:
    delta = {"stop_reason": reason, "stop_sequence": None}
    return [_messages("message_delta", delta=delta, usage=usage or {"output_tokens": 5}), _messages("message_stop")]


def _block(index: int, block: dict[str, Any], deltas: Sequence[dict[str, Any]]) -> Lines:
    said = [_messages("content_block_delta", index=index, delta=delta) for delta in deltas]
    started = _messages("content_block_start", index=index, content_block=block)
    return [started, *said, _messages("content_block_stop", index=index)]


def _anthropic_text(words: Sequence[str]) -> Lines:
    deltas = [{"type": "text_delta", "text": word} for word in words]
    return [_MESSAGE_START, _PING, *_block(0, {"type": "text", "text": ""}, deltas), *_message_end("end_turn")]


def _anthropic_tools(pieces: Sequence[str]) -> Lines:
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    block = {"type": "tool_use", "id": "call_1", "name": "look_up", "input": {}}
    return [_MESSAGE_START, *_block(0, block, deltas), *_message_end("tool_use")]


def _anthropic_reasoning(thought: str) -> Lines:
    thinking = _block(0, {"type": "thinking", "thinking": ""}, [
        {"type": "thinking_delta", "thinking": thought}, {"type": "signature_delta", "signature": "EqQB"},
    ])  # fmt: skip
    said = _block(1, {"type": "text", "text": ""}, [{"type": "text_delta", "text": "So."}])
    return [_MESSAGE_START, *thinking, *said, *_message_end("end_turn")]


def _tgi_token(text: str, place: int, **last: Any) -> bytes:
    token = {"id": place, "text": text, "logprob": -0.1, "special": False}
    return b"data:" + json.dumps({"index": place, "token": token, "generated_text": None, "details": None, **last},
                                 ensure_ascii=False).encode() + b"\n\n"  # fmt: skip


def _tgi_text(words: Sequence[str]) -> Lines:
    said = [_tgi_token(word, place) for place, word in enumerate(words)]
    end = {"index": len(words), "token": {"id": 2, "text": "</s>", "logprob": -0.1, "special": True}}
    details = {"finish_reason": "eos_token", "generated_tokens": 5, "seed": None}
    return [*said, sse({**end, "generated_text": "".join(words), "details": details})]


def _llama(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    choices = [{"finish_reason": finish, "index": 0, "delta": delta}]
    last = {
        "created": 1,
        "id": "chatcmpl-1",
        "model": "m",
        "system_fingerprint": "b1",
        "object": "chat.completion.chunk",
    }
    return sse({"choices": choices, **last, **more})


def _llama_text(words: Sequence[str]) -> Lines:
    """As llama.cpp's server writes it: a first event without text, the pace of its work with the last."""
    usage = {"completion_tokens": 5, "prompt_tokens": 12, "total_tokens": 17}
    timings = {"prompt_n": 12, "prompt_ms": 10.5, "predicted_n": 5, "predicted_ms": 30.1}
    said = [_llama({"content": word}) for word in words]
    counted = _llama({}, usage=usage, timings=timings).replace(
        b'[{"finish_reason": null, "index": 0, "delta": {}}]', b"[]"
    )
    return [_llama({"role": "assistant", "content": None}), *said, _llama({}, "stop"), counted, _DONE]


def _house_text(words: Sequence[str]) -> Lines:
    return [*(sse({"say": word}) for word in words), sse({"over": "stop", "asked": 12, "said": 5})]


WIRES: dict[str, Wire] = {
    "huggingface": _chat_wire(dialect(ProviderEntry(kind=Kind.HUGGINGFACE)), "/chat/completions"),
    "embedded": Wire(
        dialect=ChatDialect(),
        path="/chat/completions",
        around=ToolForm,
        text=_llama_text,
        usage=Usage(12, 5),
        error=sse({"error": {"code": 500, "message": "secret prompt", "type": "server_error"}}),
        overloaded=sse({"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}),
        no_usage=lambda words: [*(_llama({"content": word}) for word in words), _llama({}, "stop"), _DONE],
        too_long=(
            400,
            {"error": {"code": 400, "message": "too long", "type": "exceed_context_size_error", "n_ctx": 8}},
        ),
    ),
    "plugin": Wire(
        dialect=HouseDialect(),
        path="/say",
        text=_house_text,
        usage=Usage(12, 5),
        error=sse({"error": "secret prompt"}),
        overloaded=sse({"error": "overloaded"}),
        no_usage=lambda words: [*(sse({"say": word}) for word in words), sse({"over": "stop"})],
        filtered=[sse({"say": "Half"}), sse({"over": "content_filter"})],
        too_long=(400, {"error": "prompt is too long"}),
    ),
    "openai": _chat_wire(ChatDialect(limit_field="max_completion_tokens"), "/chat/completions"),
    "compatible": _chat_wire(ChatDialect(), "/chat/completions"),
    "azure": _chat_wire(azure("2024-10-21"), "/openai/deployments/m/chat/completions"),
    "responses": Wire(
        dialect=ResponsesDialect(),
        path="/responses",
        text=_responses_text,
        usage=Usage(12, 5, 4, 2),
        error=_responded("error", code="server_error", message="secret prompt", param=None),
        overloaded=_responded(
            "response.failed", response=_response("failed", error={"code": "server_is_overloaded", "message": "secret"})
        ),
        tools=_responses_tools,
        reasoning=lambda thought: [
            _responded("response.reasoning_summary_text.delta", output_index=0, summary_index=0, delta=thought),
            *_responses_text(["So."]),
        ],
        no_usage=_responses_without_usage,
        filtered=[
            _responded("response.output_text.delta", output_index=0, content_index=0, delta="Half"),
            _responded(
                "response.incomplete",
                response=_response("incomplete", incomplete_details={"reason": "content_filter"}),
            ),
        ],
        too_long=(400, {"error": {"message": "too long", "code": "context_length_exceeded"}}),
    ),
    "anthropic": Wire(
        dialect=MessagesDialect(),
        path="/messages",
        text=_anthropic_text,
        usage=Usage(12, 5, 4),
        error=_messages("error", error={"type": "api_error", "message": "secret prompt"}),
        overloaded=_messages("error", error={"type": "overloaded_error", "message": "secret prompt"}),
        tools=_anthropic_tools,
        reasoning=_anthropic_reasoning,
        filtered=[
            _MESSAGE_START,
            *_block(0, {"type": "text", "text": ""}, [{"type": "text_delta", "text": "Half"}]),
            *_message_end("refusal"),
        ],
        too_long=(400, {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long"}}),
    ),
    "tgi": Wire(
        dialect=GenerateStreamDialect(),
        path="/generate_stream",
        text=_tgi_text,
        usage=Usage(0, 5, estimated=True),
        error=b'data:{"error":"secret prompt","error_type":"generation"}\n\n',
        overloaded=b'data:{"error":"Model is overloaded","error_type":"overloaded"}\n\n',
        too_long=(422, {"error": "`inputs` tokens + `max_new_tokens` must be <= 512", "error_type": "validation"}),
    ),
}
