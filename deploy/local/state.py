"""The state folder: secrets, keys, ports and what the mesh tells about itself. Everything is made once and kept."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from jwt.algorithms import ECAlgorithm, OKPAlgorithm

from shared.settings import SERVICES

DEFAULT_PORTS: Final = {
    "edge": 8080,
    "internal": 9090,
    **{service: 50051 + place for place, service in enumerate(SERVICES)},
    "evaluation": 50051 + len(SERVICES),
    "postgres": 55432,
    "valkey": 56379,
    "model": 58080,
}
_TRIES: Final = 8
SIGNERS: Final = ("gateway", "orchestrator", "inference", "policy", "memory", "tools", "cost")


class AlreadyRunning(Exception):
    """Another supervisor holds this state folder."""


@dataclass(frozen=True, slots=True)
class State:
    """One mesh's folder, `.agentnet` unless AGENTNET_STATE names another."""

    folder: Path

    @classmethod
    def default(cls) -> State:
        return cls(Path(os.environ.get("AGENTNET_STATE", ".agentnet")).absolute())

    @property
    def mesh_file(self) -> Path:
        return self.folder / "mesh.json"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def key(self, name: str) -> Path:
        return self.folder / "keys" / name

    def prepare(self) -> None:
        """Makes folders, secrets and keys that are not there yet."""
        for folder in (self.folder, self.logs, self.folder / "keys"):
            folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        _make_edge_key(self)
        _make_identity_keys(self)
        self.secret("postgres")

    def secret(self, name: str) -> str:
        """A random secret by name, made at first use."""
        file = self.folder / "secrets.json"
        known: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
        if name not in known:
            known[name] = secrets.token_urlsafe(24)
            write_private(file, json.dumps(known, indent=1))
        return known[name]

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the folder for one supervisor. Raises AlreadyRunning."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AlreadyRunning(f"a mesh is already running in {self.folder}") from None
            yield

    def running(self) -> dict[str, Any] | None:
        """What the running mesh says of itself; None when none runs."""
        try:
            with self.lock():
                return None
        except AlreadyRunning:
            return read_json(self.mesh_file)


def read_json(file: Path) -> dict[str, Any] | None:
    """A JSON object from a file; None when it is not there or half written."""
    try:
        found: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return found


def write_private(file: Path, text: str) -> None:
    """Replaces a file in one step, readable by its owner alone."""
    handle, name = tempfile.mkstemp(dir=file.parent)
    with os.fdopen(handle, "w") as temporary:
        temporary.write(text)
    Path(name).replace(file)


@contextmanager
def reserved_ports() -> Iterator[dict[str, int]]:
    """The default ports, or free ones where they are taken. AGENTNET_EDGE_PORT is taken at its word.

    Seconds pass before a part listens on its port. Until the block ends no other mesh of this machine chooses it: each
    port has a name among Linux's abstract sockets, which like ports belong to a network and end with their process.
    """
    chosen: dict[str, int] = {}
    with ExitStack() as held:
        for name, default in DEFAULT_PORTS.items():
            told = os.environ.get("AGENTNET_EDGE_PORT") if name == "edge" else None
            chosen[name] = int(told) if told else _reserve(default, held)
        yield chosen


def _reserve(wanted: int, held: ExitStack) -> int:
    for port in (wanted, *(0 for _ in range(_TRIES))):
        claim = socket.socket(socket.AF_UNIX)
        try:
            found = free_port(port)
            claim.bind(f"\0agentnet-port-{found}")
        except OSError:
            claim.close()
            continue
        held.enter_context(claim)
        return found
    raise OSError("no free port on 127.0.0.1")


def free_port(wanted: int = 0) -> int:
    """The port wanted, or any; free at this moment. Raises OSError when it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", wanted))
        found: int = probe.getsockname()[1]
        return found


def _make_edge_key(state: State) -> None:
    file = state.key("edge.pem")
    if file.exists():
        return
    key = ec.generate_private_key(ec.SECP256R1())
    public = json.loads(ECAlgorithm.to_jwk(key.public_key())) | {"kid": "local", "use": "sig", "alg": "ES256"}
    write_private(state.key("edge.jwks"), json.dumps({"keys": [public]}))
    write_private(file, _pem(key))


def _make_identity_keys(state: State) -> None:
    known = read_json(state.key("mesh.jwks")) or {"keys": []}
    public = list(known["keys"])
    for name in SIGNERS:
        if any(key["kid"] == name for key in public):
            continue
        key = ed25519.Ed25519PrivateKey.generate()
        write_private(state.key(f"{name}.pem"), _pem(key))
        described = json.loads(OKPAlgorithm.to_jwk(key.public_key()))
        public.append(described | {"kid": name, "use": "sig", "alg": "EdDSA"})
    write_private(state.key("mesh.jwks"), json.dumps({"keys": public}))


def _pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> str:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption()).decode()
