# `make` lists what there is. Every target sets up .venv first, where that is not done.

PYTHON ?= python3
FAULTS ?=
EXAMPLE ?= python
PAIRS ?= 31
# An environment of samconfig.toml.
ENV ?= default
VENV := .venv
BIN := $(VENV)/bin
# Tools find each other, and `sam build` finds a Python with pip, in the virtual environment.
export PATH := $(CURDIR)/$(BIN):$(PATH):$(CURDIR)/$(VENV)/aws/bin
export SAM_CLI_TELEMETRY := 0

.DEFAULT_GOAL := help
# The Lambda runtime client is for Linux.
RUNTIME := $(if $(filter Linux,$(shell uname)),$(VENV)/runtime/installed)
NODE_MODULES := examples/node/node_modules/installed

.PHONY: help run bench simulate example test check format build deploy rotate logs lock

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/installed ## rotate once on this machine and tell the story; FAULTS="503 429 timeout" plays faults
	@PYTHONPATH=functions python -m local.run $(FAULTS)

bench: build $(RUNTIME) ## compare the cost of a cold rotation with two scripts; WRITE=1 updates docs/benchmark.md
	@PYTHONPATH=functions python -m studies.benchmark $(PAIRS)

simulate: $(VENV)/installed ## simulate outages in the time of minutes, and write docs/outages.md
	@PYTHONPATH=functions python -m studies.outages

example: $(VENV)/installed $(if $(filter shell,$(EXAMPLE)),$(VENV)/aws/installed) $(if $(filter node,$(EXAMPLE)),$(NODE_MODULES)) ## run a consumer against embedded parts: EXAMPLE=python, powertools, lambda, node or shell
	@PYTHONPATH=functions python -m local.example $(EXAMPLE)

test: $(VENV)/installed $(RUNTIME) $(VENV)/aws/installed $(if $(shell command -v npm),$(NODE_MODULES)) ## run all tests, with the coverage of functions/
	pytest --cov --cov-report=term --numprocesses=auto --dist=loadgroup

check: $(VENV)/installed $(if $(shell command -v npm),$(NODE_MODULES)) ## check form, types and the template; changes nothing
	ruff format --check .
	ruff check .
	mypy
	cfn-lint template.yaml examples/lambda/template.yaml
	sam validate --lint
	$(if $(shell command -v npm),cd examples/node && npm run --silent check)

format: $(VENV)/installed ## mend what can be mended without thought
	ruff format .
	ruff check --fix .

build: $(VENV)/installed ## package the function for Lambda into .aws-sam/build
	sam build

deploy: build ## deploy the stack, guided the first time; ENV=staging for another environment
	sam deploy --config-env $(ENV) $(shell sed -n '/^\[$(ENV).deploy.parameters\]/,/^\[/p' samconfig.toml \
		| grep -q parameter_overrides || echo --guided)

rotate: $(VENV)/installed ## replace the token of the deployed stack now
	sam remote invoke RotateTokenFunction --event-file events/rotate_now.json --config-env $(ENV)

logs: $(VENV)/installed ## follow the log of the deployed function
	sam logs --name RotateTokenFunction --tail --config-env $(ENV)

lock: $(VENV)/installed ## write the requirement files anew, with the newest versions
	uv pip compile $(LOCK) --group function --python-version 3.13 \
		--python-platform aarch64-manylinux2014 \
		--output-file functions/requirements.txt
	uv pip compile $(LOCK) --group dev --python-version 3.11 --universal \
		--constraint functions/requirements.txt --output-file requirements-dev.txt
	uv pip compile $(LOCK) --group runtime --python-version 3.11 --universal \
		--output-file requirements-runtime.txt
	uv pip compile $(LOCK) --group aws --python-version 3.11 --universal \
		--output-file requirements-aws.txt

LOCK := --quiet --upgrade --generate-hashes --no-annotate --custom-compile-command 'make lock'
INSTALL := install --quiet --disable-pip-version-check --no-deps --require-hashes

$(VENV)/installed: requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.13 ...")'
	@echo 'Setting up $(VENV): this takes a minute or two, once.'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip $(INSTALL) -r requirements-dev.txt
	@touch $@

$(NODE_MODULES): examples/node/package-lock.json
	@cd examples/node && npm ci --silent --no-audit --no-fund
	@touch $@

# Of the Python that runs in Lambda, or of this one where the machine lacks that.
$(VENV)/runtime/installed: requirements-runtime.txt | $(VENV)/installed
	@PYENV_VERSION=3.13 python3.13 -m venv --without-pip $(VENV)/runtime 2>/dev/null \
		|| python -m venv --without-pip $(VENV)/runtime
	@python -m pip --python $(VENV)/runtime/bin/python $(INSTALL) -r $<
	@touch $@

$(VENV)/%/installed: requirements-%.txt | $(VENV)/installed
	@python -m venv $(VENV)/$*
	@$(VENV)/$*/bin/python -m pip $(INSTALL) -r $<
	@touch $@
