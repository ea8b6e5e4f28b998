# Sets up .venv with what constraints.txt pins, then trains, tests or checks in it.

PYTHON ?= python3
# FAISS comes in two builds that share a module name: the one for GPUs where there is one.
FAISS ?= $(if $(shell command -v nvidia-smi),gpu,cpu)
ARGS ?=

venv := .venv
bin := $(venv)/bin
ready := $(venv)/ready-$(FAISS)

.PHONY: help setup train test check bench docs format clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

setup: $(ready)  ## make .venv with all that is needed; the other targets do so too

train: $(ready)  ## train the default experiment, digits; ARGS="mnist trainer.max_epochs=5" for others
	$(bin)/acn fit $(ARGS)

test: check  ## check the code, then run the whole test suite
	$(bin)/python -m pytest --numprocesses 2 --dist worksteal

check: $(ready)  ## lint, formatting and types
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy

lowest:  ## test with the lowest versions that pyproject.toml allows, in .venv-lowest
	rm -rf .venv-lowest
	$(PYTHON) -m venv .venv-lowest
	$(PYTHON) tests/lowest.py > .venv-lowest/constraints.txt
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint .venv-lowest/constraints.txt --editable '.[cpu,tour,explore,onnx,tensorboard,dev]'
	.venv-lowest/bin/python -m pytest --numprocesses 2 --dist worksteal $(FAST)

bench: $(ready)  ## measure speed against references; ARGS="step sampler" for some of it
	$(bin)/python -m benchmarks $(ARGS)

docs: $(ready)  ## build the site, into site/
	$(bin)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[docs]'
	$(bin)/python docs/make_reference.py
	$(bin)/zensical build --strict --config-file mkdocs.yml

format: $(ready)  ## put the code into its form
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

clean:  ## remove the environment and caches; runs/ and data/ stay
	rm -rf $(venv) build site .cache *.egg-info .mypy_cache .pytest_cache .ruff_cache

$(ready): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "acn_lightning needs Python 3.11 or newer: make PYTHON=python3.11 ..."; exit 2; }
	rm -rf $(venv)
	$(PYTHON) -m venv $(venv)
	$(bin)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[$(FAISS),dev]'
	@touch $@
