# `make` or `make help` lists the targets. Each makes its environment first if there is none.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help environment test lint format docs demo

# Nothing is looked up on a hub.
offline = HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 TOKENIZERS_PARALLELISM=false
# A process for each core, four at most, each file's tests in one of them, and one thread in each: cores are not fought over.
# In the order of the folders: the recipes are few and long, and the last to start would be waited for alone.
spread = OMP_NUM_THREADS=1
workers = -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
setup = . training/scripts/environment.sh

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

environment:  ## make or refresh .venv with everything that the tests need
	@$(setup); make_environment demo,lora,dev --title "environment" --yes

test: environment  ## run the whole suite; ARGS='-k name' is passed to pytest
	@$(setup); $(offline) $(spread) "$$venv_python" -m pytest $(workers) $(ARGS)

lint: environment  ## formatting, common mistakes, types
	@$(setup); "$$venv_python" -m ruff format --check . ; "$$venv_python" -m ruff check . ; "$$venv_python" -m mypy

format: environment  ## rewrite the sources in the project's format
	@$(setup); "$$venv_python" -m ruff format . ; "$$venv_python" -m ruff check --fix .

docs: environment  ## the documentation site in docs/_build/html; a warning is a failure
	@$(setup); "$$venv_python" -m sphinx -W --keep-going -q -b html docs docs/_build/html; echo docs/_build/html/index.html

demo:  ## both models from scratch on a synthesised corpus, see ./run_dev.sh --help
	@./run_dev.sh --profile demo
