# `make` on a machine with Python 3.11 or newer, make and pip: the targets build their own virtual environment.

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?= -n auto --dist worksteal
BENCH_ARGS ?=
SEED ?= 1
COUNT ?= 100000
SOURCES ?= 1000
CROWDS ?= 10000
ATTACKS ?= 1000

BIN := $(VENV)/bin
# A stamp is newer than pyproject.toml when the environment holds what pyproject.toml asks for.
CREATED := $(VENV)/.stamp-created
INSTALLED := $(VENV)/.stamp-installed
DEVELOP := $(VENV)/.stamp-develop
LOGS := blackboxml_logs

.DEFAULT_GOAL := help
.PHONY: help demo test check rules bench build clean torture-mutants torture-kills torture-calls torture-power torture-sources torture-concurrency torture-hosts torture-hostile torture-fuzz

help: ## Show the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | sort | expand -t 10

demo: $(INSTALLED) ## Train a small classifier, then plot, validate and analyse what it recorded
	$(BIN)/python examples/digits.py
	@set -e; run=$$(ls -td $(LOGS)/digits_[0-9]* | head -n 1); set -x; \
	$(BIN)/blackbox plot "$$run" train/loss eval/accuracy; \
	$(BIN)/blackbox validate "$$run"; \
	$(BIN)/python examples/analyse.py "$$run"

test: check ## Run the checks, the tests and the examples in docstrings
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(DEVELOP) ## Lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

rules: $(DEVELOP) ## Tell whether the catalogue of rules is what spec/ says
	$(BIN)/python spec/rules.py

torture-mutants: $(DEVELOP) ## Damage runs at random and bit by bit, and see what is noticed (SEED=1 COUNT=100000)
	$(BIN)/python -m tests.torture.mutants --seed $(SEED) --count $(COUNT)
	$(BIN)/python -m tests.torture.mutants --bits sealed

torture-kills: $(DEVELOP) ## Kill processes at random instants of all they do (SEED=1 COUNT=100000)
	$(BIN)/python -m tests.torture.kills --seed $(SEED) --count $(COUNT)

torture-calls: $(DEVELOP) ## Let each system call of all they do fail, once and for ever
	$(BIN)/python -m tests.torture.calls

torture-power: $(DEVELOP) ## Cut the power between any two writes to a disk; needs root, FUSE and mkfs (SEED=1 COUNT=10000)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check mfusepy
	$(BIN)/python -m tests.torture.power --system ext4 --seed $(SEED) --count $(COUNT)
	$(BIN)/python -m tests.torture.power --system xfs --seed $(SEED) --count $(COUNT)

torture-sources: $(DEVELOP) ## Spoil sources of every format, and convert them beside a good one (SEED=1 SOURCES=1000)
	$(BIN)/python -m tests.torture.imports --seed $(SEED) --count $(SOURCES)

torture-concurrency: $(DEVELOP) ## Let threads and processes at one run at once (SEED=1 CROWDS=10000)
	$(BIN)/python -m tests.torture.concurrency --seed $(SEED) --count $(CROWDS)

torture-hosts: $(DEVELOP) ## Write one run from several machines that see each other late; needs FUSE (SEED=1 SOURCES=1000)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check mfusepy
	$(BIN)/python -m tests.torture.hosts --seed $(SEED) --count $(SOURCES)

torture-hostile: $(DEVELOP) ## Lay attacks before all that reads runs and sources (SEED=1 ATTACKS=1000)
	$(BIN)/python -m tests.torture.hostile --seed $(SEED) --count $(ATTACKS)

torture-fuzz: $(DEVELOP) ## Let atheris look for paths through the parsers (SEED=1 COUNT=100000 for each)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check atheris
	@set -e; for target in line manifest config journal npy event pickle csv sqlite table dataset; do \
	$(BIN)/python -m tests.torture.fuzz --target $$target --seed $(SEED) --count $(COUNT); done

bench: $(DEVELOP) ## Measure against the bars and write benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

build: $(DEVELOP) ## Build the source distribution and the wheel into dist/
	$(BIN)/python -m build

clean: ## Remove what these targets made; recorded runs stay
	@if [ -e "$(CREATED)" ]; then rm -rf "$(VENV)"; fi
	rm -rf build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(CREATED):
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv "$(VENV)"
	@touch "$@"

$(INSTALLED): pyproject.toml | $(CREATED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo]'
	@touch "$@"

$(DEVELOP): pyproject.toml | $(CREATED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch "$@"
