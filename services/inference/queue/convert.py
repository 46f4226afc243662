"""Between the contract and the queue."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from agentnet.common.v1 import failure_pb2
from agentnet.inference.v1 import inference_service_pb2
from agentnet.inference.v1 import queue_service_pb2 as pb
from services.inference.queue.store import Submitted
from services.inference.queue.worker import run_id
from shared.errors import FieldTooLong
from shared.paging import Page, next_page_token

_MAX_REQUEST: Final = 8 * 1024 * 1024


def submitted(request: pb.SubmitGenerationRequest) -> inference_service_pb2.GenerateRequest:
    asked = request.generation
    if asked.ByteSize() > _MAX_REQUEST:
        raise FieldTooLong("generation", length=asked.ByteSize(), limit=_MAX_REQUEST, unit="bytes")
    return asked


def shown(found: Submitted) -> pb.GetSubmittedGenerationResponse:
    shown = pb.GetSubmittedGenerationResponse(
        generation_id=found.id,
        state=_state(found),
        create_time=_time(found.created_at),
        runs=found.runs,
        running_id=run_id(found.id, found.runs) if found.runs else "",
    )
    if found.ended_at:
        shown.end_time.CopyFrom(_time(found.ended_at))
    if found.succeeded:
        shown.response.CopyFrom(inference_service_pb2.GenerateTextResponse.FromString(found.outcome))
    elif found.succeeded is False:
        shown.failure.CopyFrom(failure_pb2.Failure.FromString(found.outcome))
    return shown


def listed(found: Sequence[Submitted], asked: Page, *, scope: str) -> pb.ListSubmittedGenerationsResponse:
    """One page of what a store found, which may be one more."""
    rows = found[: asked.size]
    token = next_page_token(rows[-1].place if len(found) > asked.size else None, scope=scope)
    return pb.ListSubmittedGenerationsResponse(generations=[_listed(one) for one in rows], next_page_token=token)


def _listed(found: Submitted) -> pb.SubmittedGeneration:
    return pb.SubmittedGeneration(
        generation_id=found.id,
        state=_state(found),
        create_time=_time(found.created_at),
        end_time=_time(found.ended_at) if found.ended_at else None,
        runs=found.runs,
    )


def _state(found: Submitted) -> pb.SubmittedState.ValueType:
    if found.succeeded is not None:
        return pb.SUBMITTED_STATE_SUCCEEDED if found.succeeded else pb.SUBMITTED_STATE_FAILED
    return pb.SUBMITTED_STATE_RUNNING if found.running else pb.SUBMITTED_STATE_QUEUED


def _time(at: datetime) -> Timestamp:
    found = Timestamp()
    found.FromDatetime(at)
    return found
