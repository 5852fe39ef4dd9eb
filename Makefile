# kvsync: every task a developer, a user or CI runs. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-random test-pure cover lint dialect fmt typecheck imports manifests docs links verify \
	lock native clean test-charts build-images cluster-up cluster-down chaos-mesh-up chaos-mesh-down \
	test-kv-sync-e2e test-kv-sync-benchmark test-kv-sync-chaos test-kv-sync-all test-fidelity test-interop test-faults test-kit-wheels

BIN := .venv/bin
UV = $(shell command -v uv || echo .tools/bin/uv)
PYTEST_WORKERS ?= auto

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  %-24s %s\n", $$1, $$2}'

setup: ## Create .venv with every member and tool (quick when nothing changed)
	@hack/setup.sh

demo: setup ## Run mock engines, an index and a router on a real trace, audit the index, and write a report
	$(BIN)/kvsync demo $(DEMO_ARGS)

test: setup ## Run the unit, property and real-socket tests; every run plays the same examples
	$(BIN)/pytest -n $(PYTEST_WORKERS) --dist loadfile $(TEST_ARGS)

test-random: setup ## Run the tests of `make test` with fresh seeds; a failure prints how to replay it
	KVSYNC_HYPOTHESIS_PROFILE=nightly $(BIN)/pytest -n $(PYTEST_WORKERS) --dist loadfile $(TEST_ARGS)

test-pure: setup ## Run the tests that use the index as on a machine without Rust
	PYTHONPATH=hack/no-native $(BIN)/pytest -n $(PYTEST_WORKERS) --dist loadfile indexer/tests router/tests cli/tests testkit/tests $(TEST_ARGS)

cover: setup ## Run the tests of `make test` with branch coverage
	$(BIN)/pytest -n $(PYTEST_WORKERS) --dist loadfile --cov --cov-report=term --cov-report=html:out/coverage $(TEST_ARGS)

lint: dialect ## Run ruff, the formatter, codespell, deptry, shellcheck, yamllint and the house rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	for member in events workload mockpod indexer router operator cli testkit; do (cd $$member && ../$(BIN)/deptry --no-ansi src); done
	$(BIN)/shellcheck $$(git ls-files '*.sh' .ci/run)
	$(BIN)/yamllint --strict $$(git ls-files '*.yaml' '*.yml' ':!charts/*/templates/*')

dialect: setup ## Check the house rules that no linter has: __all__, log event names, raising
	$(BIN)/python hack/check_dialect.py

fmt: setup ## Format the code and apply ruff's fixes
	$(BIN)/ruff check --fix . || true
	$(BIN)/ruff format .

typecheck: setup ## Run mypy in strict mode
	$(BIN)/mypy

imports: setup ## Check the layers, written as import contracts
	$(BIN)/lint-imports

manifests: setup ## Generate the CRDs, the CRD chart and the reference pages from the models
	$(BIN)/python -m kvsync_operator.manifests
	$(BIN)/python -m kvsync_indexer.sync.diagram docs/design/sync-protocol.md

docs: manifests links ## Generate the generated pages and check the links of every page

links: setup ## Check the links and anchors of every Markdown page, without a network
	$(BIN)/python hack/check_links.py

verify: links ## Check that generated files match their sources and that every link leads somewhere
	$(BIN)/python -m kvsync_operator.manifests --check
	$(BIN)/python -m kvsync_indexer.sync.diagram --check docs/design/sync-protocol.md

native: setup ## Check the native index core with rustfmt and clippy and run its tests (needs cargo)
	cd native && cargo fmt --check && cargo clippy --all-targets -- -D warnings && cargo test --release

test-charts: ## Run the lint, unit tests and schema checks of the charts (installs helm as a Go module)
	hack/test-charts.sh

build-images: ## Build the three images with docker
	hack/build-images.sh

cluster-up: ## Use the cluster of KUBECONFIG, or create a kind cluster (hack/airgap: without a container registry)
	hack/cluster-up.sh

cluster-down: ## Delete the cluster that cluster-up created
	hack/cluster-down.sh

test-kv-sync-e2e: setup ## Run the end-to-end suite on the cluster (KVSYNC_SCALE=10, 50 or 100 pods in LargeScale)
	test/e2e/run.sh $(TEST_ARGS)

test-kv-sync-benchmark: setup ## Measure this checkout and compare it with BASE (a git revision)
	$(BIN)/python test/benchmark/bench_run.py $(if $(BASE),--base $(BASE)) $(BENCH_ARGS)

test-kv-sync-all: test test-kv-sync-e2e test-kv-sync-benchmark ## Run the tests, the end-to-end suite and the benchmarks

test-fidelity: setup ## Compare the mock engine with vLLM's engine core on fresh random schedules (downloads vLLM)
	$(BIN)/python test/fidelity/run.py $(FIDELITY_ARGS)

test-interop: setup ## Run vLLM's own publisher and subscriber against kvsync's (downloads several versions)
	$(BIN)/python test/interop/run.py $(INTEROP_ARGS)

test-faults: setup ## Play 10,000 seeded fault schedules in virtual time on both index cores
	$(BIN)/python -m kvsync_testkit.faults --core both --seeds 0-9999 $(FAULTS_ARGS)

test-kit-wheels: setup ## Build the test kit's wheels, install them into an empty environment, and run the examples of docs/testing
	hack/test-kit-wheels.sh

lock: setup ## Compile the lock files (LOCK_ARGS=--upgrade for newer versions)
	$(BIN)/python hack/lock.py $(UV) $(LOCK_ARGS)

clean: ## Remove build results, reports and caches (.venv stays)
	rm -rf out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis native/target
