"""A served policy service for tests: stores in memory, models that say what they are told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import grpc

from agentnet.policy.v1 import (
    access_service_pb2_grpc,
    override_service_pb2_grpc,
    policy_service_pb2_grpc,
    privacy_service_pb2_grpc,
    risk_service_pb2_grpc,
    simulation_service_pb2_grpc,
)
from services.policy.access import Access
from services.policy.audit import AuditLog
from services.policy.audit_entry import seal_keys
from services.policy.classifiers import Classifiers
from services.policy.governance_memory import MemoryGovernance
from services.policy.judging import Judge
from services.policy.library import Library
from services.policy.main import SERVICES
from services.policy.overrides import Overrides
from services.policy.privacy import Privacy
from services.policy.risks import Enforced, Risks
from services.policy.risks_memory import MemoryRisks
from services.policy.service import PolicyService
from services.policy.service_governance import OverrideService
from services.policy.service_privacy import PrivacyService
from services.policy.service_risks import AccessService, RiskService
from services.policy.service_simulation import SimulationService
from services.policy.signing import BundleSigner
from services.policy.simulation import Simulator
from services.policy.store_memory import MemoryPolicyStore
from services.policy.threats import Watchtower
from services.policy.vault import Vault
from shared.clock import FakeClock
from shared.errors import Unavailable
from shared.ids import SequentialIds
from shared.rpc.channel import mesh_channel
from shared.rpc.server import serving
from shared.settings import MeshSettings
from shared.tasks import supervised
from tests.support.identity import Keys

DEFAULT = Path("services/policy/bundles/default.yaml").read_text()
DIMENSIONS = 8


@dataclass
class ScriptedModels:
    """Vectors that are alike when texts share words; a rating that is a share of marked words."""

    marked: tuple[str, ...] = ("hate", "harm")
    away: bool = False
    embedded: int = 0
    rated: list[str] = field(default_factory=list)

    async def embed(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        self._answer()
        self.embedded += len(texts)
        return [_vector(text) for text in texts]

    async def rate(self, model: str, question: str, text: str) -> float:
        self._answer()
        self.rated.append(text)
        return 0.9 if any(word in text for word in self.marked) else 0.1

    def _answer(self) -> None:
        if self.away:
            raise Unavailable("inference is away", dependency="inference")


def _vector(text: str) -> tuple[float, ...]:
    counts = [0.001] * DIMENSIONS
    for word in text.lower().split():
        counts[sum(map(ord, word.strip(".,!"))) % DIMENSIONS] += 1
    length = sum(count * count for count in counts) ** 0.5
    return tuple(count / length for count in counts)


@dataclass
class PolicyParts:
    """What stands behind a served policy service."""

    keys: Keys
    clock: FakeClock = field(default_factory=FakeClock)
    store: MemoryPolicyStore = field(default_factory=MemoryPolicyStore)
    governance: MemoryGovernance = field(default_factory=MemoryGovernance)
    models: ScriptedModels = field(default_factory=ScriptedModels)
    risks: MemoryRisks = field(default_factory=MemoryRisks)
    classifiers: Path = Path("services/policy/classifiers")
    reported: float = 0.0
    warming: bool = False
    called_back: list[tuple[str, Enforced]] = field(default_factory=list)
    trouble: Exception | str = ""

    @property
    def audit(self) -> AuditLog:
        key = BundleSigner.from_file(self.keys.private_key).key
        return AuditLog(self.governance, self.clock, seal_keys(Vault(key), None))

    async def _called_back(self, tenant: str, action: Enforced) -> None:
        if isinstance(self.trouble, Exception):
            raise self.trouble
        if self.trouble:
            await asyncio.Event().wait()
        self.called_back.append((tenant, action))

    async def register(self, server: grpc.aio.Server, stack: AsyncExitStack) -> None:
        signer = BundleSigner.from_file(self.keys.private_key)
        classifiers = Classifiers(self.classifiers)
        library = Library(
            self.store, DEFAULT, clock=self.clock, poll=timedelta(seconds=30), signer=signer, has_model=classifiers.has
        )
        await stack.enter_async_context(supervised("publish", library.publish))
        overrides = Overrides(
            self.governance, self.audit, signer.key, rule_names=library.rule_names, clock=self.clock, ids=SequentialIds()
        )  # fmt: skip
        simulator = Simulator(self.governance, Vault(signer.key), clock=self.clock, keep_for=timedelta(days=7))
        judge = Judge(
            library,
            self.models,
            overrides,
            simulator,
            classifiers=classifiers,
            clock=self.clock,
            ids=SequentialIds(),
        )
        if self.warming:
            await stack.enter_async_context(supervised("warm", judge.keep_warm))
        privacy = PrivacyService(Privacy(self.governance, Vault(signer.key), self.audit))
        privacy_service_pb2_grpc.add_PrivacyServiceServicer_to_server(privacy, server)
        simulation = SimulationService(simulator, judge, library, self.audit, self.clock)
        simulation_service_pb2_grpc.add_SimulationServiceServicer_to_server(simulation, server)
        risks = Risks(
            self.risks, self.audit, clock=self.clock, ids=SequentialIds(), callbacks={"page": self._called_back}
        )
        policy = PolicyService(
            library, judge, self.audit, Watchtower(risks),
            clock=self.clock, heartbeat=timedelta(seconds=10), reported=self.reported,
        )  # fmt: skip
        risk_service_pb2_grpc.add_RiskServiceServicer_to_server(RiskService(risks), server)
        access = AccessService(Access(self.store, self.audit), self.store, self.clock)
        access_service_pb2_grpc.add_AccessServiceServicer_to_server(access, server)
        policy_service_pb2_grpc.add_PolicyServiceServicer_to_server(policy, server)
        override_service_pb2_grpc.add_OverrideServiceServicer_to_server(OverrideService(overrides), server)


@asynccontextmanager
async def served(parts: PolicyParts) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to the service."""
    async with served_at(parts) as address, mesh_channel(address, services=SERVICES) as channel:
        yield channel


@asynccontextmanager
async def served_at(parts: PolicyParts) -> AsyncIterator[str]:
    """The service's address."""
    settings = MeshSettings.model_validate({
        "listen": "127.0.0.1:0", "postgres_dsn": "postgres://nowhere", "identity_keys": parts.keys.jwks, "drain_grace": 1,
    })  # fmt: skip
    async with serving(settings, parts.register, service_names=SERVICES) as address:
        yield address
