# kvsync: every task a developer, a user or CI runs. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test cover lint fmt typecheck imports manifests verify lock native bench clean

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
	$(BIN)/pytest -n $(PYTEST_WORKERS) $(TEST_ARGS)

cover: setup ## The same tests with branch coverage
	$(BIN)/pytest -n $(PYTEST_WORKERS) --cov --cov-report=term --cov-report=html:out/coverage $(TEST_ARGS)

lint: setup ## Ruff, formatting, spelling, shell and YAML checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/shellcheck $$(git ls-files '*.sh' .ci/run)
	$(BIN)/yamllint --strict $$(git ls-files '*.yaml' '*.yml' ':!charts/*/templates/*')

fmt: setup ## Format and fix what can be fixed
	$(BIN)/ruff check --fix . || true
	$(BIN)/ruff format .

typecheck: setup ## mypy, strict
	$(BIN)/mypy

imports: setup ## The layers, as import contracts
	$(BIN)/lint-imports

lock: setup ## Compile the lock files again (LOCK_ARGS=--upgrade for newer versions)
	$(BIN)/python hack/lock.py $(UV) $(LOCK_ARGS)

clean: ## Remove what builds and runs leave behind (.venv stays)
	rm -rf out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis native/target
