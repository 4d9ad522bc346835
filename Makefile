# make demo   environment, then the whole pipeline on the built-in toy set, then its results
# make env    the environment that running needs;  make dev  with tests, lint and types
# make test   all tests;  make test-fast  those of a few minutes;  make lint  style, types, workflow
# make lock   write constraints.txt and envs/ from this environment after requirements*.in have changed

PYTHON ?= python3
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true
# hundreds of short processes: without compiled files each begins a quarter of a second later
unexport PYTHONDONTWRITEBYTECODE
# GOMP_SPINCOUNT: a thread that waits leaves its core to the other tests; files in the order of tests/conftest.py
PYTEST := OMP_NUM_THREADS=1 GOMP_SPINCOUNT=0 pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo env dev test test-fast lint style types workflow lock

demo: env
	snakemake all
	@gss report toy

env: $(VENV)/.stamp

$(VENV)/.stamp: requirements.in constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "Python's venv module is missing; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --no-compile -e . -r requirements.in -c constraints.txt
	$(VENV)/bin/python -m compileall -qq -j 0 $(VENV)/lib || true # pip does it on one core; some files are templates
	@touch $@

dev: $(VENV)/.stamp-dev

$(VENV)/.stamp-dev: requirements-dev.in $(VENV)/.stamp
	$(VENV)/bin/pip install -r requirements-dev.in -c constraints.txt
	@touch $@

test: dev
	$(PYTEST) -m "not slow"
	$(PYTEST) -m slow

test-fast: dev
	$(PYTEST) -m "not slow"

lint: style types workflow

style: dev
	ruff check
	ruff format --check

types: dev
	mypy

workflow: env
	gss config-reference --check
	snakemake --lint

lock: dev
	$(VENV)/bin/python envs/lock.py
