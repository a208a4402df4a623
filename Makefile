# Every operation of celray; `make` alone lists them. Needs git, make and Python >= 3.11 with venv.
# site.yml and playbooks/ define what an operation does; this file only prepares and calls them.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS   += --no-print-directory

# --- environments, each rebuilt from its locks when they change, never by hand
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
# Images of containers often set it. Each start of a program then compiles all that it imports.
unexport PYTHONDONTWRITEBYTECODE

# --- wrong use stops here with one line, before anything is built or run (.ci/operate)
# Variables of make's command line are not yet in the environment, so they are passed by name.
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
deploy:      ## install the service or update it; a second run changes nothing
update:      ## deploy one worker at a time: every queue keeps a worker, a broken version is not rolled out
scale:       ## set a worker's size: WORKER=data CONCURRENCY=8 REPLICAS=2; saved in the inventory
rollback:    ## restore an earlier version, one worker at a time, nothing built: TO=7 (default: the one before)
check:       ## run preflight and show what a deploy would change; changes nothing on the host
diff:        ## the same in short, one line per container, image and file; TO=7: of a rollback

##@ Inspect
status:      ## containers, health, queue lengths, workers, Ray nodes, versions
verify:      ## run a real task through every part; report in reports/<date>-<host>.{md,json}
queues:      ## what waits in each queue, since when, and who consumes it; PURGE=data CONFIRM=yes removes it
inspect:     ## running, reserved and scheduled tasks of every worker, in one table
logs:        ## the last log lines of one service: WHAT=worker-ml, TAIL=200; FOLLOW=1 follows it; LIMIT=host
history:     ## past operations with user, machine and code version; stored versions; the lock's holder
credentials: ## print only KEY=VALUE lines; FOR=submitter: only those for clients that send tasks

##@ Use
client:      ## install the command line `celray` and save your credentials, mode 0600

##@ Act
restart:     ## restart one service, gracefully, one host after the other: WHAT=worker-ml; LIMIT=host
drain:       ## workers of a host finish what runs and take no more: LIMIT=worker-1, WAIT=600, FORCE=yes
undrain:     ## they consume their queues again: LIMIT=worker-1; a deploy does so too
stop:        ## stop the containers in their order, gracefully: LIMIT=worker-1; nothing is removed
start:       ## start what make stop has stopped: LIMIT=worker-1
shell:       ## a shell in one service: WHAT=worker-ml; RUN=python: Python with the app; LIMIT=host
unlock:      ## remove the lock that a killed run left behind: LOCK=name, as in the message
destroy:     ## remove containers and images; data stays unless PURGE=yes; asks first

##@ Develop
.PHONY: lint test test-fast test-long chaos bench
lint: $(DEV)/stamp $(RAY)/stamp ## ansible-lint, yamllint, ruff, mypy, typos, hadolint, shellcheck, luacheck
	@.ci/lint
test-fast: $(DEV)/stamp $(TASKS)/stamp $(RAY)/stamp $(OLD:=/stamp) ## templates, modules, tasks on a real Redis; without what needs a Ray, a container or patience
	@.ci/test-code fast
test: $(VENV)/stamp $(DEV)/stamp $(TASKS)/stamp $(RAY)/stamp $(OLD:=/stamp) ## all of it: on a real Ray too, then whole deployments in container hosts (molecule)
	@.ci/test-code all
	@.ci/test-hosts
test-long: $(VENV)/stamp $(DEV)/stamp $(TASKS)/stamp $(RAY)/stamp $(MLFLOW)/stamp $(FILES)/stamp ## tests that take too long for each change: MLflow's own server, each new machine, data sets, hours of fuzzing
	@.ci/test-long
chaos: $(VENV)/stamp $(TASKS)/stamp ## faults under load, counted, into docs/reliability.md: CHAOS="--rounds 3", CHAOS=--deployed
	@.ci/chaos --write $(CHAOS)
bench: $(VENV)/stamp $(DEV)/stamp $(TASKS)/stamp $(PEERS)/stamp ## measure deploys, code updates and task round trips into docs/benchmarks.md
	@$(DEV)/bin/python -m tests.bench $(BENCH)

##@ Extend
new-tasks:   ## create a task package of your own: NAME=word-count, DEST=../word-count

# .ci/operate defines the command and the variables of each of these.
operations := deploy update scale rollback check diff status verify queues inspect logs history credentials \
  client restart drain undrain stop start shell unlock destroy
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
venv: $(VENV)/stamp ## build the control environment now (every operation does so when needed)
	@:
lock: $(DEV)/stamp ## renew every lock from its .in file; UPGRADE=1 takes the newest versions
	@.ci/lock
clean: ## remove environments and caches; the deployment is not touched
	@rm -rf $(VENV) $(DEV) $(TASKS) $(RAY) $(CLIENT) $(PEERS) $(MLFLOW) $(FILES) $(UV) $(OLD) .ansible
	@find . -name __pycache__ -o -name .pytest_cache -o -name .mypy_cache -o -name .ruff_cache \
	  -o -name .hypothesis | xargs rm -rf

# A stamp names the clone that it was made in: an environment that was moved is rebuilt.
# (compared as one text, because a path may contain spaces)
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
