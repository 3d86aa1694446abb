# Each target makes what it needs: the virtual environment first.
.DEFAULT_GOAL := help
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: help train test smoke lint slow bench bench-peers results clean

help: ## Show this help.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(VENV)/.core: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.dev: $(VENV)/.core
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

train: $(VENV)/.core ## Train: make train ARGS="storage=decoupled agent=daac".
	$(BIN)/python -m hsw.train $(or $(ARGS),storage=decoupled agent=daac)

test: $(VENV)/.dev lint ## Lint, check types and run the fast tests.
	$(BIN)/pytest -n auto $(ARGS)

smoke: $(VENV)/.dev ## Every agent once, as a study of minutes.
	$(BIN)/python -m hsw.train experiments=all_agents budget=smoke $(ARGS)

lint: $(VENV)/.dev ## ruff and mypy.
	$(BIN)/ruff check hsw tests benchmarks
	$(BIN)/ruff format --check hsw tests benchmarks
	$(BIN)/mypy

slow: $(VENV)/.dev ## Tests that train to a score; their last results stand in the README.
	$(BIN)/pytest -m slow --timeout 3600 -s $(ARGS)

bench-peers: ## Install each peer into a virtual environment of its own, under .peers/.
	$(PYTHON) benchmarks/install_peers.py

bench: $(VENV)/.dev bench-peers ## Measure hsw and its peers side by side.
	$(BIN)/python -m benchmarks.run $(ARGS)

results: $(VENV)/.dev ## Train the README's table of results again.
	$(BIN)/python -m benchmarks.results $(ARGS)

clean: ## Delete the virtual environments.
	rm -rf $(VENV) .peers
