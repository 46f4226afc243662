"""How each part is asked whether it works."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2
from redis.asyncio import Redis

from services.gateway.health import Probe
from shared.errors import Unavailable
from shared.postgres import Database
from shared.redis import RedisLost


def of_service(channel: grpc.aio.Channel) -> Probe:
    """By grpc.health.v1."""
    ask = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )

    async def probe() -> bool:
        try:
            answer = await ask(health_pb2.HealthCheckRequest(), timeout=1)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    return probe


def of_postgres(database: Database) -> Probe:
    async def probe() -> bool:
        try:
            await database.ping()
        except Unavailable:
            return False
        return True

    return probe


def of_redis(redis: Redis) -> Probe:
    async def probe() -> bool:
        try:
            return bool(await redis.ping())
        except RedisLost:
            return False

    return probe
