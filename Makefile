# Everything here needs Python 3.11 or newer, pip and make; the rest is set up on the first run.
#   PYTHON=python3.12 make up     picks the Python to build the environment with
#   make up ARGS=--faults         hands options on to the program

SHELL := /bin/sh
PYTHON ?=
ARGS ?=
BIN := .venv/bin
SETUP := PYTHON='$(PYTHON)' sh tools/setup.sh
NEEDS_WRK := command -v wrk >/dev/null || apt-get install -y wrk >/dev/null 2>&1 || \
	{ echo 'make bench loads the services with wrk, which is not here: apt install wrk, or brew install wrk.' >&2; exit 1; }

.DEFAULT_GOAL := list
.PHONY: list up test check format bench chaos dapr up-dapr conformance bench-dapr clean

list:
	@echo 'Everturn: a chat turn that always finishes.'
	@echo
	@echo '  make up       start everything and print the addresses'
	@echo '  make test     run the tests of the services and of the embedded runtime'
	@echo '  make chaos    crash the simulated system 50,000 times; ARGS="soak 7" repeats one world'
	@echo '  make check    lint, types, imports between rooms, sizes, settings, deployment'
	@echo '  make format   put the code into the house format'
	@echo '  make bench    measure latency, throughput, memory, recovery (half an hour)'
	@echo '  make clean    remove what make built; conversations in .everturn stay'
	@echo
	@echo '  make dapr     build real Dapr from its Go modules, once (about five minutes, needs Go)'
	@echo '  make up-dapr  start both services on real Dapr, with a sidecar each and Redis'
	@echo '  make conformance  run the same tests on the embedded runtime and on real Dapr'
	@echo '  make bench-dapr   measure a turn on real Dapr, in one process and apart (ten minutes)'

up:
	@$(SETUP) runtime
	@exec $(BIN)/everturn up $(ARGS)

test:
	@$(SETUP) dev
	@$(BIN)/pytest -n 2 --dist loadfile --ignore=tests/conformance $(ARGS)

check:
	@$(SETUP) dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_sizes.py src tests tools benchmarks
	$(BIN)/python tools/check_paths.py
	$(BIN)/python tools/settings_reference.py --check
	$(BIN)/python -m tools.check_deploy

chaos:
	@$(SETUP) dev
	@$(BIN)/python -m tests.chaos $(ARGS)

format:
	@$(SETUP) dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python tools/settings_reference.py

dapr:
	@$(SETUP) runtime
	@$(BIN)/python -m tools.dapr.build
	@command -v redis-server >/dev/null || \
		{ apt-get install -y redis-server || { apt-get update && apt-get install -y redis-server; }; } >/dev/null 2>&1 || \
		{ echo 'Dapr keeps its state in Redis, which is not here: apt install redis-server, or brew install redis.' >&2; exit 1; }

up-dapr:
	@$(SETUP) runtime
	@exec $(BIN)/python -m tools.dapr.up

conformance:
	@$(SETUP) dev
	@$(MAKE) --no-print-directory dapr || echo 'conformance: without real Dapr, its half of the tests is skipped' >&2
	@$(BIN)/pytest tests/conformance -n 2 -rs $(ARGS)

bench:
	@$(SETUP) dev
	@$(NEEDS_WRK)
	@$(BIN)/python -m benchmarks $(ARGS)

bench-dapr:
	@$(SETUP) dev
	@$(NEEDS_WRK)
	@$(BIN)/python -m benchmarks.dapr $(ARGS)

clean:
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist build
	@find src tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo 'Removed the environment and the caches. Conversations in .everturn stay.'
