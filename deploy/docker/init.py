"""Prepares the compose stack once: keys, roles, schemas, and one folder a service with only its own secrets."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import Final
from urllib.parse import quote

import asyncpg

from deploy.envoy.__main__ import containers
from deploy.envoy.__main__ import text as envoy_config
from deploy.envoy.inputs import tls_wanted
from deploy.envoy.tls import secrets
from deploy.local.authority import Authority
from deploy.local.state import SIGNERS, State, write_private
from deploy.local.tokens import mint
from shared.migrate import migrate, migrations
from shared.postgres import load_queries
from shared.rpc.tls import AUTHORITY, CERTIFICATE, KEY
from shared.settings import SERVICES

_ROLES: Final = ("owner", "orchestrator_driver", *SERVICES)
_BOOTSTRAP: Final = Path(__file__).parents[1] / "postgres" / "bootstrap.sql"
_HOST: Final = "postgres:5432"


def dsn(state: State, role: str) -> str:
    password = quote(state.secret(f"postgres.{role}"), safe="")
    return f"postgresql://agentnet_{role}:{password}@{_HOST}/agentnet"


async def prepare_database(state: State) -> None:
    """Roles, database, schemas and migrations, as the embedded mesh has them."""
    queries = load_queries(_BOOTSTRAP)
    password = quote(os.environ["POSTGRES_PASSWORD"], safe="")
    admin = await asyncpg.connect(f"postgresql://postgres:{password}@{_HOST}/postgres")
    await admin.execute(queries["roles"])
    for role in _ROLES:
        await admin.execute(
            await admin.fetchval(queries["set_password"], f"agentnet_{role}", state.secret(f"postgres.{role}"))
        )
    if not await admin.fetchval(queries["database_exists"]):
        await admin.execute(queries["create_database"])
    await admin.close()
    owner = await asyncpg.connect(f"postgresql://postgres:{password}@{_HOST}/agentnet")
    await owner.execute(queries["schemas"])
    await owner.close()
    await migrate(dsn(state, "owner"), migrations())


def write_service(state: State, root: Path, service: str) -> None:
    """The folder one service mounts: its environment, the mesh's public keys and its own private one."""
    folder = root / service
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(state.key("mesh.jwks"), folder / "mesh.jwks")
    settings = {
        "AGENTNET_LISTEN": "0.0.0.0:50051",  # inside its container
        "AGENTNET_MESH_ADDRESS": "envoy:9090",
        "AGENTNET_POSTGRES_DSN": dsn(state, service),
        "AGENTNET_REDIS_URL": f"redis://:{os.environ['REDIS_PASSWORD']}@redis:6379/0",
        "AGENTNET_IDENTITY_KEYS": "/etc/agentnet/mesh.jwks",
    }
    if service in SIGNERS:
        shutil.copy(state.key(f"{service}.pem"), folder / "identity.pem")
        settings["AGENTNET_IDENTITY_PRIVATE_KEY"] = "/etc/agentnet/identity.pem"
    if tls_wanted():
        copy_tls(state, service, folder / "tls")
        settings["AGENTNET_TLS_FOLDER"] = "/etc/agentnet/tls"
    if service == "gateway":
        settings["AGENTNET_GATEWAY_DOOR"] = "0.0.0.0:50061"  # asked on the compose network by Envoy
        settings["AGENTNET_GATEWAY_DOOR_SECRET"] = state.secret("door")
        settings["AGENTNET_GATEWAY_KEY_PEPPER"] = state.secret("api_keys")
        settings["AGENTNET_GATEWAY_PARTS"] = ",".join(f"{name}={name}:50051" for name in SERVICES)
    if service == "orchestrator":
        settings["AGENTNET_ORCHESTRATOR_DRIVER_DSN"] = dsn(state, "orchestrator_driver")
        settings["AGENTNET_ORCHESTRATOR_LOG_KEY"] = state.secret("log")
    (folder / "env").write_text("".join(f"export {name}={json.dumps(value)}\n" for name, value in settings.items()))
    for file in filter(Path.is_file, folder.rglob("*")):
        os.chown(file, 10001, 10001)
        file.chmod(0o400)


def copy_tls(state: State, party: str, folder: Path) -> None:
    """Its certificates, renamed into place as those who watch the folder expect it; the key before what it is for."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (AUTHORITY, KEY, CERTIFICATE):
        write_private(folder / name, (Authority.of(state).of_party(party) / name).read_text())


def write_envoy_tls(state: State, envoy: Path) -> None:
    """What the configuration names when it speaks TLS."""
    for party in ("edge", "envoy"):
        copy_tls(state, party, envoy / "tls" / party)
    for name, secret in secrets(containers()).items():
        write_private(envoy / name, secret)


def main() -> None:
    state, root = State(Path("/state/init")), Path("/state")
    state.prepare()
    if tls_wanted():
        Authority.of(state).renew()
    asyncio.run(prepare_database(state))
    for service in SERVICES:
        write_service(state, root, service)
    envoy = root / "envoy"
    envoy.mkdir(exist_ok=True)
    shutil.copy(state.key("edge.jwks"), envoy / "edge.jwks")
    shutil.copy(Path("gen/descriptors/agentnet.binpb"), envoy / "agentnet.binpb")
    (envoy / "envoy.json").write_text(envoy_config(state.secret("door")))
    if tls_wanted():
        write_envoy_tls(state, envoy)
    for file in filter(Path.is_file, envoy.rglob("*")):
        file.chmod(0o444)
    (root / "client").mkdir(exist_ok=True)
    (root / "client" / "token").write_text(mint(state))
    if tls_wanted():
        shutil.copy(Authority.of(state).certificate, root / "client" / AUTHORITY)


if __name__ == "__main__":
    main()
