# Each target makes what it needs: the virtual environment first.
.DEFAULT_GOAL := help
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
VENV14 := .venv-hydra14
HYDRA_TESTS := $(wildcard tests/test_compose.py tests/test_sweep.py tests/test_train.py tests/test_api.py tests/config \
	tests/test_outside.py tests/test_old_folders.py tests/sweep)
ARGS ?=

.PHONY: browser docs release-check campaign sweep-kills fuzz soak cuda scale help train test test-hydra14 extras smoke studies lint slow bench bench-peers results learning scaling clean

help: ## Show this help.
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

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

ROOT_DO := $(if $(filter 0,$(shell id -u)),,sudo)

browser: ## Install Debian's Chromium, in which the report's page is tested.
	{ command -v chromium && command -v chromedriver; } >/dev/null || { \
		$(ROOT_DO) apt-get update -qq && \
		$(ROOT_DO) apt-get install -y -qq --no-install-recommends chromium chromium-driver fonts-dejavu-core; }

smoke: $(VENV)/.dev ## Every agent once, as a study of minutes.
	$(BIN)/python -m hsw.train experiments=all_agents budget=smoke $(ARGS)

STUDIES := daac_vs_ppo value_freq her_strategies impala_scaling all_agents exploration memory rainbow_parts
SMOKE = $(if $(findstring budget=smoke,$(ARGS)),_smoke)
REPORT_daac_vs_ppo := --threshold 475
REPORT_value_freq := --threshold 475
REPORT_her_strategies := --metric success --threshold 0.9
REPORT_impala_scaling := --threshold 0.9
REPORT_exploration := --threshold 0.9
REPORT_rainbow_parts := --threshold 5

studies: $(addprefix study-,$(STUDIES)) ## Run every study, and write its report into experiments/.

study-%: $(VENV)/.dev
	$(BIN)/python -m hsw.train experiments=$* $(ARGS)
	$(BIN)/python -m hsw.report multirun/$*$(SMOKE) --out experiments/$*$(SMOKE) $(REPORT_$*)

$(VENV14)/.core: pyproject.toml constraints.txt constraints-hydra14.txt
	test -x $(VENV14)/bin/python || $(PYTHON) -m venv $(VENV14)
	grep -vE '^(hydra-core|omegaconf)==' constraints.txt | cat - constraints-hydra14.txt > $(VENV14)/constraints.txt
	$(VENV14)/bin/pip install --quiet --disable-pip-version-check -c $(VENV14)/constraints.txt torch
	$(VENV14)/bin/pip install --quiet --disable-pip-version-check -c $(VENV14)/constraints.txt -e '.[ray,report,sweep]' \
		pytest pytest-timeout
	touch $@

test-hydra14: $(VENV14)/.core ## The tests that concern Hydra, with Hydra 1.4 in an environment of its own.
	$(VENV14)/bin/python -m pytest $(HYDRA_TESTS) $(ARGS)

EXTRAS = $(shell $(PYTHON) -c "import tomllib; \
	print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies'])")

extras: ## Resolve every extra as in a fresh environment with constraints.txt, installing nothing.
	test -x .venv-extras/bin/python || $(PYTHON) -m venv .venv-extras
	for extra in $(EXTRAS); do \
		.venv-extras/bin/pip install --quiet --disable-pip-version-check --dry-run -c constraints.txt ".[$$extra]" \
			&& echo "$$extra resolves" || exit 1; \
	done

lint: $(VENV)/.dev ## ruff and mypy.
	$(BIN)/ruff check hsw hydra_plugins tests benchmarks docs
	$(BIN)/ruff format --check hsw hydra_plugins tests benchmarks docs
	$(BIN)/mypy

$(VENV)/.docs: $(VENV)/.core
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

docs: $(VENV)/.docs ## Build the documentation from scratch into build/docs; a warning, as of a link that leads nowhere, is an error.
	rm -rf build/docs docs/reference
	$(BIN)/python -m sphinx --fail-on-warning --fresh-env --quiet -d build/doctrees docs build/docs
	@echo "build/docs/index.html: $$(find build/docs -name '*.html' | wc -l) pages"

release-check: $(VENV)/.dev ## Build sdist and wheel, install the wheel elsewhere, and run the tour there.
	$(BIN)/python -m tests.release_check

slow: $(VENV)/.dev ## Tests that train to a score; their last results stand in docs/results.md.
	$(BIN)/pytest -m slow --timeout 3600 -s $(ARGS)

campaign: $(VENV)/.dev ## A campaign of faults: make campaign SECONDS=600 SEED=1, ARGS='--case kills:123' one again.
	$(BIN)/python -m tests.faults.campaign --seconds $(or $(SECONDS),60) --seed $(or $(SEED),0) $(ARGS)

fuzz: ## The campaign's changes of a state that is signed again: make fuzz SECONDS=600 SEED=1.
	$(MAKE) campaign SECONDS=$(or $(SECONDS),600) ARGS="--only mutations $(ARGS)"

soak: $(VENV)/.dev ## Long runs whose memory stays flat, into experiments/soak: make soak ARGS="--steps 1e5".
	$(BIN)/python -m tests.faults.soak $(ARGS)

sweep-kills: $(VENV)/.dev ## Kill sweeps and start them again: make sweep-kills KILLS=20 SEED=0 ARGS='--launchers joblib'.
	$(BIN)/python -m tests.faults.campaign.sweep_kills --kills $(or $(KILLS),20) --seed $(or $(SEED),0) $(ARGS)

bench-peers: ## Install each peer into a virtual environment of its own, under .peers/.
	$(PYTHON) benchmarks/install_peers.py

bench: $(VENV)/.dev bench-peers ## Measure hsw and its peers side by side.
	$(BIN)/python -m benchmarks.run $(ARGS)

# Where there is no network, CUDA_PYTHON=python3 takes an interpreter that has what pyproject.toml asks for, and pytest.
CUDA_PYTHON ?= $(BIN)/python

cuda: $(if $(filter $(BIN)/python,$(CUDA_PYTHON)),$(VENV)/.dev) ## On a machine with a GPU: its tests, then its figures, in benchmarks/cuda.md.
	$(CUDA_PYTHON) -m pytest -m cuda -rs tests/test_cuda.py
	$(CUDA_PYTHON) -m benchmarks.cuda $(ARGS)

scale: $(VENV)/.dev ## Measure this machine for the model of throughput, check it against runs, and write docs/scale.md's tables.
	$(BIN)/python -m benchmarks.scale --measure --validate --simulate --write $(ARGS)

results: $(VENV)/.dev ## Train presets on held-out seeds, the shortest first, and fail where one learns less than in the last release: HOURS=6.
	$(BIN)/python -m benchmarks.presets --hours $(or $(HOURS),6) $(ARGS)

learning: $(VENV)/.dev ## Train the table of results in docs/results.md again.
	$(BIN)/python -m benchmarks.results $(ARGS)

scaling: $(VENV)/.dev ## Speed and memory against environments, actors and what is stored, into benchmarks/scaling.md.
	$(BIN)/python -m benchmarks.scaling $(ARGS)

clean: ## Delete the virtual environments.
	rm -rf $(VENV) $(VENV14) .venv-extras .peers
