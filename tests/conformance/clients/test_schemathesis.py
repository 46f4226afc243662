"""Schemathesis, unchanged, on the OpenAPI document of a whole embedded mesh: bodies and parameters made at random, within the
schemas and beside them. A fault of the server's (5xx) is a failure; what is meant to be one is not counted. `make test-clients`.
"""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import Mesh, start_mesh
from tests.support.edge import ROOT

SCHEMATHESIS = ROOT / ".agentnet" / "clients" / "bin" / "schemathesis"
SECONDS = 240
# Streams that end with their reader only, and what shuts the caller out.
LEFT_OUT = ":subscribe|:watch|/watch|/attach|/suspend|/v1/tenants"
# Meant: a method over what this mesh has no part for (501), a part that is away or a store that is not set up (503), a limit of time (504).
MEANT = {501, 503, 504}

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.timeout(SECONDS * 3),
    pytest.mark.skipif(not SCHEMATHESIS.is_file(), reason="`make test-clients` installs it"),
]


def test_no_request_of_schemathesis_is_a_fault_of_the_server(tmp_path: Path) -> None:
    mesh = start_mesh(tmp_path / "state")
    try:
        found = json.loads((mesh.state / "client.json").read_text())
        subprocess.run(
            (
                SCHEMATHESIS, "run", f"http://{found['address']}/openapi.json",
                "--header", f"Authorization: Bearer {found['token']}", "--checks", "not_a_server_error",
                "--phases", "fuzzing", "--max-examples", "20", "--max-time", str(SECONDS), "--continue-on-failure",
                "--no-shrink", "--no-color", "--generation-database", "none", "--suppress-health-check", "all",
                "--request-timeout", "10", "--exclude-path-regex", LEFT_OUT, "--seed", "7",
            ),
            cwd=tmp_path, check=False, timeout=SECONDS * 2, capture_output=True,
        )  # fmt: skip
        assert not [part for part in mesh.mesh_file()["processes"] if part["restarts"]], "a process died of it"
        stop(mesh)
        answers = answered(mesh.state / "logs" / "access.log")
        assert len(answers) > 500, "schemathesis sent next to nothing"
        assert not {(status, path) for status, path in answers if status >= 500 and status not in MEANT}
    finally:
        stop(mesh)


def stop(mesh: Mesh) -> None:
    if mesh.supervisor.poll() is None:
        mesh.supervisor.send_signal(signal.SIGTERM)
        mesh.supervisor.wait(timeout=60)


def answered(log: Path) -> list[tuple[int, str]]:
    """Status and path of every call that came to the edge, as Envoy wrote it; 0: the client left before an answer."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [(int(line["status"] or 0), str(line["path"])) for line in lines if line["listener"] == "edge"]
