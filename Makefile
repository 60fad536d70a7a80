# Two commands for a fresh machine:  make demo  runs the main job,  make test  passes the tests.
# ARGS=… is passed through, e.g.  make demo ARGS="--flow orders.csv.gz --rows 20000"

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
COMPILED := build/compiled
NPM_DIR   := tests/interop
NPM_STAMP := $(NPM_DIR)/node_modules/.package-lock.json

.DEFAULT_GOAL := help
.PHONY: help demo test test-compiled compiled test-python lint types bench simulate simulate-dht clean

help:  ## show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

demo: $(STAMP)  ## two Grapes, three order book peers, replayed order flow, reconciled
	$(BIN)/orderbook demo $(ARGS)

# Peers as real processes are tested as they are installed, compiled where that is possible; all else from the
# sources, and what is compiled once more as it is compiled.
OF_PROCESSES := tests/e2e/test_crashes.py tests/e2e/test_node_peer.py tests/interop/test_orderbook_workers.py \
	$(wildcard tests/e2e/test_orderbook_*.py)
OF_COMPILED := tests/unit/orderbook tests/unit/engine $(wildcard tests/unit/test_*poll.py) tests/interop/test_ws_node.py \
	$(addprefix tests/unit/,test_map.py test_sync_ws.py test_ws_client.py test_ws_frames.py test_ws_same.py test_ws_server.py)

# More workers than processors: most tests wait, for processes, sockets and time limits.
PARALLEL := -n 4 --dist worksteal

test: $(STAMP) node lint  ## lint, types and all tests
	@$(MAKE) --no-print-directory -j 2 types compiled
	$(BIN)/python -m pytest $(if $(ARGS),$(ARGS),$(PARALLEL) $(addprefix --ignore=,$(OF_PROCESSES)))
	$(if $(ARGS),,@$(MAKE) --no-print-directory test-compiled)

# What is compiled stands apart from the sources, so that an edit is never hidden by an old extension.
AS_COMPILED := PYTHONPATH=$(CURDIR)/$(COMPILED)

compiled: $(COMPILED)/.built  ## the packages with their compiled modules, as a wheel has them, in build/compiled

$(COMPILED)/.built: $(STAMP) setup.py $(shell find grenache_py orderbook -name '*.py')
	mkdir -p $(COMPILED)
	rm -rf $(COMPILED)/grenache_py $(COMPILED)/orderbook
	cp -Rp grenache_py orderbook setup.py setup.cfg pyproject.toml README.md LICENSE $(COMPILED)
	cd $(COMPILED) && $(CURDIR)/$(BIN)/python setup.py --quiet build_ext --inplace --parallel 2
	touch $@

test-compiled: compiled node  ## tests of what is compiled, and of peers as processes
	$(AS_COMPILED) $(BIN)/pytest --import-mode=append $(PARALLEL) $(OF_COMPILED) $(OF_PROCESSES)

# Each Python has an environment and a build of its own.
VERSION = $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')

test-python:  ## all tests with another Python:  make test-python PYTHON=python3.13
	@test -n "$(VERSION)" || { echo "$(PYTHON) does not run; set PYTHON=…" >&2; exit 1; }
	@$(MAKE) --no-print-directory test VENV=$(VENV)-$(VERSION) COMPILED=$(COMPILED)-$(VERSION)

lint: $(STAMP)  ## ruff: rules and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)  ## mypy, strict
	$(BIN)/mypy

bench: compiled node  ## measure against the real Node peers in the same run
	@set -e; for script in benchmarks/[a-z]*.py; do $(AS_COMPILED) $(BIN)/python $$script $(ARGS); done

bench-%: compiled node
	$(AS_COMPILED) $(BIN)/python benchmarks/$*.py $(ARGS)

SEED  ?= 1
SEEDS ?= 5000
simulate: $(STAMP)  ## markets under faults, as many seeds as asked: SEED=first SEEDS=how-many
	$(BIN)/python -m tests.simulation.campaign --seed $(SEED) --seeds $(SEEDS)

simulate-dht: $(STAMP)  ## 50 to 1,000 DHT nodes with losses and deaths: hops, queries, what is found
	$(BIN)/python -m tests.simulation.dht_campaign $(ARGS)

clean:  ## remove everything that the other targets made
	rm -rf $(VENV) $(VENV)-3.* $(NPM_DIR)/node_modules benchmarks/rivals/node_modules benchmarks/rivals/.venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "grenache-py needs Python 3.10 or newer; set PYTHON=…")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@

# The real Node Grape and Node peers that the interop tests talk to. Without npm those tests skip,
# saying so; with CI=true a missing npm is a failure.
.PHONY: node
ifneq ($(shell command -v npm),)
node: $(NPM_STAMP)
else
node:
	@test "$(CI)" != true || { echo "npm is missing, and CI=true needs the interop tests" >&2; exit 1; }
	@echo "npm is missing: the interop tests with Node will be skipped"
endif

$(NPM_STAMP): $(NPM_DIR)/package.json $(NPM_DIR)/package-lock.json
	npm ci --prefix $(NPM_DIR) --no-audit --no-fund --loglevel=error
	touch $@
