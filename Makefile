# What a newcomer needs: `make setup`, `make demo`, `make test`. The set-up is quick when nothing changed.
SHELL := /bin/bash
PYTHON_BIN := .venv/bin/python
# Further words for pytest: make test ARGS="-k queue"
ARGS ?=
# A test run starts hundreds of processes: none compiles again what another has compiled.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo test check clean help

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: ## installs what is missing: .venv, and a few system programs
	@scripts/setup.sh

demo: setup ## one real call and one real crawl, end to end
	@$(PYTHON_BIN) scripts/demo.py

test: ## all tests, on all cores
	@scripts/setup.sh tests
	@$(PYTHON_BIN) -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

check: setup ## style and types only
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

clean: ## removes what set-up and runs made here (not the system programs)
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis demo-data dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
