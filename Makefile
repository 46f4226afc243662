# `make` alone prints what there is. Every target sets up what it needs.
SHELL := /bin/bash
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.venv/bin:$(PATH)
PYTEST := python -m pytest

.PHONY: $(shell sed -nE 's/^([a-z][a-z-]*):.*/\1/p' $(MAKEFILE_LIST))

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

test: setup ## unit, contract, service, conformance on all cores, then end to end through the real mesh
	@$(PYTEST) -n auto --maxprocesses 4 --dist loadfile --maxfail 25 tests/unit tests/contract tests/service tests/conformance --ignore tests/conformance/test_requirements.py
	@$(PYTEST) --maxfail 5 tests/conformance/test_requirements.py tests/e2e

test-heavy: setup ## What takes minutes: kills of real processes, attacks as an ordinary user
	@$(PYTEST) -m heavy tests

fuzz: setup ## Malformed frames, bombs, slow and 10,000 idle clients against the real Envoy and gateway
	@$(PYTEST) -m heavy tests/service/gateway/test_fuzz.py

test-clients: setup ## Clients and suites that others publish, from npm and PyPI, unchanged
	@cd tests/conformance/clients/node && npm ci --silent --ignore-scripts --omit=optional --no-audit --no-fund
	@uv venv --quiet --allow-existing .agentnet/clients
	@uv pip install --quiet --python .agentnet/clients/bin/python -r tests/conformance/clients/python/requirements.in
	@$(PYTEST) -m heavy tests/conformance/clients

test-unit test-contract test-service test-e2e test-conformance: setup ## One folder of tests
	@$(PYTEST) tests/$(@:test-%=%)

test-backends: setup ## Memory's contract suite on every engine it has an adapter for, in an environment of its own
	@bash deploy/python/backends.sh
	@.venv-backends/bin/python -m pytest tests/contract/memory/test_store.py tests/contract/memory/test_changing.py tests/contract/memory/test_tenants.py tests/contract/policy/test_presidio.py

bench-backends: setup ## Memory's backends side by side: writing, searching, recall
	@bash deploy/python/backends.sh
	@.venv-backends/bin/python -m tests.bench.memory_backends

bench-memory: setup ## Recall at SIZES=10000,100000,1000000 memories beside FAISS, Chroma and Qdrant (to 100,000; ALONE=1: without): forty minutes on quiet cores. KEPT=folder keeps the embeddings for the next run
	@bash deploy/python/backends.sh
	@.venv-backends/bin/python -m tests.bench.memory_latency $(if $(ALONE),,--peers) $(if $(KEPT),--save $(KEPT)) --sizes $(or $(SIZES),10000,100000,1000000)

coverage-memory: setup ## Fails on a line or branch of memory that its tests do not run, with every engine installed
	@bash deploy/python/backends.sh
	@.venv-backends/bin/python -m pytest tests/unit/memory tests/service/memory tests/contract/memory --cov=services.memory --cov-branch --cov-report=term-missing:skip-covered --cov-fail-under=100

bench: setup ## Measure the mesh's overhead and print the table
	@python -m tests.bench.overhead

bench-streaming: setup ## Streamed tokens beside plain Envoy; LITELLM=its command and TENSORZERO=a Python with its wheel add them
	@python -m tests.bench.streaming --write $(if $(LITELLM),--litellm $(LITELLM)) $(if $(TENSORZERO),--tensorzero $(TENSORZERO))

bench-start: setup ## What starting a stream costs: first tokens and CPU of each process; LITELLM=its command adds it
	@python -m tests.bench.inference_start $(if $(LITELLM),--litellm $(LITELLM)) $(if $(TENSORZERO),--tensorzero $(TENSORZERO))

bench-unary: setup ## CPU of a whole answer; LITELLM=its command and TENSORZERO=a Python with its wheel add them
	@python -m tests.bench.unary $(if $(LITELLM),--litellm $(LITELLM)) $(if $(TENSORZERO),--tensorzero $(TENSORZERO))

bench-soak: setup ## 500 streams at 20 ms a token for ten minutes: fails on an error, at 200 MB or when memory grows
	@python -m tests.bench.soak

bench-replay: setup ## Recordings beside the embedded model
	@python -m tests.bench.replay
bench-sessions: setup ## 500 sessions at once; LANGGRAPH=python of a venv with LangGraph adds it, PROCESSES=2 is two of each side
	@python -m tests.bench.sessions --processes $(or $(PROCESSES),1) $(if $(LANGGRAPH),--langgraph $(LANGGRAPH))

bench-sessions-mesh: setup ## The same through the whole mesh with a model behind HTTP; LANGGRAPH adds it with langchain-openai, SOAK=240 has agentnet alone keep them running and fails when memory grows
	@python -m tests.bench.sessions_mesh $(if $(LANGGRAPH),--langgraph $(LANGGRAPH)) $(if $(SOAK),--seconds $(SOAK))

bench-graphs: setup ## What a step of a graph costs; LANGGRAPH, DBOS, TEMPORAL=python of a venv each add it
	@python -m tests.bench.graphs --rounds $(or $(ROUNDS),1) --sessions 500 $(if $(LANGGRAPH),--langgraph $(LANGGRAPH)) $(if $(DBOS),--dbos $(DBOS)) $(if $(TEMPORAL),--temporal $(TEMPORAL))

bench-sandbox: setup ## A call in the sandbox beside plain python3 -c pass, and gVisor where runsc is on the path
	@python -m tests.bench.tools_sandbox

bench-policy: setup ## What policy costs a streamed token, beside re, google-re2 and hyperscan
	@python -m tests.bench.policy_stream

bench-policy-splits: setup ## A million ways to cut a text around something forbidden: none may leak
	@python -m tests.bench.policy_splits

bench-policy-pii: setup ## How well personal data is found; install faker, presidio-analyzer, scrubadub for the peers
	@python -m tests.bench.policy_pii
	@python -m tests.bench.policy_names

bench-policy-injection: setup ## How well prompt injection is found; AGENTNET_BENCH_DATA names the folder of public sets
	@python -m tests.bench.policy_injection

coverage-graphs: setup ## Every line and branch of graphs, checkpoints and drivers is run by their tests, on both drivers
	@$(PYTEST) -m "heavy or not heavy" -k "not two_hundred" tests/unit/orchestrator tests/contract/orchestrator/test_chosen.py tests/contract/orchestrator/test_drivers.py tests/contract/orchestrator/test_checkpoints.py tests/contract/orchestrator/test_graphs.py tests/service/orchestrator/test_task_graphs.py $(GRAPHS:%=--cov=services.orchestrator.%) --cov-branch --cov-report=term-missing:skip-covered --cov-fail-under=100
coverage-graphs: GRAPHS := graphs checkpoints drivers tasks tool_tasks task_graphs planner
