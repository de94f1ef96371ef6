# Everything a checkout can do. `make run` and `make test` need only python3 and make on a Debian 12.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(CURDIR)/.run
PIP_TOOLS := pip-tools==7.6.2

# Everything comes as a hash-checked wheel, except sdnotify, which is published as source only: that one is
# built with the pinned tools of requirements-build.lock, not with whatever an isolated build would fetch.
PIP_INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-input
LOCKED := $(PIP_INSTALL) --require-hashes --no-deps --only-binary :all:
FROM_SOURCE := --no-binary sdnotify --no-build-isolation --use-pep517

.DEFAULT_GOAL := help
.PHONY: help run test lint smoke-test bench soak deb reference lock clean

help: ## list what make can do here
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/.runtime ## start the daemon on a sample database in .run/, page on http://127.0.0.1:9817/
	@mkdir -p $(RUN)/data
	@test -e $(RUN)/data/scpln.db || install -m 0644 tests/data/scpln-sample.db $(RUN)/data/scpln.db
	@echo REGISTRY_BACKEND=db >$(RUN)/.env
	@sed 's|@RUN@|$(RUN)|' packaging/demo.toml >$(RUN)/config.toml
	@# A SCPLN_DB of the caller's own would win over the sample.
	@env -u SCPLN_DB -u REGISTRY_BACKEND $(BIN)/scpln-backup -c $(RUN)/config.toml serve --backup-at-start

# A file's tests stay together: they share servers and boxes that are started once.
JOBS ?= $(shell nproc)
test: $(VENV)/.dev ## run the tests, installing what they need
	@packaging/apt-install.sh packaging/apt-test.txt
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

lint: $(VENV)/.dev ## ruff, mypy --strict and the layers between packages
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

smoke-test: $(VENV)/.dev ## the life of a backup end to end, one line a step
	@$(BIN)/python tests/smoke_test.py $(ARGS)

bench: $(VENV)/.dev ## measure speed and memory (ARGS= for options)
	@packaging/apt-install.sh packaging/apt-bench.txt
	@$(BIN)/python tests/bench/bench.py $(ARGS)

soak: $(VENV)/.dev ## the tests with databases of a GiB and more
	@packaging/apt-install.sh packaging/apt-test.txt
	@$(BIN)/python -m pytest -m large $(ARGS)

deb: $(VENV)/.runtime ## build dist/scpln-backup_VERSION_ARCH.deb on Debian 12
	@packaging/build-deb.sh $(ARGS)

reference: $(VENV)/.runtime ## write what is made from the types: docs/configuration.md, config.example.toml
	@$(BIN)/python -c 'from scpln_backup.config.reference import reference; print(reference(), end="")' >docs/configuration.md
	@$(BIN)/python -c 'from scpln_backup.config.write import example; print(example(), end="")' >config.example.toml

# Locks are made for Python 3.11, the oldest that is supported and Debian 12's own.
COMPILE = $(CURDIR)/.cache/lock/bin/pip-compile --no-config --quiet --upgrade --allow-unsafe --strip-extras \
	--generate-hashes --no-emit-index-url --no-emit-find-links --no-header
lock: ## bring packaging/requirements*.lock up to date with pyproject.toml
	@packaging/bootstrap.sh $(PYTHON) .cache/lock
	@.cache/lock/bin/python -m pip install -qq --disable-pip-version-check $(PIP_TOOLS)
	@$(COMPILE) --output-file packaging/requirements-build.lock packaging/requirements-build.in
	@$(COMPILE) --output-file packaging/requirements.lock pyproject.toml
	@$(COMPILE) --output-file packaging/requirements-dev.lock --all-extras pyproject.toml

clean: ## remove what make has made here (not the cache of the test boxes)
	rm -rf $(VENV) .run .cache .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist

# Stamps, so that a second `make test` starts at once.
$(VENV)/.pip: packaging/bootstrap.sh
	@packaging/bootstrap.sh $(PYTHON) $(VENV)
	@touch $@

$(VENV)/.build: $(VENV)/.pip packaging/requirements-build.lock
	@echo "Installing what scpln-backup needs into $(VENV)"
	@$(LOCKED) -r packaging/requirements-build.lock
	@touch $@

$(VENV)/.runtime: $(VENV)/.build packaging/requirements.lock pyproject.toml
	@$(LOCKED) $(FROM_SOURCE) -r packaging/requirements.lock
	@$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime packaging/requirements-dev.lock
	@$(LOCKED) $(FROM_SOURCE) -r packaging/requirements-dev.lock
	@touch $@
