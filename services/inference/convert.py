"""Between the contract and the engine."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from google.protobuf.duration_pb2 import Duration

from agentnet.common.v1 import usage_pb2
from agentnet.inference.v1 import generation_pb2, message_pb2
from agentnet.inference.v1 import inference_service_pb2 as pb
from services.inference.embedding import MODEL as EMBEDDING_MODEL
from services.inference.embedding import Embedded
from services.inference.engine import Order
from services.inference.errors import ModelNotFound
from services.inference.providers.contract import Message, Role, Sampling
from services.inference.route import Model
from shared import fields
from shared.errors import FieldRequired, FieldTooLong, InvalidArgument, from_failure
from shared.ids import Ids
from shared.paging import next_page_token, page

_MAX_MESSAGES: Final = 512
_MAX_PARTS: Final = 64
_MAX_PROMPT: Final = 1_048_576
_MAX_PART: Final = 262_144
_MAX_OUTPUT: Final = 131_072
_DEFAULT_OUTPUT: Final = 512
_MAX_GRACE: Final = timedelta(minutes=10)
_MAX_TEXTS: Final = 256
_MAX_TEXT: Final = 32_768
_ROLES: Final = {
    message_pb2.ROLE_SYSTEM: Role.SYSTEM,
    message_pb2.ROLE_USER: Role.USER,
    message_pb2.ROLE_ASSISTANT: Role.ASSISTANT,
}


def order(request: pb.GenerateRequest, ids: Ids) -> Order:
    return Order(
        generation_id=fields.identifier(request.generation_id, "generation_id")
        if request.generation_id
        else ids.new("gen"),
        model=fields.text(request.model, "model", limit=128),
        messages=_messages(request.messages),
        sampling=_sampling(request.sampling),
        max_output_tokens=int(
            fields.within(request.max_output_tokens or _DEFAULT_OUTPUT, "max_output_tokens", low=1, high=_MAX_OUTPUT)
        ),
        detach_grace=_grace(request.detach_grace),
        session_id=fields.text(request.session_id, "session_id", limit=64),
        agent=fields.text(request.agent, "agent", limit=100),
    )


def attach(request: pb.AttachRequest) -> tuple[str, int]:
    if request.after_sequence < 0:
        raise InvalidArgument("after_sequence must not be negative", field="after_sequence")
    return fields.identifier(request.generation_id, "generation_id"), request.after_sequence


def texts(request: pb.EmbedRequest) -> Sequence[str]:
    if request.model not in ("", EMBEDDING_MODEL):
        raise ModelNotFound(
            f"no embedding model {request.model}; there is {EMBEDDING_MODEL}",
            model=request.model,
            known=EMBEDDING_MODEL,
        )
    if not request.texts:
        raise FieldRequired("texts")
    fields.at_most(len(request.texts), "texts", limit=_MAX_TEXTS)
    return [fields.text(text, f"texts[{place}]", limit=_MAX_TEXT) for place, text in enumerate(request.texts)]


def embed_response(found: Embedded) -> pb.EmbedResponse:
    return pb.EmbedResponse(
        embeddings=[pb.Embedding(values=vector) for vector in found.vectors],
        model=EMBEDDING_MODEL,
        usage=usage_pb2.Usage(input_tokens=found.tokens),
        truncated=found.truncated,
    )


def whole(events: Sequence[generation_pb2.GenerationEvent]) -> pb.GenerateTextResponse:
    """A generation's events as one answer. Raises what its failure says."""
    last = events[-1]
    if last.HasField("failed"):
        raise from_failure(last.failed.failure)
    return pb.GenerateTextResponse(
        generation_id=last.generation_id,
        text="".join(event.text.text for event in events if event.HasField("text")),
        finished=last.finished,
    )


def models_response(request: pb.ListModelsRequest, found: Sequence[Model], *, default: str) -> pb.ListModelsResponse:
    scope = f"models|{request.provider}"
    asked = page(request.page_size, request.page_token, scope=scope)
    after = asked.cursor[0] if asked.cursor else ""
    fitting = [model for model in found if model.name > after and request.provider in ("", model.provider)]
    shown = fitting[: asked.size]
    more = (shown[-1].name,) if len(fitting) > len(shown) else None
    return pb.ListModelsResponse(
        models=[
            pb.Model(
                name=model.name,
                provider=model.provider,
                embedding=model.embedding,
                context_tokens=model.context_tokens,
                is_default=model.name in (default, EMBEDDING_MODEL),
            )
            for model in shown
        ],
        next_page_token=next_page_token(more, scope=scope),
    )


def _grace(found: Duration) -> timedelta:
    # The seconds are looked at first: not every Duration fits a timedelta.
    if abs(found.seconds) <= _MAX_GRACE.total_seconds() and timedelta() <= found.ToTimedelta() <= _MAX_GRACE:
        return found.ToTimedelta()
    raise InvalidArgument("detach_grace must be from 0 to 10 minutes", field="detach_grace")


def _messages(found: Sequence[message_pb2.Message]) -> tuple[Message, ...]:
    if not found:
        raise FieldRequired("messages")
    fields.at_most(len(found), "messages", limit=_MAX_MESSAGES)
    read = tuple(_message(message, f"messages[{place}]") for place, message in enumerate(found))
    if (length := sum(len(message.text) for message in read)) > _MAX_PROMPT:
        raise FieldTooLong("messages", length=length, limit=_MAX_PROMPT)
    return read


def _message(message: message_pb2.Message, where: str) -> Message:
    role = _ROLES.get(message.role)
    if role is None:
        raise InvalidArgument("role is required", field=f"{where}.role")
    fields.at_most(len(message.content), f"{where}.content", limit=_MAX_PARTS)
    text = "".join(
        fields.text(part.text, f"{where}.content[{place}].text", limit=_MAX_PART)
        for place, part in enumerate(message.content)
    )
    if not text:
        raise FieldRequired(f"{where}.content")
    return Message(role, text, fields.text(message.name, f"{where}.name", limit=64))


def _sampling(found: message_pb2.Sampling) -> Sampling:
    def optional(name: str, low: float, high: float) -> float | None:
        if not found.HasField(name):  # type: ignore[arg-type]
            return None
        return fields.within(getattr(found, name), f"sampling.{name}", low=low, high=high)

    fields.at_most(len(found.stop), "sampling.stop", limit=4)
    return Sampling(
        temperature=optional("temperature", 0, 2),
        top_p=optional("top_p", 0, 1),
        presence_penalty=optional("presence_penalty", -2, 2),
        frequency_penalty=optional("frequency_penalty", -2, 2),
        seed=found.seed if found.HasField("seed") else None,
        stop=tuple(found.stop),
    )
