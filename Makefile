# Tasks for users and maintainers; `make` alone lists them.
#
#   PYTHON   the interpreter the virtual environment is made with, 3.11 or newer:  make demo PYTHON=python3.12
#   TORCH    what pip is asked for as torch; any pip arguments may follow.  On Linux plain torch brings about
#            3 GB of CUDA: to take the CPU build, name the package index that serves it:
#            make demo TORCH="torch==2.13.0 --index-url ADDRESS"
#   WORKERS  processes that run the tests, by default one per core

PYTHON  ?= python3
TORCH   ?= torch==2.13.0
WORKERS ?= auto
SECONDS ?= 60
SEED    ?=
SUITE   ?= acasxu
TIMEOUT ?= 60
FILTER  ?=
JOBS    ?= 1

VENV := .venv
RUN  := $(VENV)/bin/python
PIP  := $(RUN) -m pip install -qq --disable-pip-version-check
DEMO := benchmarks/digits
DATA := ../shared/benchmarks/vnncomp2021

# The tests run side by side: one thread each, or torch's threads would fight over the cores.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 NUMBA_NUM_THREADS=1

SOURCES := verifier bounds vnnlib encodings benchmarks tests tools

.DEFAULT_GOAL := help
.PHONY: help install demo test types lint format unit fuzz bench clean distclean
.DELETE_ON_ERROR:

help: ## list the tasks
	@sed -n 's/^\([a-z][a-z-]*\):.*## /\1|/p' $(firstword $(MAKEFILE_LIST)) | \
	    awk -F'|' '{ printf "  make %-14s %s\n", $$1, $$2 }'

# --- set-up: a stamp per step, so that a second run has nothing to do ----------------------------------------

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "$(PYTHON) is missing or older than 3.11; name a newer one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.torch: $(VENV)/.created
	@echo "Installing $(firstword $(TORCH)); this takes a while"
	@$(PIP) $(TORCH)
	@touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml
	@echo "Installing the package and what it needs"
	@$(PIP) -e .
	@touch $@

# Holds all that .installed does, so `make demo` has nothing left to do after `make test`.
$(VENV)/.installed-dev: $(VENV)/.torch pyproject.toml
	@echo "Installing the package, what it needs and what the tests need"
	@$(PIP) -e ".[dev]"
	@touch $@ $(VENV)/.installed

install: $(VENV)/.installed ## create .venv and install the package; then: .venv/bin/verify MODEL SPEC

# --- use -------------------------------------------------------------------------------------------------------

demo: $(VENV)/.installed ## install, prove a property of a small network, find a counterexample to another
	@mkdir -p out
	@echo; echo "Can this digit be misread when every pixel may change a little?"
	$(VENV)/bin/verify $(DEMO)/onnx/mlp.onnx $(DEMO)/demo_unsat.vnnlib --timeout 60
	@echo; echo "And this one, when the pixels may change more?"
	$(VENV)/bin/verify $(DEMO)/onnx/mlp.onnx $(DEMO)/demo_sat.vnnlib --timeout 60 --image out/counterexample.png

# --- checks ----------------------------------------------------------------------------------------------------

test: $(VENV)/.installed-dev ## everything that must pass: lint, types, all tests, wheel, a short fuzz run
	@$(MAKE) --no-print-directory lint types
	@$(MAKE) --no-print-directory unit

lint: $(VENV)/.installed-dev ## ruff: rules and format
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check --quiet . || { echo "not formatted as above; run: make format" >&2; exit 1; }

format: $(VENV)/.installed-dev ## let ruff format and mend what it can
	@$(RUN) -m ruff check --fix .
	@$(RUN) -m ruff format .

types: $(VENV)/.installed-dev ## mypy on the packages as they are imported
	@$(RUN) tools/type_tree.py

unit: $(VENV)/.installed-dev ## the tests alone; ARGS="-k name" goes to pytest
	@$(ONE_THREAD) $(RUN) -m pytest -q -n $(WORKERS) --maxprocesses=8 --dist=loadgroup $(ARGS)

fuzz: $(VENV)/.installed-dev ## compare the engines with enumeration and a MILP: SECONDS=60 [SEED=1]
	@PYTHONPATH=tests $(ONE_THREAD) $(RUN) -m fuzz --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

# --- benchmarks ------------------------------------------------------------------------------------------------

# One job keeps to the first core, so that its timings mean the same from run to run.
PIN = $(if $(filter 1,$(JOBS)),$(if $(shell command -v taskset),taskset -c 0))

bench: $(VENV)/.installed ## run a suite and compare: SUITE=acasxu [TIMEOUT=60] [FILTER=regex] [JOBS=1]
	@mkdir -p out
	@$(PIN) $(VENV)/bin/verify bench "$(DATA)/$(SUITE)/instances.csv" --results "out/$(SUITE).jsonl" \
	    --timeout $(TIMEOUT) --jobs $(JOBS) --filter "$(FILTER)"
	@$(VENV)/bin/verify report "out/$(SUITE).jsonl" --reference "$(DATA)/$(SUITE)/reference.csv" -o "out/$(SUITE).html"
	@$(VENV)/bin/verify compare "out/$(SUITE).jsonl" "$(DATA)/$(SUITE)/reference.csv" --by network

# --- tidying up ------------------------------------------------------------------------------------------------

clean: ## remove what was built and every cache; results in out/ stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## clean, and remove the virtual environment
	rm -rf $(VENV)
