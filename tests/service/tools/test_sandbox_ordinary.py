"""All attacks once more with the service started by a user who is not root."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.tools import enter

pytestmark = pytest.mark.heavy

ROOT = Path(__file__).resolve().parents[3]
FILES = [f"tests/service/tools/test_sandbox_{name}.py" for name in ("attacks", "variants")]
ORDINARY = 1_879_050_777


@pytest.mark.timeout(580)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become an ordinary user; the attacks run as one already")
def test_every_attack_is_contained_when_an_ordinary_user_starts_the_service() -> None:
    visible = (str(Path(sys.executable)), os.path.realpath(sys.executable), sys.base_prefix, str(ROOT))
    as_ordinary = [sys.executable, "-I", "-S", enter.__file__, str(ORDINARY), *dict.fromkeys(visible), "--"]
    attacks = [sys.executable, "-m", "pytest", *FILES, "-p", "no:cacheprovider"]
    clean = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*as_ordinary, *attacks, "--basetemp", f"/tmp/ordinary-{os.getpid()}"],
        cwd=ROOT, env=clean, capture_output=True, text=True, timeout=560, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert " passed, 1 skipped" in done.stdout, "only the test about root is left out"
