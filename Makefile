# `make` alone prints what there is. Every target sets up what it needs.
SHELL := /bin/bash
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.venv/bin:$(PATH)
PYTEST := python -m pytest

.PHONY: help setup run demo up down gen lock check test test-heavy test-unit test-contract test-service test-e2e test-conformance bench bench-streaming bench-sessions bench-policy bench-policy-splits bench-policy-pii

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

setup: ## Make .venv from the lock, once per lock
	@bash deploy/python/setup.sh

run: setup ## Set up everything, run the main job, then serve until Ctrl-C
	@agentnet up --run

demo: setup ## The same job once, exit code and all
	@agentnet up --demo

up: setup ## Start the embedded mesh in the background
	@agentnet up --detach

down: setup ## Stop it
	@agentnet down

gen: setup ## Generate code and descriptors from the protos, offline
	@bash deploy/codegen/generate.sh

lock: setup ## Resolve dependencies anew into the locks
	@bash deploy/python/lock.sh

check: setup ## Everything CI checks beside tests
	@bash deploy/codegen/check.sh

test: setup ## unit, contract, service, conformance, then end to end through the real mesh
	@$(PYTEST) tests/unit tests/contract tests/service tests/conformance tests/e2e

test-heavy: setup ## What takes minutes: kills of real processes, attacks as an ordinary user
	@$(PYTEST) -m heavy tests

test-unit test-contract test-service test-e2e test-conformance: setup ## One folder of tests
	@$(PYTEST) tests/$(@:test-%=%)

bench: setup ## Measure the mesh's overhead and print the table
	@python -m tests.bench.overhead

bench-streaming: setup ## Streamed tokens beside plain Envoy; LITELLM=path of its command adds LiteLLM
	@python -m tests.bench.streaming --write $(if $(LITELLM),--litellm $(LITELLM))

bench-sessions: setup ## 500 sessions at once; LANGGRAPH=python of a venv with LangGraph adds it
	@python -m tests.bench.sessions $(if $(LANGGRAPH),--langgraph $(LANGGRAPH))

bench-policy: setup ## What policy costs a streamed token, beside re, google-re2 and hyperscan
	@python -m tests.bench.policy_stream

bench-policy-splits: setup ## A million ways to cut a text around something forbidden: none may leak
	@python -m tests.bench.policy_splits

bench-policy-pii: setup ## How well personal data is found; install faker, presidio-analyzer, scrubadub for the peers
	@python -m tests.bench.policy_pii
