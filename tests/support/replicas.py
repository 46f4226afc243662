"""Orchestrators as processes of their own, on real stores, with inference and memory played by the test."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agentnet.inference.v1 import generation_pb2
from agentnet.inference.v1 import inference_service_pb2 as inference
from agentnet.inference.v1 import inference_service_pb2_grpc as inference_rpc
from agentnet.memory.v1 import conversation_service_pb2 as conversation
from agentnet.memory.v1 import conversation_service_pb2_grpc as conversation_rpc
from agentnet.memory.v1 import memory_service_pb2 as memory
from agentnet.memory.v1 import memory_service_pb2_grpc as memory_rpc
from deploy.local import forked
from shared.clock import SystemClock
from shared.errors import FieldRequired, NotFound, Reason
from shared.identity import HEADER, Principal, Verifier
from shared.rpc.errors import abort
from tests.support.identity import Keys, make_keys
from tests.support.valkey import free_port

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(slots=True)
class EmptyMemory(memory_rpc.MemoryServiceServicer, conversation_rpc.ConversationServiceServicer):
    """Knows nothing, and keeps nothing: it refuses turns without a word. `silent` is a mesh that searches for nothing."""

    silent: bool = False
    asked: list[memory.GetContextRequest] = field(default_factory=list)
    told: list[list[str]] = field(default_factory=list)

    async def GetContext(self, request: Any, context: Any) -> memory.GetContextResponse:
        self.asked.append(request)
        return memory.GetContextResponse(unsearched=self.silent)

    async def AppendTurns(self, request: Any, context: Any) -> conversation.AppendTurnsResponse:
        self.told.append([f"{one.session_id} {one.turn_id} {one.agent} {one.remember}" for one in request.turns])
        why = FieldRequired("content").status()
        refused = [
            conversation.RefusedTurn(turn_id=one.turn_id, status=why) for one in request.turns if not one.content
        ]
        return conversation.AppendTurnsResponse(refused=refused)


@dataclass(slots=True)
class SlowModel(inference_rpc.InferenceServiceServicer):
    """Speaks a word at a time, to any number of readers, and goes on when they are gone."""

    verifier: Verifier
    words: int
    pause: float
    started: dict[str, float] = field(default_factory=dict)
    callers: list[Principal] = field(default_factory=list)
    asked: list[inference.GenerateRequest] = field(default_factory=list)
    memory: EmptyMemory = field(default_factory=EmptyMemory)  # type: ignore[abstract] # serves what the orchestrator calls

    @property
    def text(self) -> str:
        return "".join(f" word{place}" for place in range(self.words))

    async def Generate(self, request: inference.GenerateRequest, context: Any) -> AsyncIterator[Any]:
        self._admit(context)
        self.asked.append(request)
        self.started.setdefault(request.generation_id, asyncio.get_running_loop().time())
        async for event in self._events(request.generation_id, 0):
            yield inference.GenerateResponse(event=event)

    async def Attach(self, request: inference.AttachRequest, context: Any) -> AsyncIterator[Any]:
        self._admit(context)
        if request.generation_id not in self.started:
            reason = Reason.ERROR_REASON_GENERATION_NOT_FOUND
            await abort(context, NotFound("no such generation", reason=reason))
        async for event in self._events(request.generation_id, request.after_sequence):
            yield inference.AttachResponse(event=event)

    async def CancelGeneration(self, request: Any, context: Any) -> inference.CancelGenerationResponse:
        return inference.CancelGenerationResponse()

    def _admit(self, context: Any) -> None:
        (header,) = [value for key, value in context.invocation_metadata() if key == HEADER]
        self.callers.append(self.verifier.verify(header))

    async def _events(self, generation_id: str, after: int) -> AsyncIterator[generation_pb2.GenerationEvent]:
        began = self.started[generation_id]
        for sequence in range(after + 1, self.words + 2):
            late = began + sequence * self.pause - asyncio.get_running_loop().time()
            await asyncio.sleep(max(0.0, late))
            event = generation_pb2.GenerationEvent(generation_id=generation_id, sequence=sequence)
            if sequence > self.words:
                event.finished.usage.output_tokens = self.words
            else:
                event.text.text, event.text.token_count = f" word{sequence - 1}", 1
            yield event


@dataclass(frozen=True, slots=True)
class _Fork:
    """A fork, as a process of one's own is handled."""

    fork: forked.Forked

    def send_signal(self, number: int) -> None:
        if self.fork.returncode is None:
            self.fork.send_signal(number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        return self.fork.returncode

    def wait(self, timeout: float | None = None) -> int:
        """It ended when the signal was sent, or does at once."""
        return 0


@dataclass(slots=True)
class Replica:
    """One process."""

    process: subprocess.Popen[bytes] | _Fork
    address: str
    log: Path

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """In the block the process does nothing at all."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    async def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self.process.wait, 15)


@dataclass(slots=True)
class Site:
    """What replicas share: stores, peers and keys."""

    folder: Path
    dsn: str
    driver_dsn: str
    redis_url: str
    mesh_address: str
    keys: Keys
    trusted: Path
    signing_key: Path
    temporal: str | None = None

    @property
    def _driver(self) -> dict[str, str]:
        if self.temporal is None:
            return {}
        return {
            "AGENTNET_ORCHESTRATOR_DRIVER": "temporal",
            "AGENTNET_ORCHESTRATOR_TEMPORAL_ADDRESS": self.temporal,
            "AGENTNET_ORCHESTRATOR_TEMPORAL_QUEUE": self.folder.name,
        }

    @asynccontextmanager
    async def replica(self, name: str) -> AsyncIterator[Replica]:
        """A process that serves; it is gone at the end of the block."""
        address = f"127.0.0.1:{free_port()}"
        given = self._environment(address)
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            command = (sys.executable, "-m", "services.orchestrator")
            process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **given}, cwd=_ROOT)
        try:
            await _serving(address, process, log)
            yield Replica(process, address, log)
        finally:
            process.kill()
            process.wait()

    @asynccontextmanager
    async def forking(self) -> AsyncIterator[Path]:
        """A process that has imported all a replica needs; replicas forked of it start in a fraction of the time."""
        path = self.folder / "fork.sock"
        code = "import services.orchestrator.main, deploy.local.forkserver as server; server.main()"
        environment = {**os.environ, **self._environment("")}
        server = subprocess.Popen((sys.executable, "-c", code, str(path)), env=environment, cwd=_ROOT)
        try:
            async with asyncio.timeout(60):
                while not forked.answers(path):
                    await asyncio.sleep(0.05)
            yield path
        finally:
            server.kill()
            server.wait()

    @asynccontextmanager
    async def fork(self, server: Path, name: str) -> AsyncIterator[Replica]:
        """As replica, forked."""
        address = f"127.0.0.1:{free_port()}"
        environment = {**os.environ, **self._environment(address)}
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            process = _Fork(
                await forked.fork(
                    server, "services.orchestrator", name=name, environment=environment, log=output.fileno()
                )
            )
        try:
            await _serving(address, process, log)
            yield Replica(process, address, log)
        finally:
            process.kill()

    def _environment(self, address: str) -> dict[str, str]:
        return {
            "AGENTNET_LISTEN": address,
            "AGENTNET_MESH_ADDRESS": self.mesh_address,
            "AGENTNET_POSTGRES_DSN": self.dsn,
            "AGENTNET_REDIS_URL": self.redis_url,
            "AGENTNET_IDENTITY_KEYS": str(self.trusted),
            "AGENTNET_IDENTITY_PRIVATE_KEY": str(self.signing_key),
            "AGENTNET_DRAIN_GRACE": "0.1",
            "AGENTNET_ORCHESTRATOR_DRIVER_DSN": self.driver_dsn,
            "AGENTNET_ORCHESTRATOR_LOG_KEY": "a key of the tests",
            "AGENTNET_ORCHESTRATOR_LEASE_TTL": "2",
            "PYTHONPATH": f"{_ROOT}:{_ROOT / 'gen' / 'python'}",
            **self._driver,
        }


@asynccontextmanager
async def site(
    folder: Path, *, dsn: str, driver_dsn: str, redis_url: str, words: int, pause: float, temporal: str | None = None
) -> AsyncIterator[tuple[Site, SlowModel]]:
    """Peers that answer, and all a replica needs to know."""
    gateway, own = make_keys(folder, "gateway"), make_keys(folder, "orchestrator")
    trusted = folder / "mesh.jwks"
    public = [key for keys in (gateway, own) for key in json.loads(keys.jwks.read_text())["keys"]]
    trusted.write_text(json.dumps({"keys": public}))
    verifier = Verifier.from_file(own.jwks, SystemClock())
    model = SlowModel(verifier, words, pause)  # type: ignore[abstract] # serves what the orchestrator calls
    server = grpc.aio.server()
    inference_rpc.add_InferenceServiceServicer_to_server(model, server)
    memory_rpc.add_MemoryServiceServicer_to_server(model.memory, server)
    conversation_rpc.add_ConversationServiceServicer_to_server(model.memory, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        mesh = f"127.0.0.1:{port}"
        yield Site(folder, dsn, driver_dsn, redis_url, mesh, gateway, trusted, own.private_key, temporal), model
    finally:
        await server.stop(0)


async def _serving(address: str, process: subprocess.Popen[bytes] | _Fork, log: Path) -> None:
    async with grpc.aio.insecure_channel(address) as channel, asyncio.timeout(240):
        health: Any = health_pb2_grpc.HealthStub(channel)
        while True:
            if process.poll() is not None:
                raise RuntimeError(log.read_text())
            try:
                await health.Check(health_pb2.HealthCheckRequest())
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.05)
            else:
                return
