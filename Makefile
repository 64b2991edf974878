# Everything runs in .venv, made from requirements/*.txt when they change. `make help` lists what there is.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV ?= .venv
# The Python that makes the environment: 3.11 by choice, else whatever python3 is (3.11 at least).
PYTHON ?= $(shell python3.11 -V >/dev/null 2>&1 && command -v python3.11 || command -v python3)
CONFIG ?= trestle.yaml
RELEASED := proto/released.binpb
SCHEMA := docs/config.schema.json
REFERENCE := docs/configuration.md
PARAMETERS := docs/parameters.md
GENERATED := build/proto

BIN := $(VENV)/bin
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 $(BIN)/python -m pip install --quiet
SERVICES := proto/trestle/v1/worker_service.proto proto/trestle/v1/session_service.proto
PROTOC := $(BIN)/python -m grpc_tools.protoc -I proto \
  --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc
RUN := $(VENV)/run.stamp
DEV := $(VENV)/dev.stamp

.PHONY: help run test check lint types imports contract fresh manifests proto schema parameters bench lock release-image clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(RUN) ## Serve the gateway and its workers on this machine (CONFIG=trestle.yaml)
	@exec $(BIN)/trestle up --config $(CONFIG)

# Services are started hundreds of times, and each test process reads all tests: what was compiled for one is kept.
test: export PYTHONDONTWRITEBYTECODE :=
test: $(DEV) ## Run the tests, two processes a CPU (ARGS='-k name': some, in one process; ARGS='--shuffle 7')
	@$(BIN)/python -m pytest --numprocesses auto --dist worksteal $(ARGS)

check: lint types imports contract fresh manifests ## Check style, types, import rules, the contract, generated files, manifests

lint: $(DEV)
	@$(BIN)/ruff check .

types: $(DEV)
	@$(BIN)/mypy

imports: $(DEV)
	@$(BIN)/python -m pytest --quiet --no-header tests/test_imports.py

contract: $(DEV)
	@$(BIN)/buf lint
	@if [ -f $(RELEASED) ]; then \
	  $(BIN)/buf breaking --against $(RELEASED) && echo "buf: the contract keeps what was released"; \
	else \
	  echo "buf: nothing released yet ($(RELEASED) is made by 'make release-image'), so nothing to break"; \
	fi

fresh: $(DEV)
	@rm -rf $(GENERATED) && mkdir -p $(GENERATED)
	@$(call generate,$(GENERATED))
	@diff -r -x __init__.py -x __pycache__ $(GENERATED)/trestle/v1 trestle/v1 \
	  || { echo "trestle/v1 is not what proto/ says: run 'make proto'" >&2; exit 1; }
	@$(BIN)/trestle config schema | diff - $(SCHEMA) \
	  || { echo "$(SCHEMA) is not what the settings say: run 'make schema'" >&2; exit 1; }
	@$(BIN)/trestle config reference | diff - $(REFERENCE) \
	  || { echo "$(REFERENCE) is not what the settings say: run 'make schema'" >&2; exit 1; }
	@$(BIN)/python -m worker --parameters | diff - $(PARAMETERS) \
	  || { echo "$(PARAMETERS) is not what the families say: run 'make parameters'" >&2; exit 1; }
	@echo "generated files: fresh"

# Where neither kubectl nor kustomize can render them, it says so.
manifests: $(DEV)
	@$(BIN)/python -m pytest --quiet --no-header -rs tests/deploy/test_kubernetes.py

proto: $(DEV) ## Generate trestle/v1 from proto/
	@$(call generate,.)

schema: $(DEV) ## Generate docs/config.schema.json and docs/configuration.md from both services' settings
	@$(BIN)/trestle config schema > $(SCHEMA).new
	@mv $(SCHEMA).new $(SCHEMA)
	@$(BIN)/trestle config reference > $(REFERENCE).new
	@mv $(REFERENCE).new $(REFERENCE)

parameters: $(DEV) ## Generate docs/parameters.md from what the families declare
	@$(BIN)/python -m worker --parameters > $(PARAMETERS).new
	@mv $(PARAMETERS).new $(PARAMETERS)

bench: $(RUN) ## Measure requests and streams against a scripted upstream (ARGS=...)
	@$(BIN)/python -m bench $(ARGS)

lock: ## Choose the newest dependencies anew and lock them (requirements/*.txt)
	@$(PYTHON) -m venv --clear build/lock
	@build/lock/bin/pip --disable-pip-version-check install --quiet pip-tools==7.6.2
	@sed -n 's/^requires = \["\(.*\)"\]$$/\1/p' pyproject.toml > build/build.in
	@$(LOCK) --allow-unsafe --output-file requirements/build.txt build/build.in
	@$(LOCK) $(EXTRAS) --output-file requirements/run.txt pyproject.toml
	@$(LOCK) --extra gateway --extra traces --constraint requirements/run.txt --output-file requirements/gateway.txt pyproject.toml
	@$(LOCK) --extra worker --extra gemini --extra traces --constraint requirements/run.txt \
	  --output-file requirements/worker.txt pyproject.toml
	@$(LOCK) --allow-unsafe $(EXTRAS) --extra dev --constraint requirements/build.txt --constraint requirements/run.txt \
	  --output-file requirements/dev.txt pyproject.toml

release-image: $(DEV) ## Keep the contract as released: later checks compare with it
	@$(BIN)/buf build --exclude-source-info --output $(RELEASED)

clean: ## Remove the environment and everything made
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info

EXTRAS := --extra cli --extra gateway --extra worker --extra gemini --extra traces
# No addresses of an index in what is committed: the reader's own pip knows where to look.
LOCK = CUSTOM_COMPILE_COMMAND='make lock' build/lock/bin/pip-compile --quiet --upgrade --generate-hashes \
  --strip-extras --no-emit-index-url --no-emit-trusted-host --no-emit-find-links

# $(call generate,DIRECTORY): the contract's Python, types beside it; the service's stubs for its file alone.
define generate
$(PROTOC) --python_out=$(1) --mypy_out=quiet:$(1) proto/trestle/v1/*.proto && \
$(PROTOC) --grpc_python_out=$(1) --mypy_grpc_out=quiet:$(1) $(SERVICES)
endef

# A stamp is written last: an installation that was cut short is made again.
$(RUN): requirements/build.txt requirements/run.txt pyproject.toml
	@[ -n "$(PYTHON)" ] || { echo "python3 is not installed: Trestle needs Python 3.11 or later" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "$(PYTHON) is $$($(PYTHON) -V 2>/dev/null || echo not there); Trestle needs Python 3.11 or later:" \
	  "make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"  >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
	  || { echo "$(PYTHON) cannot make environments; on Debian and Ubuntu: apt install $$($(PYTHON) -c \
	  'import sys; print("python%d.%d-venv" % sys.version_info[:2])')" >&2; exit 1; }
	@echo "installing what Trestle needs into $(VENV) ..."
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(PIP) --require-hashes -r requirements/build.txt -r requirements/run.txt
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV): $(RUN) requirements/dev.txt
	@echo "installing what checks and tests need ..."
	@$(PIP) --require-hashes -r requirements/dev.txt
	@touch $@
