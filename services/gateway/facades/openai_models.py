"""OpenAI's lists of models and embeddings."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentnet.inference.v1 import inference_service_pb2
from agentnet.orchestrator.v1 import agent_pb2
from services.gateway.facades import reading
from services.gateway.facades.agents import PREFIX
from services.gateway.facades.ask import Unsupported
from services.gateway.facades.reading import Object
from shared.errors import InvalidArgument, NotFound, Reason


class ModelUnknown(NotFound):
    """No such model or agent."""

    reason = Reason.ERROR_REASON_MODEL_NOT_FOUND


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """What to embed, and how to write the numbers."""

    model: str
    texts: tuple[str, ...]
    base64: bool


def read_embedding(data: Object) -> EmbeddingRequest:
    reading.refuse(data, {"dimensions": ()})
    given = data.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(one, str) for one in texts):
        raise InvalidArgument("input must be a string or a list of strings; tokens are not read here", field="input")
    form = reading.text(data, "encoding_format", default="float")
    if form not in {"float", "base64"}:
        raise Unsupported("encoding_format", "must be float or base64")
    return EmbeddingRequest(reading.text(data, "model"), tuple(texts), form == "base64")


def embeddings(found: inference_service_pb2.EmbedResponse, asked: EmbeddingRequest) -> Mapping[str, Any]:
    write = _packed if asked.base64 else list
    data = [
        {"object": "embedding", "index": index, "embedding": write(one.values)}
        for index, one in enumerate(found.embeddings)
    ]
    used = {"prompt_tokens": found.usage.input_tokens, "total_tokens": found.usage.input_tokens}
    return {"object": "list", "data": data, "model": found.model, "usage": used}


def models(
    found: Sequence[inference_service_pb2.Model], agents: Sequence[agent_pb2.Agent]
) -> Sequence[Mapping[str, Any]]:
    """Models by name, whose age is not known, then agents: each version, and the bare name for the newest."""
    named = [_model(model.name, model.provider, 0) for model in found]
    newest: dict[str, int] = {}
    versions = []
    for agent in agents:
        newest[agent.name] = max(newest.get(agent.name, 0), agent.create_time.seconds)
        versions.append(_model(f"{PREFIX}{agent.name}@{agent.version}", "agentnet", agent.create_time.seconds))
    bare = [_model(PREFIX + name, "agentnet", created) for name, created in newest.items()]
    return [*named, *sorted([*bare, *versions], key=lambda one: str(one["id"]))]


def one_model(listed: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    """Raises ModelUnknown."""
    for found in listed:
        if found["id"] == name:
            return found
    raise ModelUnknown(f"no model {name}", model=name)


def _model(name: str, owner: str, created: int) -> Mapping[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": owner}


def _packed(values: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


def page(found: Sequence[Mapping[str, Any]], limit: int) -> Mapping[str, Any]:
    """The first of a list, as OpenAI pages."""
    data = found[:limit]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return {"object": "list", "data": data, **ends, "has_more": len(found) > limit}
