#!/usr/bin/env bash
# Writes requirements.lock and deploy/python/uv.lock anew. Locks name packages and hashes, never an index: any mirror will do.
set -euo pipefail
cd "$(dirname "$0")/../.."
compile() { uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header "$@"; }
compile deploy/python/uv.in --no-annotate --output-file deploy/python/uv.lock
# Every extra but policy-presidio: spaCy is for those who want it, and for test-backends.
compile pyproject.toml --extra local --extra temporal --extra policy-onnx --group dev --output-file requirements.lock
compile pyproject.toml --all-extras --group dev --group backends --output-file deploy/python/backends.lock
compile pyproject.toml --extra postgres --extra redis --extra orchestrator --extra temporal --extra inference --extra memory --extra policy --extra tools --extra gateway --extra embedded --extra parquet --group build --output-file deploy/docker/requirements.lock
