# Two commands start from nothing but Python 3.11 and make: `make demo` and `make test`.
# Everything they install goes into .venv here; the stamps below say when that is stale.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
PAGES := $(shell find clients -type f -not -path 'clients/python/*' -not -path '*/node_modules/*' -not -path '*/dist/*' 2>/dev/null)
INSTALLED := .venv/.installed
INSTALLED_DEV := .venv/.installed-dev
LOCALSTRIPE := .tools/.localstripe
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock

.PHONY: help
help: ## explain every target
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(INSTALLED) ## open a seeded shop and a living room; make demo ARGS="--port 9000"
	@exec $(BIN)/liveroom demo $(ARGS)

.PHONY: test
test: $(INSTALLED_DEV) ## run every test, the JavaScript ones first; ARGS go to pytest
	@.ci/npm test --silent
	@.ci/test-python $(ARGS)

.PHONY: faults
faults: export LIVEROOM_FAULT_VIEWERS = 200
faults: export LIVEROOM_FAULT_STUCK = 1000
faults: export LIVEROOM_FAULT_POINTS = all
faults: export LIVEROOM_FAULT_SEEDS = 2000
faults: export LIVEROOM_FAULT_EXAMPLES = 200
faults: export LIVEROOM_FAULT_LONG = 1
faults: export LIVEROOM_FAULT_PAUSE_S = 10
faults: export LIVEROOM_FAULT_FLUSHES = 100
faults: export LIVEROOM_FAULT_BUYERS = 10000
faults: $(INSTALLED_DEV) ## run the long forms of the fault tests, some minutes
	@.ci/test-python tests/faults tests/simulation \
	  tests/test_inventory.py::test_the_gates_agree_with_the_model $(ARGS)

.PHONY: tools
tools: $(LOCALSTRIPE) ## install what some tests need: Chromium, PostgreSQL, a C compiler, localstripe
	@.ci/tools

.PHONY: check
check: $(INSTALLED_DEV) ## lint, format and types, changing nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@.ci/npm run check --silent

.PHONY: bench
bench: $(INSTALLED_DEV) ## measure every bar at its real size; or make bench ARGS="fanout --viewers 1000"
	@exec $(BIN)/liveroom bench $(or $(ARGS),bars)

.PHONY: bench-peers
bench-peers: $(INSTALLED_DEV) ## install the servers that `liveroom bench peers` compares, and run it
	@$(INSTALL) -e '.[dev,peers]'
	@command -v npm >/dev/null && (cd bench/peers && npm ci --ignore-scripts --no-audit --no-fund) \
	  || echo "without npm there are no ws and no Socket.IO" >&2
	@exec $(BIN)/liveroom bench peers $(ARGS)

.PHONY: web-dev
web-dev: $(INSTALLED_DEV) ## build the pages again at every change, with a server beside them
	@.ci/web-dev $(ARGS)

.PHONY: setup
setup: $(INSTALLED_DEV) ## install everything into .venv

.PHONY: lock
lock: ## write requirements.lock anew from a fresh environment
	@.ci/lock

.PHONY: clean
clean: ## remove what was built and installed; the data of servers and demos stays
	rm -rf .venv .tools clients/node_modules clients/js/node_modules clients/pages/node_modules \
	  liveroom/web/built clients/js/dist dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	@.ci/make-venv $(PYTHON)

# Editable, so that a change of Python code needs no installing; the pages are built by
# hatch_build.py on the way.
$(INSTALLED): pyproject.toml requirements.lock hatch_build.py $(PAGES) | .venv/bin/python
	@echo "installing liveroom into .venv and building its pages (a minute or two) …"
	@$(INSTALL) -e .
	@touch $@

$(INSTALLED_DEV): $(INSTALLED)
	@echo "installing the tools of development into .venv …"
	@$(INSTALL) -e '.[dev]'
	@touch $@

# GPL: it stands in an environment of its own and only ever runs as a process of a test.
$(LOCALSTRIPE): tests/localstripe.txt | .venv/bin/python
	@echo "installing a Stripe to test against into .tools …"
	@$(BIN)/python -m venv --clear .tools/localstripe
	@.tools/localstripe/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@
