"""What went wrong has a class of its own, by the mesh's word for it."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc.aio import Metadata

from agentnet.client import (
    AgentNetError,
    ConfigError,
    LLMError,
    LLMRateLimitError,
    RateLimitError,
    ToolError,
)
from agentnet.client.errors import _KINDS, from_failure, from_rpc, kind_of
from agentnet.common.v1 import error_reason_pb2, failure_pb2


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("RATE_LIMITED", RateLimitError),
        ("PROVIDER_RATE_LIMITED", LLMRateLimitError),
        ("PROVIDER_TIMEOUT", LLMError),
        ("MODEL_NOT_FOUND", LLMError),
        ("TOOL_CIRCUIT_OPEN", ToolError),
        ("FUNCTION_FAILED", ToolError),
        ("BUNDLE_INVALID", ConfigError),
        ("SESSION_NOT_FOUND", AgentNetError),
        ("", AgentNetError),
        ("A_REASON_OF_A_NEWER_MESH", AgentNetError),
    ],
)
def test_a_reason_decides_the_class(reason: str, kind: type[AgentNetError]) -> None:
    assert kind_of(reason) is kind


def test_a_provider_that_limits_us_is_both() -> None:
    assert issubclass(LLMRateLimitError, LLMError)
    assert issubclass(LLMRateLimitError, RateLimitError)


def test_every_reason_named_is_one_of_the_contract() -> None:
    known = {name.removeprefix("ERROR_REASON_") for name in dict(error_reason_pb2.ErrorReason.items())}
    assert set(_KINDS) <= known


def test_a_failure_in_a_stream_has_its_class() -> None:
    failure = failure_pb2.Failure(
        reason=error_reason_pb2.ERROR_REASON_TOOL_FAILED, message="no", metadata={"tool": "t"}
    )
    error = from_failure(failure)
    assert (type(error), error.reason, error.facts) == (ToolError, "TOOL_FAILED", {"tool": "t"})


def test_a_refused_call_has_its_class_and_its_time() -> None:
    status = status_pb2.Status(message="too many calls")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="RATE_LIMITED", domain="agentnet"))
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.seconds = 2
    status.details.add().Pack(retry)
    trailers = Metadata(("grpc-status-details-bin", status.SerializeToString()))
    error = from_rpc(grpc.aio.AioRpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, Metadata(), trailers))
    assert type(error) is RateLimitError
    assert error.retry_after is not None
    assert error.retry_after.total_seconds() == 2
