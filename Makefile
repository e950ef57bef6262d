# The front door. Bare `make` lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Tests wait for servers more than they reckon: two processes share them.
PROCESSES ?= 2
PIP := $(BIN)/pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo dev check test long compat bench clean

help: ## List the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/it"; exit 1; }
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || { \
		rm -rf $(VENV); \
		if [ "$$(id -u)" = 0 ]; then apt-get update -qq && apt-get install -y -qq python3-venv && $(PYTHON) -m venv $(VENV); \
		else echo "Python's venv module is missing: install it first (Debian: apt-get install python3-venv)"; exit 1; fi; }

$(VENV)/.run: requirements/run.txt pyproject.toml | $(BIN)/python
	$(PIP) --require-hashes -r requirements/run.txt
	$(PIP) setuptools wheel
	$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.test: requirements/test.txt $(VENV)/.demo
	$(PIP) --require-hashes -r requirements/test.txt
	@touch $@

$(VENV)/.demo: requirements/demo.txt $(VENV)/.run
	$(PIP) --require-hashes -r requirements/demo.txt
	@touch $@

# The SDK of a year ago, in a folder that one rig of the compatibility suite puts in front.
$(VENV)/inngest-0.5.0/.done: requirements/compat-python-old.txt $(VENV)/.test
	rm -rf $(@D)
	$(PIP) --require-hashes --no-deps --target $(@D) -r requirements/compat-python-old.txt
	@touch $@

# The public SDK of npm, under the Node of a wheel: no system needs one.
JS := tests/compat/apps/js

$(VENV)/.js: $(JS)/package-lock.json $(JS)/.npmrc | $(VENV)/.test
	cd $(JS) && $(abspath $(BIN))/npm ci --loglevel=error --no-progress
	@touch $@

COMPAT := $(VENV)/inngest-0.5.0/.done $(VENV)/.js

demo: $(VENV)/.demo ## The report job on real input, killed in mid-run
	$(BIN)/python examples/report/demo.py

dev: $(VENV)/.demo ## The demo's app under stepwell dev
	REPORT_WORK=.stepwell/report $(BIN)/stepwell dev examples/report/app.py

check: $(VENV)/.test ## Format, lint, types and import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check chromium $(COMPAT) ## All tests: what CI runs
	$(BIN)/pytest -m "not long" -n $(PROCESSES)

.PHONY: chromium
chromium:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || { \
		if [ "$$(id -u)" = 0 ]; then apt-get update -qq && apt-get install -y -qq chromium >/dev/null; \
		else echo "Chromium is missing, and the page's tests need it: apt-get install chromium"; exit 1; fi; }

long: check chromium $(COMPAT) ## The tests with large counts: seeds, kill rounds, every SDK
	STEPWELL_SEEDS=2000 STEPWELL_KILL_ROUNDS=200 STEPWELL_COMPAT=all $(BIN)/pytest -n $(PROCESSES)

compat: $(COMPAT) ## Every SDK with every case; writes docs/compatibility.md
	rm -f $(VENV)/compat.jsonl $(VENV)/compat.*.json
	-STEPWELL_COMPAT=all STEPWELL_COMPAT_RESULTS=$(VENV)/compat.jsonl $(BIN)/pytest tests/compat -n $(PROCESSES)
	$(BIN)/python -m tests.compat.table $(VENV)/compat.jsonl

bench: $(VENV)/.test ## Measure, and print a table
	$(BIN)/python -m bench

clean: ## Remove what the targets made
	rm -rf $(VENV) $(JS)/node_modules tests/compat/cloudflare/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis
