# Ten words: dev, test, soak, cluster, check, fix, docs, bench, pictures, clean. Each makes the environment it needs.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: dev test soak cluster check fix docs bench pictures clean
.DEFAULT_GOAL := test

# Made again when the dependencies change.
$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Fairlead needs Python 3.11 or newer; found " + sys.version.split()[0] + ". Set PYTHON=python3.11 (or newer).")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@

# The browser that the chat's page is tested in.
$(VENV)/chromium: tests/support/install-chromium.sh $(VENV)/installed
	tests/support/install-chromium.sh
	@touch $@

# What the metrics, the alert rules and the dashboard are tried with.
$(VENV)/promtool: tests/support/install-prometheus.sh $(VENV)/installed
	tests/support/install-prometheus.sh $(VENV)/prometheus
	@touch $@

# What the manifests of deploy/k8s are tried with: kubectl, schemas of custom resources, a scan for unsafe settings.
# The scan pins what others need newer, so it has an environment of its own.
$(VENV)/kubernetes/installed: tests/support/kubernetes/install.sh tests/support/kubernetes/package-lock.json $(VENV)/installed
	tests/support/kubernetes/install.sh $(VENV)/kubernetes $(BIN)/python
	@touch $@

$(VENV)/checkov/installed: tests/support/kubernetes/checkov.txt $(VENV)/installed
	$(BIN)/python -m venv $(VENV)/checkov
	$(VENV)/checkov/bin/python -m pip install --quiet --requirement tests/support/kubernetes/checkov.txt
	@touch $@

# Hosts, lines and a balancer for the cluster on one machine.
$(VENV)/network: tests/support/install-network.sh $(VENV)/installed
	tests/support/install-network.sh
	@touch $@

# What builds the images of deploy/ where there is no engine; for `make soak`.
$(VENV)/buildah: tests/support/install-buildah.sh $(VENV)/installed
	tests/support/install-buildah.sh
	@touch $@

# The compiler and the bundler of the JavaScript client.
$(VENV)/npm: clients/js/package-lock.json tests/support/node.py $(VENV)/installed
	$(BIN)/python tests/support/node.py ci --ignore-scripts --no-audit --no-fund
	@touch $@

TRIED_WITH := $(VENV)/installed $(VENV)/chromium $(VENV)/npm $(VENV)/promtool $(VENV)/network \
	$(VENV)/kubernetes/installed $(VENV)/checkov/installed

dev: $(VENV)/installed  ## the whole system on this machine, with the chat example and its page
	$(BIN)/fairlead dev examples/chat

# The long files first: what is short fills the gaps at the end.
LONG_FIRST := tests/system $(filter-out tests/system tests/support tests/__pycache__,$(wildcard tests/*))

test: $(TRIED_WITH)  ## all tests, four files at a time: most of them wait for a process or a network
	@# They start some 1,500 processes, which would each compile the sources anew where nothing may be written beside them.
	$(BIN)/python -m compileall -q shared edge workers console
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder $(LONG_FIRST)

cluster: $(VENV)/installed $(VENV)/network  ## NATS, edges, workers and a balancer on hosts of their own; scaled, replaced, cut off
	$(BIN)/python -m pytest -m soak -s tests/system/test_cluster.py

soak: $(VENV)/installed $(VENV)/network $(VENV)/buildah  ## the long forms of the proofs, with their figures
	$(BIN)/python -m pytest -m soak -s

check: $(TRIED_WITH)  ## formatter, linters, types, import contracts, tests with coverage
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage report --skip-covered --show-missing

fix: $(VENV)/installed  ## format and repair what can be repaired
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/installed  ## the pages and the API reference as a site in build/site; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(VENV)/installed  ## the speed of the running system: a table and bench/results/*.json
	$(BIN)/python -m bench

pictures: $(VENV)/installed $(VENV)/chromium  ## those of the README and the docs, docs/pictures
	$(BIN)/python docs/pictures/take.py
	$(BIN)/python docs/pictures/trace.py
	$(BIN)/python docs/pictures/console.py

clean:
	rm -rf clients/js/node_modules clients/js/dist $(VENV) build .fairlead .pytest_cache .mypy_cache .ruff_cache .hypothesis
