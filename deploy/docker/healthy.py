"""The container's health check: asks grpc.health.v1 of the service beside it."""

from __future__ import annotations

import sys
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2

from shared.rpc.tls import channel_credentials

_ADDRESS = "127.0.0.1:50051"
_TLS = Path("/etc/agentnet/tls")


def main() -> None:
    secure = channel_credentials(_TLS) if _TLS.is_dir() else None
    with grpc.secure_channel(_ADDRESS, secure) if secure else grpc.insecure_channel(_ADDRESS) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        answer = check(health_pb2.HealthCheckRequest(), timeout=2)
    sys.exit(answer.status != health_pb2.HealthCheckResponse.SERVING)


if __name__ == "__main__":
    main()
