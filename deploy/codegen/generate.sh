#!/usr/bin/env bash
# Everything derived: formatted protos, gen/python, gen/descriptors, two pages of docs. Offline.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH="$PWD/.venv/bin:$PATH"
rm -rf .agentnet/googleapis && mkdir -p .agentnet/googleapis/google gen/descriptors
googleapis=$(python -c 'import google.api, pathlib; print(pathlib.Path(list(google.api.__path__)[0]).parent)')
for part in api rpc; do mkdir -p ".agentnet/googleapis/google/$part" && cp "$googleapis/$part"/*.proto ".agentnet/googleapis/google/$part/"; done
[ "${1:-}" = --deps ] && exit 0
buf format -w protos
buf lint
rm -rf gen/python/agentnet
buf generate 2>&1 | { grep -v "^Writing mypy" || true; }
buf build --as-file-descriptor-set -o gen/descriptors/agentnet.binpb
python -m deploy.codegen.configuration
python -m deploy.codegen.reasons
