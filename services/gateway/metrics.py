"""The metrics of the whole mesh in one text: each service's own, told apart by a label."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final

import grpc
from google.api import httpbody_pb2
from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families

from agentnet.gateway.v1 import metrics_service_pb2 as pb
from agentnet.gateway.v1 import metrics_service_pb2_grpc
from services.gateway.errors import TenantNotFound
from shared.identity import HEADER, current, current_header
from shared.telemetry import exposition

_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_PATIENCE_SECONDS: Final = 2.0
_OWN: Final = "gateway"


class MeshMetrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    """Asks every service for its own."""

    def __init__(self, parts: Mapping[str, grpc.aio.Channel], *, platform: str) -> None:
        others = {name: channel for name, channel in parts.items() if name != _OWN}
        self._parts = {name: metrics_service_pb2_grpc.MetricsServiceStub(one) for name, one in others.items()}
        self._platform = platform

    async def GetMetrics(self, request: pb.GetMetricsRequest, context: Any) -> httpbody_pb2.HttpBody:
        if current().tenant_id != self._platform:
            raise TenantNotFound("only the platform's own tenant may look")
        asked = await asyncio.gather(*(self._ask(stub) for stub in self._parts.values()))
        texts = dict(zip(self._parts, asked, strict=True)) | {_OWN: exposition()}
        return httpbody_pb2.HttpBody(content_type=_TYPE, data=merged(texts))

    async def _ask(self, stub: Any) -> str | None:
        metadata = ((HEADER, current_header() or ""),)
        try:
            found: httpbody_pb2.HttpBody = await stub.GetMetrics(
                pb.GetMetricsRequest(), timeout=_PATIENCE_SECONDS, metadata=metadata
            )
        except grpc.aio.AioRpcError:
            return None
        text: str = found.data.decode()
        return text


def merged(texts: Mapping[str, str | None]) -> bytes:
    """One text of many; None is a service that did not answer."""
    up = GaugeMetricFamily("agentnet_up", "services that told their metrics", labels=["service"])
    families: dict[str, Metric] = {}
    for service, text in sorted(texts.items()):
        up.add_metric([service], float(text is not None))
        for family in text_string_to_metric_families(text or ""):
            kept = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            kept.samples += [one._replace(labels={**one.labels, "service": service}) for one in family.samples]
    return generate_latest(_Collected([up, *families.values()]))


class _Collected:
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
