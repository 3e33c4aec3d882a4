# The one door to penstock. `make help` lists the targets.
SHELL := /usr/bin/env bash -euo pipefail
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell command -v python3.11 || command -v python3)
MEMBERS := penstock compose/native $(addprefix services/,ingest inference drift cost retrain)
SYNCED := $(VENV)/.synced
NATIVE := $(BIN)/python -m penstock_native
PYTEST := $(BIN)/python -m pytest -q
UV = "$$(command -v uv || echo $(VENV)/uv)"
PYTHON_SOURCES := penstock compose services tests bench examples
# What takes long comes first. Tests that start processes wait more than they compute: so many
# files at a time.
TEST_SUITES := tests/e2e tests/integration tests/contract tests/unit
TEST_WORKERS ?= 2

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z][a-zA-Z0-9_-]*:.*## / {printf "  %-18s %s\n", $$1, $$2}' Makefile

.PHONY: setup
setup: $(SYNCED) ## Create .venv with the locked packages (needs Python 3.11; quick when done)

$(SYNCED): requirements/dev.txt $(addsuffix /pyproject.toml,$(MEMBERS))
	@PYTHON="$(PYTHON)" bash compose/native/setup.sh $(VENV) requirements/dev.txt $(MEMBERS)
	@touch $@

.PHONY: lock
lock: ## Resolve anew and write the hash-pinned requirements/*.txt
	@bash requirements/lock.sh

.PHONY: demo
demo: setup ## Tell the whole story: tickets drift, a job trains, a better model takes over (10 minutes)
	@$(BIN)/python -m examples.triage.story

.PHONY: demo-bad
demo-bad: setup ## The same with a bad candidate, which is rolled back
	@$(BIN)/python -m examples.triage.story --bad

.PHONY: demo-plane
demo-plane: setup ## Start a stack of its own, send it 1,200 tickets, check every promise, take it down
	@$(NATIVE) run -- $(BIN)/penstock demo

$(VENV)/mlflow/.synced: requirements/mlflow.txt $(SYNCED)
	@$(UV) venv -q --allow-existing --python $(BIN)/python $(VENV)/mlflow
	@$(UV) pip sync -q --python $(VENV)/mlflow/bin/python --require-hashes $<
	@touch $@

.PHONY: up
up: setup $(VENV)/mlflow/.synced ## Start the stack on this machine (ports and settings: compose/.env)
	@$(NATIVE) up

.PHONY: down
down: setup ## Stop the stack; its data stay in .penstock/
	@$(NATIVE) down

.PHONY: status
status: setup ## Show the stack's services, processes and ports
	@$(NATIVE) status

.PHONY: logs
logs: setup ## Follow the logs of all services, or of one: make logs SERVICE=ingest
	@$(NATIVE) logs $(SERVICE)

.PHONY: test
test: setup ## Run every test: unit, contract, integration, e2e (real Kafka, vLLM on the CPU)
	@$(PYTEST) -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder $(wildcard $(TEST_SUITES))

.PHONY: test-again
test-again: setup ## Run those tests once more that failed in the last run
	@$(PYTEST) --last-failed --last-failed-no-failures none $(wildcard $(TEST_SUITES))

.PHONY: test-unit
test-unit: setup ## Run the unit and contract tests: no processes, no network
	@$(PYTEST) $(wildcard tests/unit tests/contract)

.PHONY: test-integration
test-integration: setup ## Run the tests against a real Kafka
	@$(PYTEST) tests/integration

.PHONY: test-e2e
test-e2e: setup ## Run the tests of the whole stack
	@$(PYTEST) tests/e2e

SEED ?= 1

.PHONY: test-chaos
test-chaos: setup ## Kill, stop and cut parts of the stack under load, and check every answer (SEED=1)
	@$(BIN)/python -m tests.chaos.run --seed $(SEED)

.PHONY: test-chaos-long
test-chaos-long: setup ## The same with 210 faults and 100,000 requests; writes bench/CHAOS.md
	@$(BIN)/python -m tests.chaos.run --seed $(SEED) --faults 210 --requests 101000 --rate 40 --out bench/CHAOS.md

RESPONSES ?= 200000
KILLS ?= 20

.PHONY: test-drift-chaos
test-drift-chaos: setup ## Kill drift 20 times over 200,000 responses: the same events (SEED=1 KILLS=20 RESPONSES=200000)
	@DRIFT_TEST_RESPONSES=$(RESPONSES) DRIFT_TEST_KILLS=$(KILLS) DRIFT_TEST_TASKS=20 DRIFT_TEST_SEED=$(SEED) \
	  $(PYTEST) -s tests/integration/test_drift_killed.py::test_killed_at_seeded_points

.PHONY: check
check: check-python check-protos check-compose check-k8s ## Run every static check

.PHONY: check-python
check-python: setup ## Check format, lint, types and imports, and that every test can be loaded
	@$(BIN)/ruff format --check -q $(wildcard $(PYTHON_SOURCES))
	@$(BIN)/ruff check -q $(wildcard $(PYTHON_SOURCES))
	@$(BIN)/mypy $(addsuffix /src,$(MEMBERS))
	@PYTHONWARNINGS=ignore $(BIN)/lint-imports
	@$(BIN)/pytest --collect-only -q >$(VENV)/collected.log || { tail -40 $(VENV)/collected.log; exit 1; }

.PHONY: check-protos
check-protos: setup ## Lint the contracts, compare them with main's, regenerate and compare the code
	@bash protos/check.sh $(BIN)

.PHONY: check-compose
check-compose: setup ## Lint the compose files and the Dockerfiles
	@$(BIN)/python compose/lint.py

.PHONY: check-k8s
check-k8s: setup ## Lint the Helm chart (fetches helm and kubeconform with go; skipped without)
	@bash k8s/lint.sh $(BIN)/python

.PHONY: fmt
fmt: setup ## Format the code and mend what ruff can
	@$(BIN)/ruff format -q $(wildcard $(PYTHON_SOURCES))
	@$(BIN)/ruff check -q --fix $(wildcard $(PYTHON_SOURCES))

.PHONY: protos
protos: setup ## Regenerate the Python contracts from protos/
	@protos/generate.sh $(abspath $(BIN))/python

.PHONY: docs
docs: setup ## Regenerate what is made from the topics table: a page of docs/, a file of k8s/
	@$(BIN)/penstock topics docs > docs/topics.md
	@$(BIN)/penstock topics helm > k8s/penstock/files/topics.yaml

PARTS ?= scripted,latency,ttft,throughput,growth

.PHONY: bench
bench: setup bench/.extras ## Run the benchmark: two hours, alone on the machine (PARTS=scripted,ttft)
	@$(BIN)/python bench/run.py --parts $(PARTS)

bench/.extras: bench/ray-llm.txt
	@$(UV) pip install -q --python $(BIN)/python --no-deps \
		--require-hashes --target $@ -r $<
	@touch $@

.PHONY: bench-smoke
bench-smoke: setup ## Run the benchmark briefly, to see that it works
	@$(BIN)/python bench/smoke.py

SEEDS ?= 1,2,3

.PHONY: bench-loop
bench-loop: setup ## Tell the whole story, a control and a bad candidate, each three times: 80 minutes (SEEDS=1)
	@$(BIN)/python -m bench.loop --seeds $(SEEDS)

TIMES ?= 30

.PHONY: bench-loop-recorded
bench-loop-recorded: setup ## The same thirty times with answers that are played back: 2.5 hours, goes on where it was (TIMES=3)
	@$(BIN)/python -m bench.loop --recorded --seeds $$(seq -s, 1 $(TIMES))

.PHONY: bench-loop-killed
bench-loop-killed: setup ## Tell it with retrain killed in each stage, and with Ray's head killed: 30 minutes
	@$(BIN)/python -m bench.loop --recorded --kinds killed --seeds 1,2,3,4,5,6
	@$(BIN)/python -m bench.loop --kinds ray --seeds 1

.PHONY: bench-drift
bench-drift: setup ## Compare drift detectors: hours of CPU, goes on where it was (DRIFT_PARTS=table)
	@$(BIN)/python -m bench.drift.run $(if $(DRIFT_PARTS),--parts $(DRIFT_PARTS))

.PHONY: bench-canary
bench-canary: setup ## Simulate the canary's error rates and power: minutes of CPU, goes on where it was
	@$(BIN)/python bench/canary.py

.PHONY: bench-drift-knobs
bench-drift-knobs: setup ## Turn the triage generator's knobs on a running stack: does drift see what it should?
	@$(BIN)/python -m bench.drift.knobs

.PHONY: clean
clean: ## Remove what the tools leave behind; .venv and .penstock stay
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .grimp_cache
	@find $(wildcard $(PYTHON_SOURCES)) -name __pycache__ -type d -prune -exec rm -rf {} +
