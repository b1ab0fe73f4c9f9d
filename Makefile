# Needs: Python 3.11 or newer with its venv module, make, pip. `make` alone lists what there is.

PYTHON ?= python3
CONDA ?= conda
VENV ?= .venv
EXTRAS ?= examples
PYTEST_ARGS ?=
IMAGE ?= weft
ARGS ?=

bin := $(VENV)/bin
python := $(bin)/python
pip := $(python) -m pip --disable-pip-version-check install --constraint constraints.txt
torch := $(shell sed -n 's/^torch==//p' constraints.txt)
packages := pyproject.toml constraints.txt
benchmarks := dev,benchmarks
terminal := $(shell test -t 0 && echo --interactive --tty)

# PyTorch comes first and alone, so that no later step has a reason to look for another build of it.
define install_with
@echo "Installing PyTorch $(torch) and weft[$(1)] into $(VENV); the first time this downloads a good deal."
$(pip) "torch==$(torch)"
$(pip) --quiet --editable '.[$(1)]'
@$(python) -c 'import torch' || { echo "$(VENV) is damaged. Remove it (make clean-venv) and run make again."; exit 1; }
endef

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-cluster lint format docs bench install env env-dev lock docker-build docker-run clean clean-venv

help:  ## List these targets
	@echo "make demo trains two networks on real data; make test runs the tests. Both set up what they need in $(VENV)/."
	@echo
	@awk -F ':.*  ## ' '/^[a-z-]+:.*  ## / {printf "  %-14s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "Variables: PYTHON=$(PYTHON) VENV=$(VENV) EXTRAS=$(EXTRAS) CONDA=$(CONDA) IMAGE=$(IMAGE) PYTEST_ARGS=... ARGS=..."

# --- train, test, check ---------------------------------------------------------------------------------------------

demo: $(VENV)/.demo-stamp  ## Train on real data (breast cancer table, images of digits); prints scores and reports
	@$(python) examples/demo.py

test: $(VENV)/.dev-stamp  ## Run the tests but for the slow ones
	$(python) -m pytest -n 2 -m "not slow and not cluster" $(PYTEST_ARGS)

# pytest ends with 5 where no test carries the mark: nothing to run is no failure.
test-slow: $(VENV)/.dev-stamp  ## Run the long tests: kill and resume, parity, full trainings
	$(python) -m pytest -n 2 -m "slow and not cluster" --timeout 1200 $(PYTEST_ARGS) || [ $$? -eq 5 ]

test-cluster: $(VENV)/.dev-stamp  ## Run the tests that start clusters and database servers
	$(python) -m pytest -m cluster --timeout 1200 $(PYTEST_ARGS) || [ $$? -eq 5 ]

lint: $(VENV)/.dev-stamp  ## Check style (ruff), types (mypy --strict) and the direction of imports (import-linter)
	$(python) -m ruff check .
	$(python) -m ruff format --check .
	$(python) -m mypy --strict weft
	$(bin)/lint-imports

format: $(VENV)/.dev-stamp  ## Bring the code into the project's format and mend what ruff can mend safely
	$(python) -m ruff check --fix .
	$(python) -m ruff format .

docs: $(VENV)/.dev-stamp  ## Build the documentation into site/ (index.html opens it)
	$(python) -m mkdocs build --strict $(ARGS)

bench: $(VENV)/.bench-stamp  ## Compare the loop with a hand-written one, Lightning, Ignite and Accelerate (ARGS="...")
	OMP_NUM_THREADS=1 $(python) benchmarks/loop.py $(ARGS)

# --- set up ---------------------------------------------------------------------------------------------------------

install: $(VENV)/.venv-stamp  ## Install Weft into the environment with EXTRAS, e.g. EXTRAS=imaging,tune
	$(call install_with,$(EXTRAS))
	@echo "Ready: $(bin)/weft --help"

env:  ## Create or update the conda environment `weft` (environment.yml)
	$(call conda_environment,weft,environment.yml)

env-dev:  ## Create or update the conda environment `weft-dev` (dev.yml): with tests, lint and benchmarks
	$(call conda_environment,weft-dev,dev.yml)

lock:  ## Find the newest versions that work together and write constraints.txt
	PYTHON="$(PYTHON)" .ci/lock $(ARGS)

docker-build:  ## Build the container image (ARGS="--build-arg TORCH_INDEX=... --build-arg EXTRAS=...")
	docker build --tag $(IMAGE) $(ARGS) .

docker-run:  ## Run weft in the container on this folder, e.g. ARGS="train examples/digits.yaml"
	docker run --rm $(terminal) --user "$$(id -u):$$(id -g)" --volume "$(CURDIR):/work" $(IMAGE) $(ARGS)

clean:  ## Remove caches and build products; environment and runs stay
	rm -rf build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

clean-venv:  ## Remove the environment; the next target that needs it makes it again
	rm -rf $(VENV)

# --- how the environment comes about --------------------------------------------------------------------------------

define conda_environment
@command -v $(CONDA) >/dev/null || { echo "$(CONDA) was not found. Without conda use: make install"; exit 1; }
@if $(CONDA) env list | grep -q '^$(1) '; then \
	$(CONDA) env update --name $(1) --file $(2); else $(CONDA) env create --file $(2); fi
@echo "Ready: conda activate $(1)"
endef

$(VENV)/.venv-stamp:
	@command -v $(PYTHON) >/dev/null || { \
		echo "$(PYTHON) was not found. Install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$$($(PYTHON) --version) is too old: Weft needs Python 3.11 or newer. Name one: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) lacks its venv module. Install it (Debian, Ubuntu: python3-venv), then run make again."; exit 1; }
	@$(python) -m pip --version >/dev/null 2>&1 || { echo "Creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@$(python) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(VENV) holds a Python older than 3.11. Remove it (make clean-venv) and run make again."; exit 1; }
	@touch $@

# A stamp is written only when its installation went through: an interrupted one is done again, a finished one is not.
$(VENV)/.demo-stamp: $(VENV)/.venv-stamp $(packages)
	$(call install_with,examples)
	@touch $@

$(VENV)/.dev-stamp: $(VENV)/.venv-stamp $(packages)
	$(call install_with,dev)
	@touch $@

$(VENV)/.bench-stamp: $(VENV)/.venv-stamp $(packages)
	$(call install_with,$(benchmarks))
	@touch $@
