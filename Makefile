# Needs Python 3.11 to 3.13, pip and make (GNU Make 3.81 will do); everything else is set up in .venv.
#
#   make perf    measure and compare (docs/measuring.md says with what); ARGS="--checkpoint e2b-4bit" adds options
#   make test    the tests of the suite itself; ARGS="-k chip" adds options; root gets Chromium by apt-get for it
#   make lint    ruff and mypy
#   make lock    resolve the lock files anew; ARGS=--upgrade takes newer versions
#   make rehearse  the gate of a pull request, from plan to comment, on this machine
#   make setup   the environment alone; PYTHON=python3.12 and BACKEND=cpu or cuda override what is found
#   make versions  the tests on the oldest and newest packages and Pythons; ARGS=FILE is the record
#   make site    the site, built offline from the records into site/
#   make clean   remove the environment and caches

PYTHON ?=
BACKEND ?= auto
ARGS ?=
BIN := .venv/bin

.PHONY: help setup perf test rehearse versions lint lock site clean

help:
	@sed -n 's/^#   //p' Makefile

setup:
	@PYTHON='$(PYTHON)' BACKEND='$(BACKEND)' .ci/setup

# The flag goes last: before a path it would take the path for the run to compare with. make exits 2 for any failure
# and names pytest's own exit code in its message ("Error 1" is a regression); a script calls pytest itself.
perf: setup
	@exec $(BIN)/python -m pytest perf/ $(if $(findstring --runs,$(ARGS)),,--runs 3) $(ARGS) $(if $(findstring --benchmark-compare,$(ARGS)),,--benchmark-compare)

test: setup
	@.ci/browser
	@exec $(BIN)/python -m pytest tests/ $(ARGS)

rehearse: setup
	@exec $(BIN)/python -m tests.rehearsal.rehearse $(ARGS)

versions: setup
	@cd perf && exec ../$(BIN)/python -m studies.versions $(if $(ARGS),$(abspath $(ARGS)),../docs/reliability/versions.json)

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

site: setup
	@exec $(BIN)/python -m gemma3n_perf site $(ARGS)

COMPILE = $(BIN)/uv --quiet pip compile pyproject.toml --universal --python-version 3.11 --fork-strategy fewest \
	--generate-hashes --group dev --no-header --no-emit-index-url --no-emit-find-links

lock: setup
	@$(COMPILE) --extra cpu --annotation-style line --output-file requirements.lock $(ARGS)
	@$(COMPILE) --extra cuda --no-annotate --constraint requirements.lock --output-file requirements-cuda.lock $(ARGS)
	@{ echo '# Everything for macOS (Metal) and Linux (CPU), with the tools of development. Made by: make lock'; cat requirements.lock; } >.venv/lock && mv .venv/lock requirements.lock
	@{ echo '# requirements.lock with the CUDA 13 build of MLX in place of the CPU build. Made by: make lock'; cat requirements-cuda.lock; } >.venv/lock && mv .venv/lock requirements-cuda.lock

clean:
	@rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .benchmarks build dist
	@find perf tests -name __pycache__ -type d -prune -exec rm -rf {} +
