# Two commands do everything: `make demo` and `make test`. Both set the environment up first, once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
OUT ?= demo
JOBS ?= 2

.PHONY: help setup demo test test-slow check bench docs audit clean

help:  ## This list.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): requirements.txt pyproject.toml packages/core/pyproject.toml packages/imaging/pyproject.toml apps/t1/pyproject.toml apps/latents/pyproject.toml apps/medical/pyproject.toml apps/decode/pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $(STAMP)

setup: $(STAMP)  ## Make .venv and install everything into it (once).

demo: $(STAMP)  ## Draw four synthetic heads from the shipped weights into ./demo and show them.
	$(BIN)/radiata-t1 demo --out $(OUT) --overwrite

test: $(STAMP)  ## Every test that is not slow.
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder -m "not slow"

test-slow: $(STAMP)  ## The slow ones.
	$(BIN)/python -m pytest -q -m slow

check: $(STAMP)  ## Format, lint, layers and types.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

bench: $(STAMP)  ## Speed and quality, as ratios side by side in one run.
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

docs: $(STAMP)  ## The site of the pages and the reference, in build/site; opens from a disk.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-docs.txt
	$(BIN)/python docs/site/build.py

audit: $(STAMP)  ## Licences of everything that is installed; fails on one that is not allowed.
	$(BIN)/python docs/scripts/licences.py

clean:  ## Remove the environment, caches and the demo's folder.
	rm -rf $(VENV) $(OUT) build/site build/site-source .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
	find packages apps tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
