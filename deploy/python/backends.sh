#!/usr/bin/env bash
# Makes .venv-backends: everything of .venv and the other engines for memory's vectors, once per lock.
set -euo pipefail
cd "$(dirname "$0")/../.."
lock=deploy/python/backends.lock stamp=.venv-backends/.lock
want=$(cat "$lock" pyproject.toml | sha256sum | cut -d' ' -f1)
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ] && exit 0
echo "setting up .venv-backends (once per lock) ..."
# Environments of before had a package that takes files of others along when it goes.
compgen -G ".venv-backends/lib/python*/site-packages/xds_protos-*" >/dev/null && rm -rf .venv-backends
[ -x .venv-backends/bin/python ] || .venv/bin/python -m venv --without-pip .venv-backends
export VIRTUAL_ENV="$PWD/.venv-backends"
.venv/bin/uv pip sync --quiet --require-hashes "$lock"
.venv/bin/uv pip install --quiet --no-deps --no-build-isolation --offline --editable .
echo "$want" > "$stamp"
