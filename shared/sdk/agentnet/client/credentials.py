"""Where the mesh is and how a client proves itself: given, from the environment, or of the local mesh."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from agentnet.client.errors import MeshNotFound

STATE_FOLDER = ".agentnet"
CLIENT_FILE = "client.json"


@dataclass(frozen=True, slots=True)
class Target:
    """One mesh and a credential for it."""

    address: str
    credential: str | None
    # PEM of whom to trust where the address begins with https://; None: whom the world trusts.
    authority: Path | None = None

    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.credential}"),) if self.credential else ()


def find_target(address: str | None, credential: str | None) -> Target:
    """What was given wins over AGENTNET_ADDRESS, AGENTNET_TOKEN and AGENTNET_API_KEY, and they over the local mesh.
    AGENTNET_CA names the file with the authority of an https:// address, if the world does not know it.

    Raises MeshNotFound when nothing names a mesh.
    """
    local = _local()
    address = address or os.environ.get("AGENTNET_ADDRESS") or (local.address if local else None)
    if not address:
        raise MeshNotFound
    given = credential or os.environ.get("AGENTNET_TOKEN") or os.environ.get("AGENTNET_API_KEY")
    fallback = local.credential if local and local.address == address else None
    authority = Path(ca) if (ca := os.environ.get("AGENTNET_CA")) else None
    if local and local.address == address:
        authority = authority or local.authority
    return Target(address=address, credential=given or fallback, authority=authority)


def _local() -> Target | None:
    for file in _candidates():
        try:
            found = json.loads(file.read_text())
            authority = Path(found["authority"]) if "authority" in found else None
            return Target(address=str(found["address"]), credential=str(found["token"]), authority=authority)
        except (OSError, ValueError, KeyError):
            continue
    return None


def _candidates() -> list[Path]:
    if folder := os.environ.get("AGENTNET_STATE"):
        return [Path(folder) / CLIENT_FILE]
    here = Path.cwd()
    return [parent / STATE_FOLDER / CLIENT_FILE for parent in (here, *here.parents)]
