# Sets up .venv with what constraints.txt pins, then trains, tests or checks in it.

PYTHON ?= python3
# FAISS comes in two builds that share a module name: the one for GPUs where there is one.
FAISS ?= $(if $(shell command -v nvidia-smi),gpu,cpu)
ARGS ?=
# What make lowest runs: each package that a test can need is in one of these. FAST=tests for all.
FAST ?= tests/callbacks tests/data tests/test_augment.py tests/test_cluster.py tests/test_collection.py \
	tests/test_compression.py tests/test_config.py tests/test_exact.py tests/test_explorer.py \
	tests/test_finetune.py tests/test_module.py tests/test_neighbours.py tests/test_networks.py \
	tests/test_onnx.py tests/test_packaging.py tests/test_probes.py tests/test_tours.py

venv := .venv
bin := $(venv)/bin
ready := $(venv)/ready-$(FAISS)
# Python compiles what is imported; to compile all 19,000 files takes a minute.
install := -m pip install --quiet --disable-pip-version-check --no-compile

.PHONY: help setup train test check lowest bench docs format clean

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
	.venv-lowest/bin/python $(install) \
		--constraint .venv-lowest/constraints.txt --editable '.[cpu,tour,explore,onnx,tensorboard,dev]'
	.venv-lowest/bin/python -m pytest --numprocesses 2 --dist worksteal $(FAST)

bench: $(ready)  ## measure speed against references; ARGS="step sampler" for some of it
	$(bin)/python -m benchmarks $(ARGS)

docs: $(ready)  ## build the site, into site/
	$(bin)/python $(install) \
		--constraint constraints.txt --editable '.[docs]'
	$(bin)/python docs/make_reference.py
	$(bin)/python docs/make_notebook.py
	$(bin)/zensical build --strict --config-file mkdocs.yml

format: $(ready)  ## put the code into its form
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

clean:  ## remove the environment and caches; runs/ and data/ stay
	rm -rf $(venv) .venv-lowest build site .cache *.egg-info .mypy_cache .pytest_cache .ruff_cache

$(ready): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "acn_lightning needs Python 3.11 or newer: make PYTHON=python3.11 ..."; exit 2; }
	rm -rf $(venv)
	$(PYTHON) -m venv $(venv)
	$(bin)/python $(install) \
		--constraint constraints.txt --editable '.[$(FAISS),dev]'
	@touch $@
