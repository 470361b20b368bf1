# make run    set everything up and run the main job: two barriers of one catalysed reaction
# make test   set everything up and run every check and test
# Nothing but git, make and Python >= 3.11 is needed; PYTHON=... names another interpreter.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
REQUIREMENTS := pyproject.toml constraints.txt .ci/create-venv .ci/apt-install
REFERENCE := $(VENV)/reference-tace
TORCH := $(shell sed -n '/^torch==/p' constraints.txt)

# One thread per process: committees and workers fill the cores themselves.
export OMP_NUM_THREADS := 1
export OMP_WAIT_POLICY := passive
export PYTHON

# As many processes as there are cores, four at most, each of which takes whole files.
PROCESSES := --numprocesses=logical --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

# Check the shapes that signatures declare, Float[Tensor, "atoms 3"], at every call of the tests.
SHAPES := --jaxtyping-packages=tace_al.model,tace_al.data,shape_check.checked

WORKFLOW := workflows/catalysis.py
ARGS :=

.PHONY: help run test lint check install install-test gpaw clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/.installed  ## set up and run the main job (WORKFLOW=..., ARGS="--set key=value")
	$(VENV)/bin/tace-al run $(WORKFLOW) $(ARGS)

test: lint check  ## set up, then style, types, layers and tests

lint: $(VENV)/.installed-test
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports --no-logo

check: $(VENV)/.installed-test $(VENV)/.installed-services $(REFERENCE)/.installed lint
	$(PY) -m pytest $(SHAPES) $(PROCESSES) $(ARGS)

install: $(VENV)/.installed  ## set up what running needs
install-test: $(VENV)/.installed-test $(VENV)/.installed-services $(REFERENCE)/.installed  ## set up what testing and developing need
gpaw: $(VENV)/.installed  ## set up GPAW as a labeller, the libraries it is built against included
	.ci/install-system-packages gpaw
	$(PIP) install -c constraints.txt -e ".[gpaw]"

# torch first and pinned: left to the resolver it may choose a build of several gigabytes.
$(VENV)/.installed: $(REQUIREMENTS)
	.ci/create-venv $(VENV)
	$(PIP) install "$(TORCH)"
	$(PIP) install -c constraints.txt -e .
	touch $@

$(VENV)/.installed-test: $(REQUIREMENTS)
	.ci/create-venv $(VENV)
	$(PIP) install "$(TORCH)"
	$(PIP) install -c constraints.txt -e ".[test,dev]"
	touch $(VENV)/.installed $@

# Programs that tests start for real. Where they cannot be installed their tests are skipped by name.
$(VENV)/.installed-services: .ci/install-system-packages $(VENV)/.installed-test
	.ci/install-system-packages gpaw && $(PIP) install -c constraints.txt -e ".[gpaw]" || \
		echo "warning: GPAW is not there; its tests are skipped" >&2
	.ci/install-system-packages slurm || true
	touch $@

# The published TACE that imported models are compared with: a folder of its own, for one process of
# the tests. Its metadata asks for an older torch than it needs, hence --no-deps.
$(REFERENCE)/.installed: tests/model/reference/requirements.txt | $(VENV)/.installed-test
	$(PIP) install --no-deps --upgrade --target $(REFERENCE) -r $<
	touch $@

clean:  ## remove the environment and every cache (runs/ stays)
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
