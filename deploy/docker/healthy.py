"""The container's health check: asks grpc.health.v1 of the service beside it."""

from __future__ import annotations

import sys

import grpc
from grpc_health.v1 import health_pb2


def main() -> None:
    with grpc.insecure_channel("127.0.0.1:50051") as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        answer = check(health_pb2.HealthCheckRequest(), timeout=2)
    sys.exit(answer.status != health_pb2.HealthCheckResponse.SERVING)


if __name__ == "__main__":
    main()
