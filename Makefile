# `make` alone lists the targets. Everything that a target needs is created on the way:
# git, make and python3-venv (Python 3.10 or newer) are enough.

PYTHON ?= python3
VENV ?= .venv
STAMP := $(VENV)/.installed
PY := $(VENV)/bin/python
VERSIONS := 3.10 3.11 3.12 3.13 3.14
SOAK_REPORT := .pytest_cache/soak.xml
PYTEST := $(PY) -m pytest -m "not soak"
BESIDE := .pytest_cache/beside

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-first test-beside check format soak bench bench-slurm bench-workflows bench-faults test-all clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

venv: $(STAMP) ## create the environment in .venv (PYTHON=python3.12 chooses another Python)

# `pip install` runs again when the dependencies may have changed.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "pilotflow needs Python 3.10 or newer; $(PYTHON) is older or missing. Say: make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) \
		|| { echo "No virtual environment: install the package python3-venv." >&2; rm -rf $(VENV); exit 1; }
	$(PY) -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(STAMP) ## run a short, real workload with a progress bar
	$(VENV)/bin/pilotflow demo

# Two programs at once: hosts of a Slurm cluster have processes, network and mounts of their own, and the core has none,
# so that neither meets the runs of the others. What is said of the first comes after the second.
test: $(STAMP) ## run the tests, with a seeded sample of the long proofs
	@$(PY) -m tests.slurm.harness install
	@mkdir -p $(BESIDE); status=0; \
	$(MAKE) --no-print-directory --jobs=2 --keep-going test-beside test-first || status=$$?; \
	cat $(BESIDE)/said; exit $$status

test-first: $(STAMP)
	$(PYTEST) tests/contract tests/integration

test-beside: $(STAMP)
	@$(PYTEST) -o cache_dir=$(BESIDE) tests/core tests/slurm >$(BESIDE)/said 2>&1

check: $(STAMP) ## ruff, mypy strict, import layers and public names
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy
	$(PY) -m pytest -q tests/core/test_layers.py tests/core/test_public_names.py

format: $(STAMP) ## let ruff format and fix what it can
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

# The page is written whether or not all proofs hold: it says which did not.
soak: $(STAMP) ## run the proofs with their full counts, write docs/proofs.md
	@rm -f $(SOAK_REPORT)
	@status=0; $(PY) -m pytest -m soak --timeout=7200 --junitxml=$(SOAK_REPORT) || status=$$?; \
		$(PY) tests/write_proofs.py $(SOAK_REPORT) docs/proofs.md && exit $$status

bench: $(STAMP) ## compare with Parsl and the standard library, write docs/benchmarks.md
	$(PY) benchmarks/bench.py $(BENCH_ARGS)

# Needs root, and the packages that `make test` names when it has to pass over the tests on Slurm.
bench-slurm: $(STAMP) ## measure on a real Slurm cluster of 16 nodes, write its section of docs/benchmarks.md
	$(PY) benchmarks/slurm.py $(BENCH_ARGS)

# Tests of faults wait 10 times a stated limit, so that a slow machine passes; here the limits hold.
bench-workflows: $(STAMP) ## measure workflows of commands on this machine, write their section of docs/benchmarks.md
	$(PY) benchmarks/workflows.py $(BENCH_ARGS)

bench-faults: $(STAMP) ## faults with their stated time limits, real times printed
	$(PY) benchmarks/faults.py $(BENCH_ARGS)

test-all: ## run the tests with every Python from 3.10 to 3.14 found here
	@ran=""; failed=""; missing=""; \
	for version in $(VERSIONS); do \
		python=""; \
		for candidate in $$(command -v python$$version) $$HOME/.pyenv/versions/$$version.*/bin/python$$version; do \
			if "$$candidate" -c 'import venv, ensurepip' 2>/dev/null; then python=$$candidate; break; fi; \
		done; \
		if [ -z "$$python" ]; then missing="$$missing $$version"; continue; fi; \
		echo "== Python $$version: $$python"; ran="$$ran $$version"; \
		$(MAKE) --no-print-directory test VENV=.venv-$$version PYTHON="$$python" || failed="$$failed $$version"; \
	done; \
	echo "ran:$${ran:- none}; not found:$${missing:- none}; failed:$${failed:- none}"; \
	[ -n "$$ran" ] && [ -z "$$failed" ]

clean: ## remove environments, caches and build output (run directories stay)
	rm -rf .venv .venv-3.* .bench .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
	find $(wildcard pilotflow tests benchmarks examples) -name __pycache__ -type d -prune -exec rm -rf {} +
