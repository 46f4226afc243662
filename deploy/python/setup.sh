#!/usr/bin/env bash
# Makes .venv from requirements.lock: hashes checked, nothing unpinned, done again only when the lock changes.
set -euo pipefail
cd "$(dirname "$0")/../.."
stamp=.venv/.lock
want=$(cat requirements.lock deploy/python/uv.lock pyproject.toml | sha256sum | cut -d' ' -f1)
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ] && exit 0

find_python() {
  for name in "${PYTHON:-}" python3.11 python3.12 python3.13 python3; do
    [ -n "$name" ] && command -v "$name" >/dev/null &&
      "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' && { echo "$name"; return; }
  done
  echo "agentnet needs Python 3.11, 3.12 or 3.13; set PYTHON to one" >&2
  exit 1
}

python=$(find_python)
echo "setting up .venv (once per lock) ..."
# Environments of before had a package that takes files of others along when it goes.
compgen -G ".venv/lib/python*/site-packages/xds_protos-*" >/dev/null && rm -rf .venv
[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/python -m pip install --quiet --require-hashes --no-deps -r deploy/python/uv.lock
export VIRTUAL_ENV="$PWD/.venv"
.venv/bin/uv pip sync --quiet --require-hashes requirements.lock
.venv/bin/uv pip install --quiet --no-deps --no-build-isolation --offline --editable .
echo "$want" > "$stamp"
