# GNU make. Each target sets up what it needs by itself: the first run builds .venv, later runs start at once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Tests wait more than they compute, so more of them than cores run at once; each file stays in one process.
PROCESSES ?= 4
# For every platform and Python from 3.11 on; no addresses of registries in the files.
LOCK := uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(VENV)/.demo ## start the whole system on this machine and watch notifications travel
	@$(BIN)/notify demo

.PHONY: test
test: $(VENV)/.dev ## run the tests (without those marked long)
	@sh requirements/browser.sh
	@sh requirements/prometheus.sh
	$(BIN)/python -m pytest tests -m "not long" --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder

.PHONY: faults
faults: $(VENV)/.dev ## kill, stop and flush things at random and account for every notification
	$(BIN)/python -m pytest tests/faults -m "long or not long"

.PHONY: check
check: $(VENV)/.dev ## lint, format check, types, import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: bench
bench: $(VENV)/.dev ## measure against a stock Celery no-op task
	@$(BIN)/python -m bench

.PHONY: lock
lock: ## pin the requirements anew from pyproject.toml (needs uv)
	$(LOCK) --extra worker --extra gateway --extra providers --extra tracing --extra embedded --extra dev --output-file requirements/dev.txt
	$(LOCK) --extra worker --extra gateway --extra embedded --extra twilio --extra fcm --extra webpush --constraints requirements/dev.txt --output-file requirements/demo.txt
	$(LOCK) --extra worker --extra gateway --extra providers --extra tracing --extra sandbox --constraints requirements/dev.txt --output-file requirements/image.txt

.PHONY: clean
clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build

$(VENV)/.demo: requirements/demo.txt pyproject.toml requirements/install.sh
	@PYTHON="$(PYTHON)" sh requirements/install.sh $(VENV) demo

$(VENV)/.dev: requirements/dev.txt pyproject.toml requirements/install.sh
	@PYTHON="$(PYTHON)" sh requirements/install.sh $(VENV) dev
