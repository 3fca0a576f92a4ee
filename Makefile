# `make` lists the targets. Each one sets up .venv first, if that has not been done.

# Without a path: if this is /bin/sh or /bin/bash, the make of macOS runs a simple line without a shell, and then does
# not look for the program in the PATH below.
SHELL := sh
PYTHON ?= python3
FAULTS :=
EXAMPLE := python
ROUNDS := 31
# An environment of samconfig.toml.
ENV := default
# Programs get these values as they were given: neither make nor the shell runs anything in them.
unexport FAULTS EXAMPLE ROUNDS ENV
quoted = '$(subst ','\'',$(value $1))'
VENV := .venv
BIN := $(VENV)/bin
# If PYTHON is given, it is not looked up in the PATH below, which begins with .venv.
ifneq ($(origin PYTHON),file)
override PYTHON := $(or $(shell command -v "$(PYTHON)"),$(PYTHON))
endif
# So that the tools, pip for `sam build`, and the AWS CLI are the project's own.
export PATH := $(CURDIR)/$(BIN):$(CURDIR)/$(VENV)/aws/bin:$(PATH)
export SAM_CLI_TELEMETRY := 0
# Otherwise, uv rejects a proxy that inspects TLS, even if the system has its certificate.
CERTIFICATES := /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt \
	/etc/ssl/ca-bundle.pem /etc/ssl/cert.pem
export UV_SYSTEM_CERTS ?= $(if $(wildcard $(CERTIFICATES)),true,false)
# The SAM CLI and boto3 do not read AWS_REGION.
ifneq ($(AWS_REGION),)
export AWS_DEFAULT_REGION ?= $(AWS_REGION)
endif

.DEFAULT_GOAL := help
# The Lambda runtime client runs on Linux only.
RUNTIME := $(if $(filter Linux,$(shell uname)),$(VENV)/runtime/installed)
NODE_MODULES := examples/node/node_modules/installed
OLDEST_NODE := 20
IS_TOO_OLD := parseInt(process.versions.node) < $(OLDEST_NODE)
NODE := $(shell command -v npm > /dev/null && node -e 'process.exit(+($(IS_TOO_OLD)))' && echo found)

# What would end a command later is checked before anything is installed.
SETTINGS := PYTHON FAULTS EXAMPLE ROUNDS WRITE ENV
GIVEN := $(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(name)))
$(if $(filter-out $(SETTINGS),$(GIVEN)),$(error unknown setting: $(filter-out $(SETTINGS),$(GIVEN)); \
	choose from $(SETTINGS)))

ifneq ($(filter example,$(MAKECMDGOALS)),)
EXAMPLES := python lambda node shell
$(if $(filter $(EXAMPLES),$(EXAMPLE)),,$(error unknown example: $(EXAMPLE); choose from $(EXAMPLES)))
MISSING_node := $(if $(NODE),,Node.js $(OLDEST_NODE) or newer, with npm)
MISSING_shell := $(foreach name,jq curl,$(if $(shell command -v $(name)),,$(name)))
$(if $(strip $(MISSING_$(EXAMPLE))),$(error missing for EXAMPLE=$(EXAMPLE): $(MISSING_$(EXAMPLE))))
endif

.PHONY: help run example test check format build deploy configure status rotate logs bench simulate lock

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { gsub("[;:] ", "\n" sprintf("%17s", ""), $$2); \
		printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/installed ## run one rotation on this machine; FAULTS="503 429 timeout" simulates failures
	@PYTHONPATH=functions python -m local.run $(foreach fault,$(value FAULTS),$(call quoted,fault))

example: $(VENV)/installed $(if $(filter shell,$(EXAMPLE)),$(VENV)/aws/installed) $(if $(filter node,$(EXAMPLE)),$(NODE_MODULES)) ## run a consumer on this machine; EXAMPLE=python, lambda, node or shell
	@PYTHONPATH=functions python -m local.example $(call quoted,EXAMPLE)

test: $(VENV)/installed $(RUNTIME) $(VENV)/aws/installed $(if $(NODE),$(NODE_MODULES)) ## run all tests; fails below full coverage of functions/
	@echo 'Running all tests: this takes about three minutes.'
	pytest --cov --cov-report=term --numprocesses=auto --dist=loadgroup

check: $(VENV)/installed $(if $(NODE),$(NODE_MODULES)) ## check format, style, types and the template; changes nothing
	ruff format --check .
	ruff check .
	mypy
	cfn-lint template.yaml examples/lambda/template.yaml
	sam validate --lint
ifneq ($(NODE),)
	cd examples/node && npm run --silent check
else
	@echo 'Not checked: examples/node, which needs Node.js $(OLDEST_NODE) or newer, with npm'
	@[ -z "$$CI" ]
endif

format: $(VENV)/installed ## fix format and style where possible
	ruff format .
	ruff check --fix .

build: $(VENV)/installed ## build the package for Lambda in .aws-sam/build
	sam build
	@echo 'Next: make configure (asks for settings) or make deploy (uses the saved ones)'

# The status follows, whatever the rotation says; without $(MAKE), which would run under `make -n` too.
define ROTATE_AND_SHOW_STATUS
@failed=; PYTHONPATH=functions python -m operations.rotate $(call quoted,ENV) --after-deployment || failed=1; \
	PYTHONPATH=functions python -m operations.status $(call quoted,ENV) && [ -z "$$failed" ]
endef

deploy: $(VENV)/installed ## deploy again with the settings of the last `make configure`
	@PYTHONPATH=functions python -m operations.preflight $(call quoted,ENV)
	sam build
	sam deploy --config-env $(call quoted,ENV) --no-confirm-changeset
	$(ROTATE_AND_SHOW_STATUS)

configure: $(VENV)/installed ## ask for the settings and deploy the stack: the first time, or to change a setting
	@PYTHONPATH=functions python -m operations.preflight $(call quoted,ENV) --ask
	sam build
	sam deploy --guided --config-env $(call quoted,ENV)
	$(ROTATE_AND_SHOW_STATUS)

status: $(VENV)/installed ## show the state of the deployed stack, and what to do
	@PYTHONPATH=functions python -m operations.status $(call quoted,ENV)

rotate: $(VENV)/installed ## replace the token of the deployed stack now
	@PYTHONPATH=functions python -m operations.rotate $(call quoted,ENV)

logs: $(VENV)/installed ## follow the log of the deployed function, from three hours back
	@PYTHONPATH=functions python -m operations.logs $(call quoted,ENV)

bench: $(VENV)/installed $(RUNTIME) ## compare a rotation's cost with two scripts; WRITE=1 updates docs/benchmark.md
	@PYTHONPATH=functions python -m studies.benchmark $(call quoted,ROUNDS)

simulate: $(VENV)/installed ## simulate outages; WRITE=1 updates docs/outages.md
	@PYTHONPATH=functions python -m studies.outages

lock: $(VENV)/installed ## update the requirement files to the newest versions
	uv pip compile $(LOCK) --group function --python-version 3.13 \
		--python-platform aarch64-manylinux2014 \
		--output-file functions/requirements.txt
	uv pip compile $(LOCK) --group dev --python-version 3.11 --universal \
		--constraint functions/requirements.txt --output-file requirements-dev.txt
	uv pip compile $(LOCK) --group runtime --python-version 3.11 --universal \
		--output-file requirements-runtime.txt
	uv pip compile $(LOCK) --group aws --python-version 3.11 --universal \
		--output-file requirements-aws.txt

# No code of a new package runs, and no Python is downloaded to run it.
LOCK := --quiet --upgrade --no-build --no-python-downloads --generate-hashes --no-annotate \
	--custom-compile-command 'make lock'
INSTALL := uv pip install --quiet --no-deps --require-hashes

# In another folder, or with another Python, .venv no longer works and is rebuilt, and so it is if a PYTHON of another
# version is given. Without PYTHON, it keeps its version.
PACKAGES := import sysconfig; print(sysconfig.get_path("purelib"))
VERSION := import sysconfig; print("python" + sysconfig.get_python_version())
INSTALLED := $(shell cat $(VENV)/installed 2> /dev/null)
ifneq ($(origin PYTHON),file)
GIVEN_VERSION := $(shell "$(PYTHON)" -c '$(VERSION)' 2> /dev/null)
$(if $(GIVEN_VERSION),,$(error PYTHON=$(PYTHON) does not run; choose one of Python 3.11 to 3.14))
endif
ifneq "$(shell $(BIN)/python -c '$(PACKAGES)' 2> /dev/null) $(GIVEN_VERSION)" \
	"$(INSTALLED) $(findstring $(GIVEN_VERSION),$(INSTALLED))"
.PHONY: $(VENV)/installed
endif

# The version of uv and its hashes are those in the requirement file.
$(VENV)/installed: requirements-dev.txt
	@"$(PYTHON)" -c "$$CHECK_PYTHON"
	@echo 'Setting up $(VENV): this takes about a minute, only once.'
	@"$(PYTHON)" -m venv --clear $(VENV)
	@sed -n '/^uv==/,/[^\]$$/p' $< | $(BIN)/python -m pip install --quiet --require-hashes -r /dev/stdin
	@$(INSTALL) --python $(BIN)/python -r $<
	@$(BIN)/python -c '$(PACKAGES)' > $@

define CHECK_PYTHON
import sys
if not (3, 11) <= sys.version_info < (3, 15):
    sys.exit(f'$(PYTHON) is Python {sys.version.split()[0]}, but 3.11 to 3.14 is required; specify another one, such as: make $(MAKECMDGOALS) PYTHON=python3.13')
try:
    import ensurepip, venv
except ImportError:
    sys.exit('$(PYTHON) cannot create virtual environments; on Debian and Ubuntu: apt install $(notdir $(PYTHON))-venv')
endef
export CHECK_PYTHON

$(NODE_MODULES): examples/node/package-lock.json
	@cd examples/node && npm ci --loglevel=error --no-audit --no-fund
	@touch $@

# With Python 3.13, as in Lambda, or with the Python of .venv if the machine does not have 3.13.
$(VENV)/runtime/installed: requirements-runtime.txt $(VENV)/installed
	@PYENV_VERSION=3.13 python3.13 -m venv --without-pip $(VENV)/runtime 2> /dev/null \
		|| python -m venv --without-pip $(VENV)/runtime
	@$(INSTALL) --compile-bytecode --python $(VENV)/runtime/bin/python -r $<
	@touch $@

$(VENV)/aws/installed: requirements-aws.txt $(VENV)/installed
	@python -m venv --without-pip $(VENV)/aws
	@$(INSTALL) --python $(VENV)/aws/bin/python -r $<
	@touch $@
