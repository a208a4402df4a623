# Every operation of celray; `make` alone lists them. Needs git, make and Python >= 3.11 with venv.
# What an operation does stands in site.yml and playbooks/; this file only prepares and calls.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS   += --no-print-directory

# --- environments, each made from its locks when they change, never by hand
VENV  := .venv
DEV   := .venv-dev
TASKS := .venv-tasks
RAY   := .venv-ray
PEERS := .venv-peers
UV := .venv-uv
MLFLOW := .venv-mlflow
FILES := .venv-files
CLIENT := .venv-client
# Stock Celery clients of other versions, for one test.
OLD := $(patsubst tasks_pkg/tests/clients/%.lock,.venv-%,$(wildcard tasks_pkg/tests/clients/*.lock))
LOCKS := tasks_pkg/requirements

export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
# Ansible refuses to start in a locale that is not UTF-8; a bare machine often has none.
export LC_ALL := C.UTF-8

# --- wrong use stops here with one line, before anything is made or run (.ci/operate)
# Variables of the command line are no part of the environment yet, so they are handed over.
python := $(firstword $(PYTHON) python3)
given  := $(foreach v,$(.VARIABLES),$(if $(filter command,$(origin $v)),$v))
quoted  = '$(subst ','"'"',$1)'
ifneq ($(strip $(given)$(MAKECMDGOALS)),)
  wrong := $(shell command -v $(call quoted,$(python)) >/dev/null || exit 0; \
    env $(foreach v,$(given),$(call quoted,$v=$($v))) $(call quoted,$(python)) -S .ci/operate \
    --check $(call quoted,$(given)) $(call quoted,$(MAKECMDGOALS)))
  ifneq ($(wrong),)
    $(error $(wrong))
  endif
endif

.PHONY: help
help:
	@awk -f .ci/help.awk Makefile

##@ Deploy
deploy:      ## bring the service up, or up to date; a second run changes nothing
update:      ## deploy, worker by worker: no queue is without a worker, a broken version stays out
scale:       ## set a worker's size: WORKER=data CONCURRENCY=8 REPLICAS=2; kept in the inventory
rollback:    ## an earlier version, worker by worker, nothing built: TO=7 (default: the one before)
check:       ## preflight and the exact difference; changes nothing on the host
diff:        ## the same in short, one line per container, image and file; TO=7: of a rollback

##@ Look
status:      ## containers, health, queue lengths, workers, Ray nodes, versions
verify:      ## use every part for real; report in reports/<date>-<host>.{md,json}
logs:        ## the last log lines of one service: WHAT=worker-ml, TAIL=200; FOLLOW=1 goes on
history:     ## what was done, by whom, from where, with which code; versions; who holds the lock
credentials: ## KEY=VALUE lines and nothing else; FOR=submitter: those to hand on to who only sends tasks

##@ Use
client:      ## the command line `celray` and your credentials, mode 0600

##@ Act
restart:     ## restart one service, gracefully: WHAT=worker-ml
shell:       ## a shell in one service: WHAT=worker-ml; RUN=python: Python with the app
unlock:      ## break a lock that a run has left behind: LOCK=name, which that run's message has
destroy:     ## remove containers and images; data stays unless PURGE=yes; asks first

##@ Develop
.PHONY: lint test test-fast test-long chaos bench
lint: $(DEV)/stamp $(RAY)/stamp ## ansible-lint, yamllint, ruff, mypy, typos, hadolint, shellcheck, luacheck
	@.ci/lint
test-fast: $(DEV)/stamp $(TASKS)/stamp $(RAY)/stamp $(OLD:=/stamp) ## unit tests: templates, modules, tasks (real Redis, real Ray), no container
	@.ci/test-fast
test: $(VENV)/stamp test-fast ## test-fast, then whole deployments in container hosts (molecule)
	@.ci/test-hosts
test-long: $(VENV)/stamp $(DEV)/stamp $(TASKS)/stamp $(RAY)/stamp $(MLFLOW)/stamp $(FILES)/stamp ## what takes too long for each change: MLflow's own server, each new machine, data sets, hours of fuzzing
	@.ci/test-long
chaos: $(VENV)/stamp $(TASKS)/stamp ## faults under load, counted, into docs/reliability.md: CHAOS="--rounds 3", CHAOS=--deployed
	@.ci/chaos --write $(CHAOS)
bench: $(VENV)/stamp $(DEV)/stamp $(TASKS)/stamp $(PEERS)/stamp ## measure deploys, code updates and task round trips into docs/benchmarks.md
	@$(DEV)/bin/python -m tests.bench $(BENCH)

##@ Extend
new-tasks:   ## a task package of your own: NAME=word-count, DEST=../word-count

# What each of these runs, and with which of its variables, stands in .ci/operate.
operations := deploy update scale rollback check diff status verify logs history credentials client \
  restart shell unlock destroy
.PHONY: $(operations) new-tasks
$(operations): $(VENV)/stamp
	@$(VENV)/bin/python .ci/operate $@
new-tasks: $(DEV)/stamp
	@$(DEV)/bin/python .ci/operate $@

client: $(CLIENT)/bin/celray
$(CLIENT)/bin/celray: $(CLIENT)/stamp tasks_pkg/pyproject.toml
	@$(CLIENT)/bin/python -m pip install --quiet --disable-pip-version-check --no-index --no-deps \
	  --no-build-isolation --editable tasks_pkg
	@touch $@

##@ Environments
.PHONY: venv lock clean
venv: $(VENV)/stamp ## make the control environment now (every operation does when it must)
	@:
lock: $(DEV)/stamp ## renew every lock from its .in file; UPGRADE=1 takes the newest versions
	@.ci/lock
clean: ## remove environments and caches; the deployment is not touched
	@rm -rf $(VENV) $(DEV) $(TASKS) $(RAY) $(CLIENT) $(PEERS) $(MLFLOW) $(FILES) $(UV) $(OLD) .ansible
	@find . -name __pycache__ -o -name .pytest_cache -o -name .mypy_cache -o -name .ruff_cache \
	  -o -name .hypothesis | xargs rm -rf

# A stamp names the clone that it was made in: an environment that was moved is made anew.
# (as one text: a path may hold spaces, and words in any order are another path)
stale = $(if $(subst x$(CURDIR)x,,x$(file <$1/stamp)x),FORCE)
$(VENV)/stamp: requirements.txt $(call stale,$(VENV))
$(DEV)/stamp: requirements-dev.txt $(call stale,$(DEV))
$(CLIENT)/stamp: $(LOCKS)/client.lock $(call stale,$(CLIENT))
$(PEERS)/stamp: tests/bench/peers.lock $(call stale,$(PEERS))
$(MLFLOW)/stamp: $(LOCKS)/mlflow.lock $(call stale,$(MLFLOW))
$(FILES)/stamp: $(LOCKS)/files.lock $(call stale,$(FILES))
$(foreach v,$(OLD),$(eval $v/stamp: $(v:.venv-%=tasks_pkg/tests/clients/%.lock) $(call stale,$v)))
$(TASKS)/stamp: $(LOCKS)/worker.lock $(LOCKS)/test.lock $(call stale,$(TASKS))
$(RAY)/stamp: $(addprefix $(LOCKS)/,ray.lock worker.lock test.lock test_ray.lock) $(call stale,$(RAY))
.%/stamp:
	@command -v git >/dev/null || { echo "celray: git is missing: apt-get install -y git, as root" >&2; exit 1; }
	@.ci/venv $(@D) $(filter-out FORCE,$^)
.PHONY: FORCE
FORCE:
