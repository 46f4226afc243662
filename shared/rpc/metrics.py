"""Every server tells its metrics to who gathers them: gateway, which serves all of them at the edge."""

from __future__ import annotations

from typing import Any

import grpc
from google.api import httpbody_pb2

from agentnet.gateway.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from shared.telemetry import exposition


class OwnMetrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    """Of this process."""

    async def GetMetrics(self, request: metrics_service_pb2.GetMetricsRequest, context: Any) -> httpbody_pb2.HttpBody:
        return httpbody_pb2.HttpBody(content_type="text/plain", data=exposition().encode())


def add_own_metrics(server: grpc.aio.Server) -> None:
    """Before the service's own handlers: gateway's of the same name takes its place."""
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(OwnMetrics(), server)
