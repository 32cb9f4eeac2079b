# What a user and a developer run; `make help` lists it.
#
# An environment is made once: a stamp in it, written after everything installed, is newer than the
# files that decide what it holds. A failed install leaves no stamp, so the next `make` goes on.

ACCELERATOR ?= cpu
PYTHON ?= python3 python3.13 python3.12 python3.11
TEST_JOBS ?= 2
PYTEST_ARGS ?=
UPGRADE ?=

ifeq ($(filter $(ACCELERATOR),cpu cuda12),)
$(error ACCELERATOR=$(ACCELERATOR) is unknown: allowed are cpu and cuda12)
endif

comma := ,
VENV := .venv
PARITY := .venv-parity
STAMP := $(VENV)/installed-$(ACCELERATOR)
PARITY_STAMP := $(PARITY)/installed
EXTRAS := $(if $(filter cuda12,$(ACCELERATOR)),cuda12$(comma))quickstart,test

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help quickstart test slow parity lint format lock clean env parity-env
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile
	@echo "Variables: ACCELERATOR=cpu|cuda12, PYTHON=python3.12, PYTEST_ARGS='-k bilinear', UPGRADE=--upgrade"

quickstart: $(STAMP) ## install, then fine-tune a pretrained network on built-in images
	$(VENV)/bin/python -m fgc_jax.main --config=configs/quickstart.py --workdir=runs/quickstart

test: $(STAMP) ## install, then run the tests
	$(VENV)/bin/python -m pytest -n $(TEST_JOBS) --durations=10 $(PYTEST_ARGS)

slow: $(STAMP) ## the proofs that take long, before a release
	$(VENV)/bin/python -m pytest -n $(TEST_JOBS) --durations=10 -m slow $(PYTEST_ARGS)

parity: $(PARITY_STAMP) ## compare with timm and torchvision in an environment of its own
	$(PARITY)/bin/python -m pytest -n $(TEST_JOBS) tests/parity $(PYTEST_ARGS)

lint: $(STAMP) ## check style and formatting
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

format: $(STAMP) ## repair what lint can repair
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

env: $(STAMP) ## create .venv
parity-env: $(PARITY_STAMP) ## create .venv-parity (PyTorch, several GB)

lock: $(STAMP) ## pin the dependencies anew (UPGRADE=--upgrade takes newer releases)
	$(VENV)/bin/python -m pip install --quiet uv
	$(LOCK) --all-extras --output-file requirements.lock pyproject.toml
	$(LOCK) --group parity --constraint requirements.lock --output-file requirements-parity.txt

LOCK = $(VENV)/bin/uv pip compile --quiet --no-config $(UPGRADE) --universal \
	--python-version 3.11 --fork-strategy fewest --no-annotate --custom-compile-command "make lock"

clean: ## remove environments, caches and builds (runs/ stays)
	rm -rf $(VENV) $(PARITY) .cache .pytest_cache .ruff_cache build dist *.egg-info

$(STAMP): pyproject.toml requirements.lock
	@$(call create,$(VENV))
	@echo "Installing the locked dependencies into $(VENV): a few minutes the first time."
	@$(VENV)/bin/python -m pip install --quiet --constraint requirements.lock --editable '.[$(EXTRAS)]'
	@touch $@

$(PARITY_STAMP): pyproject.toml requirements.lock requirements-parity.txt
	@$(call create,$(PARITY))
	@echo "Installing PyTorch and the locked dependencies into $(PARITY): many minutes and several GB."
	@$(PARITY)/bin/python -m pip install --quiet --constraint requirements.lock \
		--requirement requirements-parity.txt --editable '.[quickstart,test]'
	@touch $@

# Makes the environment $(1) with the first fitting Python of $(PYTHON); an environment of another
# Python is made anew. Candidates are run, not only looked up: a name can be there and not work.
create = set -e; \
	for python in $(PYTHON); do \
	  version=$$($$python -c '$(SUITABLE)' 2>/dev/null) && break || version=; \
	done; \
	if [ -z "$$version" ]; then \
	  echo "Python 3.11, 3.12 or 3.13 with the venv module is needed; tried: $(PYTHON)." >&2; \
	  echo "Install one (Debian: apt install python3 python3-venv) or name it: make PYTHON=/path/to/python3.12" >&2; \
	  exit 1; \
	fi; \
	[ -d "$(1)/lib/python$$version" ] || rm -rf "$(1)"; \
	$$python -m venv "$(1)"
SUITABLE := import ensurepip, sys; v = sys.version_info[:2]; \
	(3, 11) <= v <= (3, 13) or sys.exit(1); print("%d.%d" % v)
