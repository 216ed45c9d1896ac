# Every target sets itself up in a venv of this checkout. On a machine with GPUs, set TORCH to the
# build for them, e.g. make sweep TORCH='torch==2.13.0 --index-url ...'.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH ?= torch==2.13.0
CONFIG ?= quickstart
ARGS ?=

.PHONY: sweep test check format lint types imports bench faults wheel-test cluster-test compose-test clean

sweep: $(VENV)/.installed
	$(BIN)/orchestrator sweep $(CONFIG) $(ARGS)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q -m "not bench and not faults and not cluster" $(ARGS)

check: lint types imports test

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

imports: $(VENV)/.installed-dev
	$(BIN)/lint-imports

bench: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q -s -m bench --timeout 3600 tests/benchmarks $(ARGS)

faults: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q -s -m faults --timeout 900 tests/faults $(ARGS)

# torch first and by itself: left to the resolver, another build of several gigabytes comes in.
$(VENV)/.torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt $(TORCH)
	touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache

cluster-test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q -s -m cluster --timeout 1200 tests/cluster $(ARGS)

compose-test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q -s -m cluster --timeout 1800 tests/compose $(ARGS)
