#!/usr/bin/env bash
# Lint, types, layers and drift. Changes nothing.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH="$PWD/.venv/bin:$PATH"
say() { printf '%s\n' "check: $*"; }

bash deploy/codegen/generate.sh --deps
say "buf lint, format"
buf lint
buf format --diff --exit-code protos
if git rev-parse --verify --quiet HEAD~1 >/dev/null; then
  base=$(git rev-parse --verify --quiet origin/main || git rev-parse HEAD)
  say "buf breaking against ${base:0:12}"
  git show "$base:gen/descriptors/agentnet.binpb" > .agentnet/base.binpb
  buf build --as-file-descriptor-set -o .agentnet/now.binpb
  buf breaking .agentnet/now.binpb --against .agentnet/base.binpb \
    --config '{"version": "v1", "breaking": {"use": ["FILE", "WIRE_JSON"]}}'
fi
say "generated code is what the protos say"
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
buf generate --output "$fresh" 2>/dev/null
diff -r -q -x __pycache__ "$fresh/gen/python" gen/python
say "ruff"
ruff format --check --quiet services shared deploy tests
ruff check --quiet services shared deploy tests
say "mypy, pyright"
mypy
pyright
say "layers"
lint-imports --no-cache 2>/dev/null | tail -n 1
say "ok"
