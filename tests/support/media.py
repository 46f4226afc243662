"""The media service on a port, as it is wired, before a provider that speaks OpenAI's wire format."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
import yaml

from agentnet.inference.v1 import media_service_pb2 as pb
from agentnet.inference.v1 import media_service_pb2_grpc as rpc
from services.inference import wiring
from services.inference.breakers import LocalBreakers
from services.inference.enforcement import Enforcement, Held
from services.inference.measures import Measures
from services.inference.media.service import NAME, MediaService
from services.inference.media.studio import Studio
from services.inference.peers import Ending, Metered
from services.inference.providers.contract import Usage
from services.inference.purchase import Purchases
from services.inference.settings import InferenceSettings
from shared.clock import SystemClock
from shared.ids import SequentialIds
from shared.monitors.enforced import Enforced
from shared.risks import Happened
from shared.rpc.channel import mesh_channel
from shared.rpc.server import serving
from shared.settings import MeshSettings
from shared.tasks import supervised
from tests.service.inference.calls import until
from tests.support.identity import Keys
from tests.support.inference import DEFAULT, ScriptedCost, ScriptedPolicy
from tests.support.media_server import MediaServer, media_server, wav

Code = grpc.StatusCode


def catalog(server: MediaServer) -> dict[str, Any]:
    azure = {"kind": "azure", "base_url": server.url.removesuffix("/v1"), "api_version": "2025-04-01-preview"}
    return {
        "providers": {
            "openai": {"kind": "openai", "base_url": server.url, "api_key": "env:MEDIA_KEY"},
            "azure-eu": azure | {"api_key": "env:MEDIA_KEY"},
        },
        "media": {
            "gpt-image-1": {"provider": "openai", "makes": "images", "bills": "tokens", "fallback": ["dall-e-3"]},
            "dall-e-3": {"provider": "openai", "makes": "images", "bills": "images"},
            "whisper-1": {"provider": "openai", "makes": "transcription", "bills": "seconds"},
            "gpt-4o-transcribe": {"provider": "openai", "makes": "transcription", "bills": "tokens"},
            "tts-1": {"provider": "openai", "makes": "speech", "bills": "characters"},
            "gpt-4o-mini-tts": {"provider": "openai", "makes": "speech", "bills": "tokens"},
            "eu-tts": {"provider": "azure-eu", "model": "my-tts", "makes": "speech", "bills": "characters"},
        },
    }


@dataclass(slots=True)
class World:
    stub: Any
    server: MediaServer
    cost: ScriptedCost
    policy: ScriptedPolicy
    studio: Studio
    keys: Keys
    told: list[Happened]

    async def images(self, **asked: Any) -> list[pb.GenerateImagesResponse]:
        call = self.stub.GenerateImages(pb.GenerateImagesRequest(**asked), metadata=self.keys.metadata("acme"))
        return [answer async for answer in call]

    async def heard(self, **asked: Any) -> pb.TranscribeResponse:
        request = pb.TranscribeRequest(**{"audio": wav(2.4), "media_type": "audio/wav"} | asked)
        found: pb.TranscribeResponse = await self.stub.Transcribe(request, metadata=self.keys.metadata("acme"))
        return found

    async def spoken(self, **asked: Any) -> list[pb.SpeakResponse]:
        request = pb.SpeakRequest(**{"text": "Hello there.", "voice": "alloy"} | asked)
        return [answer async for answer in self.stub.Speak(request, metadata=self.keys.metadata("acme"))]

    @property
    def settled(self) -> list[tuple[str, Usage, Metered, Ending]]:
        return [(one.payer.model, one.usage, one.metered, one.outcome) for one in self.cost.settlements]


@pytest.fixture
async def world(keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setenv("MEDIA_KEY", "k-7")
    given = {"listen": "127.0.0.1:0", "postgres_dsn": "postgres://nowhere", "identity_keys": keys.jwks}
    cost, policy, clock = ScriptedCost(), ScriptedPolicy(), SystemClock()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(media_server())
        (tmp_path / "catalog.yaml").write_text(yaml.safe_dump(catalog(server), sort_keys=False))
        settings = InferenceSettings.model_validate(
            given | {"catalog": tmp_path / "catalog.yaml", "openai_api_key": "", "embedded_url": ""}
        )
        session = await stack.enter_async_context(aiohttp.ClientSession())
        wired = await wiring.wired(settings, session)
        enforced = Enforced(policy.watch, Held.of)
        policy.snapshots.put_nowait(DEFAULT)
        await stack.enter_async_context(supervised("policy", enforced.follow))
        breakers, told = LocalBreakers(clock), list[Happened]()
        studio = Studio(
            wired.router, wired.makers, Purchases(cost, policy, Enforcement(enforced, policy, strict=True), clock),
            Measures(policy, breakers, clock), breakers, limit=4, jitter=lambda: 0.0,
            tell=lambda _tenant, happened, _about: told.append(happened),
        )  # fmt: skip

        async def register(server: grpc.aio.Server, _: AsyncExitStack) -> None:
            rpc.add_MediaServiceServicer_to_server(MediaService(studio, SequentialIds()), server)

        mesh = MeshSettings.model_validate(given | {"drain_grace": 0})
        address = await stack.enter_async_context(serving(mesh, register, service_names=(NAME,)))
        channel = await stack.enter_async_context(mesh_channel(address, services=(NAME,)))
        await until(lambda: enforced.revision)
        yield World(rpc.MediaServiceStub(channel), server, cost, policy, studio, keys, told)
