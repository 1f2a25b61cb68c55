# make demo | test | check | pretrained | clean. Everything runs in .venv, which each target creates where it is missing.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST_ARGS ?= -n auto --dist loadfile
PROMPT ?= go to the green zone, then the red one, and keep well clear of the hazards
# One thread per process: the work is many small operations, and parallel processes would fight over the cores.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: help demo test check format pretrained osrl clean
help:
	@echo "make demo        install, then turn one sentence into a rollout in out/demo/"
	@echo "make test        install, then run all tests"
	@echo "make check       ruff, mypy, import-linter"
	@echo "make pretrained  train all embedded models again, from nothing"
	@echo "make osrl        install the peers of the safe-RL benchmark, and Stable-Baselines3 for its data"
	@echo "make clean       remove .venv, build output and caches"

# PYTHON may name the interpreter. Version managers leave names on the PATH that do not run, so each one is tried.
$(STAMP): pyproject.toml constraints.txt requirements-sim.txt
	@set -e; python=""; \
	for candidate in $(PYTHON) python3.11 python3.12 python3.13 python3 python; do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then python="$$candidate"; break; fi; \
	done; \
	if [ -z "$$python" ]; then echo "error: Python 3.11 or newer was not found (PYTHON=/path/to/python3 make ... names one)" >&2; exit 2; fi; \
	if [ ! -x $(BIN)/python ]; then \
	  "$$python" -m venv $(VENV) || { rm -rf $(VENV); echo "error: $$python cannot create a virtual environment (on Debian: apt install python3-venv)" >&2; exit 2; }; \
	fi
	@# torch first and by its own version: so an index that offers a CPU build can serve it.
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps -r requirements-sim.txt
	@touch $@

demo: $(STAMP)
	$(BIN)/diffdecide run "$(PROMPT)" --out out/demo

test: $(STAMP)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

pretrained: $(STAMP)
	$(BIN)/diffdecide pretrained

osrl: $(STAMP)
	$(BIN)/python -m pip install --no-deps -r requirements-osrl.txt 'stable-baselines3>=2.4,<3'

clean:
	rm -rf $(VENV) build dist out *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
