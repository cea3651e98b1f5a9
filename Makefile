# SPDX-License-Identifier: MIT
# The two that need nothing else first: `make demo` and `make test`.
PREFIX ?= /usr/local
DESTDIR ?=
SUITE ?=
export PREFIX DESTDIR
PYTHON_HERE := .venv/bin/python

.PHONY: help demo test lint bench accept soak mutation install uninstall distclean readme-shots test-bare hooks
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: ## install what is missing, build, replay a trace against two pools
	@.ci/setup demo
	@.ci/demo

test: ## all tests and lint, a table at the end; SUITE="cli parity" picks
	@.ci/setup test
	@$(PYTHON_HERE) .ci/test.py $(SUITE)

lint: ## ruff, mypy, clang-format, clang-tidy, form of commits only
	@.ci/setup test
	@$(PYTHON_HERE) .ci/test.py lint

bench: ## throughput and latency beside peers of the same run
	@.ci/setup bench
	@$(PYTHON_HERE) tests/bench/run.py

accept: ## a row per promise: figure, bar, pass; SUITE=foundation picks
	@.ci/setup bench
	@$(PYTHON_HERE) tests/accept/run.py $(if $(SUITE),--suite $(SUITE))

mutation: ## break the source in places, see whether the tests notice; ONLY=regex picks
	@.ci/setup test
	@$(PYTHON_HERE) tests/mutation/run.py $(if $(ONLY),--only '$(ONLY)')

soak: ## long runs of the C tests
	@.ci/setup test
	@$(PYTHON_HERE) .ci/test.py soak

install: ## into $(DESTDIR)$(PREFIX): library, headers, man pages, completion, speckvctl
	@.ci/setup install
	@.ci/install

uninstall: ## remove what install put there
	@.ci/install --remove

hooks: ## let git run these checks before each commit (pre-commit)
	@.ci/setup test
	@.venv/bin/pip install -q pre-commit
	@.venv/bin/pre-commit install --hook-type pre-commit --hook-type commit-msg

readme-shots: ## take the pictures that README.md shows, from a real run
	@.ci/setup test
	@$(PYTHON_HERE) man/pictures/generate.py

test-bare: ## make demo and make test in fresh Debian and Ubuntu roots (needs root)
	@.ci/bare

distclean: ## remove everything that is not source
	@rm -rf build .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -not -path './.git/*' -exec rm -rf {} +
