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

INSTALL = { apt-get install -y $(1) || { apt-get update && apt-get install -y $(1); }; } >/dev/null 2>&1

.DEFAULT_GOAL := list
.PHONY: list setup up test page check format bench chaos hostile dapr up-dapr conformance bench-dapr clean

list:
	@echo 'Everturn: a chat turn that always finishes.'
	@echo
	@echo '  make setup    build the environment for work on it; the others build what they need by themselves'
	@echo '  make up       start everything and print the addresses; ARGS=--faults hands options on'
	@echo '  make test     run the tests of the services and of the embedded runtime'
	@echo '  make page     run the tests of the page in a real Chromium'
	@echo '  make chaos    crash the simulated system 50,000 times; ARGS="soak 7" repeats one world'
	@echo '  make hostile  attack the system over sockets; ARGS="--chat URL" attacks one that runs'
	@echo '  make check    lint, types, imports between rooms, sizes, settings, deployment'
	@echo '  make format   put the code into the house format'
	@echo '  make bench    measure latency, throughput, memory, recovery (half an hour)'
	@echo '  make clean    remove what make built; conversations in .everturn stay'
	@echo
	@echo '  make dapr     build real Dapr from its Go modules, once (about five minutes, needs Go)'
	@echo '  make up-dapr  start both services on real Dapr, with a sidecar each; ARGS="--store postgresql"'
	@echo '  make conformance  run the same tests on the embedded runtime and on real Dapr, Redis and PostgreSQL'
	@echo '  make bench-dapr   measure a turn on real Dapr, in one process and apart (ten minutes)'

setup:
	@$(SETUP) dev

up:
	@$(SETUP) runtime
	@exec $(BIN)/everturn up $(ARGS)

test:
	@$(SETUP) dev
	@PATH="$$PATH:/usr/sbin"; command -v nginx >/dev/null || $(call INSTALL,nginx-light) || \
		echo 'nginx is not here, so the test of signing in behind it is left out: apt install nginx, or brew install nginx.' >&2
	@$(BIN)/pytest -n 2 --dist loadfile --ignore=tests/conformance --ignore=tests/browser -m 'not slow' $(ARGS)

page:
	@$(SETUP) dev
	@command -v chromium >/dev/null || $(call INSTALL,chromium) || \
		{ echo 'The page is tried in Chromium, which is not here: apt install chromium, or brew install chromium.' >&2; exit 1; }
	@$(BIN)/pytest tests/browser -n 2 --dist loadfile $(ARGS)

check:
	@$(SETUP) dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_sizes.py src tests tools benchmarks examples
	$(BIN)/python tools/check_paths.py
	$(BIN)/python tools/settings_reference.py --check
	$(BIN)/python -m tools.metrics_reference --check
	$(BIN)/python -m tools.check_deploy

chaos:
	@$(SETUP) dev
	@$(BIN)/python -m tests.chaos $(ARGS)

hostile:
	@$(SETUP) dev
	@$(BIN)/python -m tests.hostile $(ARGS)

format:
	@$(SETUP) dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python tools/settings_reference.py
	$(BIN)/python -m tools.metrics_reference

dapr:
	@$(SETUP) runtime
	@$(BIN)/python -m tools.dapr.build
	@command -v redis-server >/dev/null || $(call INSTALL,redis-server) || \
		{ echo 'Dapr keeps its state in Redis, which is not here: apt install redis-server, or brew install redis.' >&2; exit 1; }
	@ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || command -v postgres >/dev/null || $(call INSTALL,postgresql) || \
		echo 'PostgreSQL is not here, so --store postgresql is not either: apt install postgresql, or brew install postgresql.' >&2

up-dapr:
	@$(SETUP) runtime
	@exec $(BIN)/python -m tools.dapr.up $(ARGS)

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
	@find src tests tools examples -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo 'Removed the environment and the caches. Conversations in .everturn stay.'
