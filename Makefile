# kvsync: every task a developer, a user or CI runs. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-pure cover lint fmt typecheck imports manifests verify lock native clean docs \
	build-images cluster-up cluster-down chaos-mesh-up chaos-mesh-down test-kv-sync-e2e test-kv-sync-benchmark test-kv-sync-chaos test-kv-sync-all \
	test-fidelity test-interop test-faults

BIN := .venv/bin
UV = $(shell command -v uv || echo .tools/bin/uv)
PYTEST_WORKERS ?= auto

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  %-24s %s\n", $$1, $$2}'

setup: ## Make .venv with every member and tool (quick when nothing changed)
	@hack/setup.sh

demo: setup ## Mock engines, index and router on real sockets, a real trace, a report that proves them equal
	$(BIN)/kvsync demo $(DEMO_ARGS)

test: setup ## Unit, property and real-socket tests of every member
	$(BIN)/pytest -n $(PYTEST_WORKERS) --dist loadfile $(TEST_ARGS)

test-pure: setup ## The tests that touch the index, as on a machine without Rust
	PYTHONPATH=hack/no-native $(BIN)/pytest -n $(PYTEST_WORKERS) --dist loadfile indexer/tests cli/tests testkit/tests $(TEST_ARGS)

cover: setup ## The same tests with branch coverage
	$(BIN)/pytest -n $(PYTEST_WORKERS) --dist loadfile --cov --cov-report=term --cov-report=html:out/coverage $(TEST_ARGS)

lint: setup ## Ruff, formatting, spelling, declared dependencies, shell and YAML checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	for member in events mockpod indexer operator cli testkit; do (cd $$member && ../$(BIN)/deptry --no-ansi src); done
	$(BIN)/shellcheck $$(git ls-files '*.sh' .ci/run)
	$(BIN)/yamllint --strict $$(git ls-files '*.yaml' '*.yml' ':!charts/*/templates/*')

fmt: setup ## Format and fix what can be fixed
	$(BIN)/ruff check --fix . || true
	$(BIN)/ruff format .

typecheck: setup ## mypy, strict
	$(BIN)/mypy

imports: setup ## The layers, as import contracts
	$(BIN)/lint-imports

manifests: setup ## Generate the CRDs, the CRD chart and the reference from the models
	$(BIN)/python -m kvsync_operator.manifests

verify: setup ## Generated files are what their sources say
	$(BIN)/python -m kvsync_operator.manifests --check

native: setup ## Build the native index core (needs cargo), and check it with clippy and its own tests
	cd native && cargo clippy --all-targets -- -D warnings && cargo test --release

test-charts: ## Lint, unit tests and schema checks of the charts (helm and its helpers come as Go modules)
	hack/test-charts.sh

build-images: ## The three images, with docker
	hack/build-images.sh

cluster-up: ## A real cluster: KUBECONFIG if given, else kind; see hack/airgap for machines without a container registry
	hack/cluster-up.sh

cluster-down: ## Delete the cluster that cluster-up made
	hack/cluster-down.sh

chaos-mesh-up: ## Chaos Mesh on that cluster: the released chart, or built from Go modules where no image can be pulled
	hack/chaos-mesh-up.sh

chaos-mesh-down: ## Take Chaos Mesh off the cluster
	hack/chaos-mesh-down.sh

test-kv-sync-e2e: setup ## The end-to-end suite on the cluster (KVSYNC_SCALE=10, 50, 100 pods in LargeScale)
	test/e2e/run.sh $(TEST_ARGS)

test-kv-sync-benchmark: setup ## Benchmark figures, and jobs compared A B B A with BASE (a git revision)
	$(BIN)/python test/benchmark/bench_run.py $(if $(BASE),--base $(BASE)) $(BENCH_ARGS)

test-kv-sync-chaos: setup ## Break things and judge the rest: on a cluster if one is up, else locally (CHAOS_BACKEND=, FAULTS=)
	test/chaos/run.sh $(TEST_ARGS)

test-kv-sync-all: test test-kv-sync-e2e test-kv-sync-benchmark test-kv-sync-chaos ## Everything above

test-fidelity: setup ## The mock engine against vLLM's own engine core on fresh random schedules (downloads vLLM)
	$(BIN)/python test/fidelity/run.py $(FIDELITY_ARGS)

test-interop: setup ## vLLM's own publisher and subscriber classes, several versions, against ours (downloads vLLM)
	$(BIN)/python test/interop/run.py $(INTEROP_ARGS)

test-faults: setup ## 10,000 seeded fault schedules in virtual time, on both index cores
	$(BIN)/python -m kvsync_testkit.faults --core both --seeds 0-9999 $(FAULTS_ARGS)

lock: setup ## Compile the lock files again (LOCK_ARGS=--upgrade for newer versions)
	$(BIN)/python hack/lock.py $(UV) $(LOCK_ARGS)

clean: ## Remove what builds and runs leave behind (.venv stays)
	rm -rf out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis native/target
