"""A served policy service with the stores in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from agentnet.policy.v1 import (
    access_service_pb2_grpc,
    override_service_pb2_grpc,
    policy_service_pb2_grpc,
    privacy_service_pb2_grpc,
    risk_service_pb2_grpc,
    simulation_service_pb2_grpc,
)
from tests.support.identity import Keys, make_keys
from tests.support.policy import PolicyParts, served


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return make_keys(tmp_path, "policy")


@pytest.fixture
def parts(keys: Keys) -> PolicyParts:
    return PolicyParts(keys)


@pytest.fixture
async def channel(parts: PolicyParts) -> AsyncIterator[grpc.aio.Channel]:
    async with served(parts) as opened:
        yield opened


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> policy_service_pb2_grpc.PolicyServiceStub:
    return policy_service_pb2_grpc.PolicyServiceStub(channel)


@pytest.fixture
def overrides(channel: grpc.aio.Channel) -> override_service_pb2_grpc.OverrideServiceStub:
    return override_service_pb2_grpc.OverrideServiceStub(channel)


@pytest.fixture
def simulation(channel: grpc.aio.Channel) -> simulation_service_pb2_grpc.SimulationServiceStub:
    return simulation_service_pb2_grpc.SimulationServiceStub(channel)


@pytest.fixture
def risks(channel: grpc.aio.Channel) -> risk_service_pb2_grpc.RiskServiceStub:
    return risk_service_pb2_grpc.RiskServiceStub(channel)


@pytest.fixture
def access(channel: grpc.aio.Channel) -> access_service_pb2_grpc.AccessServiceStub:
    return access_service_pb2_grpc.AccessServiceStub(channel)


@pytest.fixture
def privacy(channel: grpc.aio.Channel) -> privacy_service_pb2_grpc.PrivacyServiceStub:
    return privacy_service_pb2_grpc.PrivacyServiceStub(channel)
