"""Between the contract and the engine."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from google.protobuf.duration_pb2 import Duration

from agentnet.common.v1 import usage_pb2
from agentnet.inference.v1 import cache_pb2, downgrade_pb2, embedding_pb2, generation_pb2
from agentnet.inference.v1 import inference_service_pb2 as pb
from services.inference import prompt
from services.inference.admission import CachePolicy, Order
from services.inference.breakers import BreakerState
from services.inference.downgrades import Downgrade
from services.inference.embeddings.contract import Embedded
from services.inference.embeddings.late import MODEL as EMBEDDING_MODEL
from services.inference.providers.contract import Message
from services.inference.route import Model
from shared import fields
from shared.errors import FieldRequired, InvalidArgument, from_failure
from shared.ids import Ids
from shared.paging import next_page_token, page

_MAX_OUTPUT: Final = 131_072
_DEFAULT_OUTPUT: Final = 512
_MAX_GRACE: Final = timedelta(minutes=10)
_MAX_GATHER: Final = timedelta(seconds=5)
_MAX_TEXTS: Final = 256
_MAX_TEXT: Final = 32_768
_DEFAULT_CACHE: Final = timedelta(hours=1)
_LONGEST_CACHE: Final = timedelta(days=7)
_DEFAULT_SIMILARITY: Final = 0.95
_LONGEST_DOWNGRADE: Final = timedelta(days=31)
_MAX_FALLBACK: Final = 8
_MAX_BUNDLES: Final = 16
_MAX_BUNDLE_NAME: Final = 128
MAX_OVERRIDE: Final = 4096


def order(request: pb.GenerateRequest, messages: tuple[Message, ...], ids: Ids, *, whole: bool = False) -> Order:
    """Of a `whole` answer nobody sees the events; where its id is made here, nobody learns of it before its end."""
    grace = _duration(request.detach_grace, "detach_grace", _MAX_GRACE)
    gather = _duration(request.gather, "gather", _MAX_GATHER)
    return Order(
        generation_id=fields.identifier(request.generation_id, "generation_id")
        if request.generation_id
        else ids.new("gen"),
        model=fields.text(request.model, "model", limit=128),
        messages=messages,
        sampling=prompt.sampling(request.sampling),
        max_output_tokens=int(
            fields.within(request.max_output_tokens or _DEFAULT_OUTPUT, "max_output_tokens", low=1, high=_MAX_OUTPUT)
        ),
        detach_grace=timedelta() if whole else grace,
        session_id=fields.text(request.session_id, "session_id", limit=64),
        agent=fields.text(request.agent, "agent", limit=100),
        tools=prompt.tools(request.tools),
        tool_choice=prompt.tool_choice(request),
        response_format=prompt.response_format(request),
        reasoning_effort=prompt.reasoning_effort(request.reasoning_effort),
        fallback=_fallback(request),
        no_fallback=request.no_fallback,
        cache=_cache(request.cache),
        packing=not whole and (request.packing or request.HasField("gather")),
        gather=timedelta() if whole else gather,
        bundles=bundles(request.bundles, "bundles"),
        override_token=fields.text(request.override_token, "override_token", limit=MAX_OVERRIDE),
        team=fields.text(request.team, "team", limit=100),
        sub_agent=fields.text(request.sub_agent, "sub_agent", limit=255),
        fresh=not request.generation_id,
        attachable=bool(request.generation_id) or not whole,
    )


def bundles(found: Sequence[str], field: str) -> tuple[str, ...]:
    fields.at_most(len(found), field, limit=_MAX_BUNDLES)
    return tuple(fields.required(name, f"{field}[{place}]", limit=_MAX_BUNDLE_NAME) for place, name in enumerate(found))


def attach(request: pb.AttachRequest) -> tuple[str, int]:
    if request.after_sequence < 0:
        raise InvalidArgument("after_sequence must not be negative", field="after_sequence")
    return fields.identifier(request.generation_id, "generation_id"), request.after_sequence


def downgrade(request: downgrade_pb2.DowngradeModelRequest) -> tuple[str, Downgrade, timedelta]:
    asked = request.duration
    if not 1 <= asked.seconds <= _LONGEST_DOWNGRADE.total_seconds():
        raise InvalidArgument("duration must be from 1 second to 31 days", field="duration")
    from_model = fields.required(request.from_model, "from_model", limit=128)
    to_model = fields.required(request.to_model, "to_model", limit=128)
    if from_model == to_model:
        raise InvalidArgument("to_model must be another model", field="to_model")
    return from_model, Downgrade(to_model, fields.required(request.reason, "reason", limit=256)), asked.ToTimedelta()


def texts(request: pb.EmbedRequest) -> Sequence[str]:
    if not request.texts:
        raise FieldRequired("texts")
    fields.at_most(len(request.texts), "texts", limit=_MAX_TEXTS)
    return [fields.text(text, f"texts[{place}]", limit=_MAX_TEXT) for place, text in enumerate(request.texts)]


def is_query(request: pb.EmbedRequest) -> bool:
    if request.purpose not in embedding_pb2.EmbeddingPurpose.values():
        raise InvalidArgument("purpose is none there is", field="purpose")
    return request.purpose == embedding_pb2.EMBEDDING_PURPOSE_QUERY


def embed_response(found: Embedded, model: str, *, token_vectors: bool) -> pb.EmbedResponse:
    embeddings = [pb.Embedding(values=vector) for vector in found.vectors]
    if token_vectors:
        for embedding, tokens in zip(embeddings, found.token_vectors, strict=False):
            embedding.token_vectors = tokens
    return pb.EmbedResponse(
        embeddings=embeddings,
        model=model,
        usage=usage_pb2.Usage(input_tokens=found.tokens),
        truncated=found.truncated,
    )


def whole(events: Sequence[generation_pb2.GenerationEvent]) -> pb.GenerateTextResponse:
    """A generation's events as one answer. Raises what its failure says."""
    last = events[-1]
    if last.HasField("failed"):
        raise from_failure(last.failed.failure)
    restarts = [place for place, event in enumerate(events) if event.failover.restarted]
    valid = events[restarts[-1] :] if restarts else events
    return pb.GenerateTextResponse(
        generation_id=last.generation_id,
        text="".join(event.text.text for event in valid if event.HasField("text")),
        reasoning="".join(event.reasoning.text for event in valid if event.HasField("reasoning")),
        tool_calls=[event.tool_call.tool_call for event in valid if event.HasField("tool_call")],
        finished=last.finished,
    )


def models_page(request: pb.ListModelsRequest, found: Sequence[Model]) -> tuple[Sequence[Model], str]:
    """The page of models asked for, and the token of the next one."""
    scope = f"models|{request.provider}"
    asked = page(request.page_size, request.page_token, scope=scope)
    fitting = [model for model in found if model.name > asked.row and request.provider in ("", model.provider)]
    shown = fitting[: asked.size]
    more = (shown[-1].name,) if len(fitting) > len(shown) else None
    return shown, next_page_token(more, scope=scope)


def model(found: Model, *, default: str, breaker: BreakerState, downgraded_to: str) -> pb.Model:
    return pb.Model(
        name=found.name,
        provider=found.provider,
        embedding=found.embedding,
        context_tokens=found.context_tokens,
        is_default=found.name in (default, EMBEDDING_MODEL),
        fallback_models=found.fallback,
        abilities=sorted(ability.value for ability in found.abilities),
        breaker=breaker.value,
        downgraded_to=downgraded_to,
        makes=found.makes.value if found.makes else "",
    )


def _duration(found: Duration, field: str, most: timedelta) -> timedelta:
    # The seconds are looked at first: not every Duration fits a timedelta.
    if abs(found.seconds) <= most.total_seconds() and timedelta() <= found.ToTimedelta() <= most:
        return found.ToTimedelta()
    raise InvalidArgument(f"{field} must be from 0 to {most.total_seconds():g} seconds", field=field)


def _fallback(request: pb.GenerateRequest) -> tuple[str, ...] | None:
    if not request.fallback_models:
        return None
    if request.no_fallback:
        raise InvalidArgument("fallback_models and no_fallback contradict each other", field="fallback_models")
    fields.at_most(len(request.fallback_models), "fallback_models", limit=_MAX_FALLBACK)
    return tuple(
        fields.required(name, f"fallback_models[{place}]", limit=128)
        for place, name in enumerate(request.fallback_models)
    )


def _cache(found: cache_pb2.CachePolicy) -> CachePolicy | None:
    if found.mode in (cache_pb2.CACHE_MODE_UNSPECIFIED, cache_pb2.CACHE_MODE_OFF):
        return None
    ttl = found.ttl.ToTimedelta() if 0 <= found.ttl.seconds <= _LONGEST_CACHE.total_seconds() else None
    if ttl is None or not timedelta() <= ttl <= _LONGEST_CACHE:
        raise InvalidArgument("ttl must be from 0 to 7 days", field="cache.ttl")
    if found.mode != cache_pb2.CACHE_MODE_SEMANTIC:
        return CachePolicy(ttl or _DEFAULT_CACHE)
    similarity = fields.within(found.similarity or _DEFAULT_SIMILARITY, "cache.similarity", low=0.5, high=1)
    return CachePolicy(ttl or _DEFAULT_CACHE, similarity)
