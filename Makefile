# Every operation of celray; `make` alone lists them. Needs git, make and Python >= 3.11 with venv.
# What an operation does stands in site.yml and playbooks/; this file only prepares and calls.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS   += --no-print-directory

# --- what an operator may set (by argument or environment)
HOST     ?=
SSH_USER ?=
ENV      ?= single
WHAT     ?=
TAIL     ?= 200
FOLLOW   ?=
RUN      ?=
TO       ?=
LOCK     ?=
CONFIRM  ?=
WORKER   ?=
CONCURRENCY ?=
REPLICAS ?=
PURGE    ?=
ARGS     ?=
FOR      ?=
BENCH    ?=
CHAOS    ?=
NAME     ?=
DEST     ?= ../$(NAME)
# Paths reach the shell in its environment, so that they may hold spaces, brackets and quotes.
export DEST
export HOST SSH_USER ENV

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

PLAY = $(VENV)/bin/ansible-playbook -i inventory/$(ENV) $(addprefix -u ,$(SSH_USER)) $(ARGS)

# --- wrong use stops here, with one line
# (HOST given but empty is a script's unset variable, and would mean this machine)
ifeq ($(origin HOST)$(HOST),command line)
  $(error HOST= is empty: name the machine, or leave HOST out for this machine)
endif
comma := ,
odd   := ; & | < > ( ) [ ] { } ` ' " \ * ? ! $$ $(comma)
odd_in = $(strip $(foreach c,$(odd),$(findstring $c,$1)))
ifneq ($(findstring @,$(HOST)),)
  $(error HOST=$(HOST): give the user by itself, as in HOST=10.0.0.84 SSH_USER=deploy)
endif
ifneq ($(filter-out 0 1,$(words $(HOST)))$(call odd_in,$(HOST)),)
  $(error HOST="$(HOST)" is not one host name or address, as in HOST=10.0.0.84; for several hosts write an inventory and use ENV=name)
endif
ifneq ($(filter-out 0 1,$(words $(SSH_USER)))$(call odd_in,$(SSH_USER)),)
  $(error SSH_USER="$(SSH_USER)" is not one user name, as in SSH_USER=deploy)
endif
ifeq ($(strip $(ENV)),)
  $(error ENV= is empty, and would mean all inventories together: name one of $(notdir $(patsubst %/.,%,$(wildcard inventory/*/.))), or leave ENV out for inventory/single)
endif
ifeq ($(wildcard inventory/$(ENV)/.),)
  $(error ENV="$(ENV)": there is no inventory/$(ENV); there is: $(notdir $(patsubst %/.,%,$(wildcard inventory/*/.))))
endif
# (an empty or unknown WHAT is answered with the list of what is there)
ifneq ($(filter logs restart shell,$(MAKECMDGOALS)),)
  ifneq ($(filter-out 0 1,$(words $(WHAT)))$(call odd_in,$(WHAT)),)
    $(error WHAT="$(WHAT)": name one service, as in make $(firstword $(MAKECMDGOALS)) WHAT=worker-ml; make status lists them)
  endif
endif
ifneq ($(filter rollback diff,$(MAKECMDGOALS)),)
  ifneq ($(shell printf %s '$(subst ','"'"',$(TO))' | tr -d 0-9),)
    $(error TO="$(TO)" is not the number of a version, as in make $(firstword $(MAKECMDGOALS)) TO=7; make history lists them)
  endif
endif
ifneq ($(filter unlock,$(MAKECMDGOALS)),)
  ifneq ($(filter-out 0 1,$(words $(LOCK)))$(call odd_in,$(LOCK)),)
    $(error LOCK="$(LOCK)" is not the name of a lock; make history says which is held)
  endif
endif
ifneq ($(filter-out 1 yes,$(FOLLOW)),)
  $(error FOLLOW="$(FOLLOW)": FOLLOW=1 goes on with the log, and nothing else is known)
endif
ifneq ($(filter-out python,$(RUN)),)
  $(error RUN="$(RUN)": RUN=python is Python with the app; without RUN it is a shell)
endif
ifneq ($(filter logs history,$(MAKECMDGOALS)),)
  ifneq ($(words $(TAIL))$(shell printf %s '$(subst ','"'"',$(TAIL))' | tr -d 0-9),1)
    $(error TAIL="$(TAIL)" is not a number of lines)
  endif
endif
ifneq ($(filter scale,$(MAKECMDGOALS)),)
  ifneq ($(words $(WORKER))$(call odd_in,$(WORKER)),1)
    $(error WORKER="$(WORKER)": name one worker of the catalogue, as in make scale WORKER=data CONCURRENCY=8)
  endif
  ifneq ($(shell printf %s '$(subst ','"'"',$(CONCURRENCY)$(REPLICAS))' | tr -d 0-9)$(if $(CONCURRENCY)$(REPLICAS),,none),)
    $(error CONCURRENCY="$(CONCURRENCY)" REPLICAS="$(REPLICAS)": give one of them, or both, as whole numbers)
  endif
endif
ifneq ($(filter-out yes no,$(CONFIRM) $(PURGE)),)
  $(error CONFIRM and PURGE take yes or no, not "$(filter-out yes no,$(CONFIRM) $(PURGE))")
endif
ifneq ($(filter-out operator submitter,$(FOR)),)
  $(error FOR="$(FOR)": make credentials takes FOR=operator or FOR=submitter)
endif
ifneq ($(filter new-tasks,$(MAKECMDGOALS)),)
  ifneq ($(words $(NAME))$(call odd_in,$(NAME)),1)
    $(error NAME="$(NAME)": name the package, as in make new-tasks NAME=word-count)
  endif
  ifeq ($(strip $(DEST)),)
    $(error DEST="$(DEST)" is not one directory, as in DEST=../word-count)
  endif
endif
ifneq ($(HOST),)
  ifeq ($(shell command -v ssh),)
    $(error HOST=$(HOST) is reached over SSH and there is no ssh here: apt-get install -y openssh-client, as root)
  endif
endif

.PHONY: help
help:
	@awk -f .ci/help.awk Makefile

##@ Deploy
.PHONY: deploy update scale rollback check diff
deploy: $(VENV)/stamp ## bring the service up, or up to date; a second run changes nothing
	@$(PLAY) site.yml
update: $(VENV)/stamp ## deploy, worker by worker: no queue is without a worker, a broken version stays out
	@$(PLAY) site.yml -e '{"celery_worker_rolling": true}'
scale: $(VENV)/stamp ## set a worker's size: WORKER=data CONCURRENCY=8 REPLICAS=2; kept in the inventory
	@$(PLAY) playbooks/scale.yml -e '{"worker": "$(WORKER)", "concurrency": "$(CONCURRENCY)", "replicas": "$(REPLICAS)"}'
rollback: $(VENV)/stamp ## an earlier version, worker by worker, nothing built: TO=7 (default: the one before)
	@$(PLAY) playbooks/rollback.yml -e to=$(TO)
check: $(VENV)/stamp ## preflight and the exact difference; changes nothing on the host
	@$(PLAY) site.yml --check --diff
diff: $(VENV)/stamp ## the same in short, one line per container, image and file; TO=7: of a rollback
	@CELRAY_SHORT=1 $(PLAY) $(if $(TO),playbooks/rollback.yml -e to=$(TO),site.yml) --check

##@ Look
.PHONY: status verify logs history credentials
status: $(VENV)/stamp ## containers, health, queue lengths, workers, Ray nodes, versions
	@$(PLAY) playbooks/status.yml
verify: $(VENV)/stamp ## use every part for real; report in reports/<date>-<host>.{md,json}
	@$(PLAY) playbooks/verify.yml
logs: $(VENV)/stamp ## the last log lines of one service: WHAT=worker-ml, TAIL=200; FOLLOW=1 goes on
	@$(if $(FOLLOW),.ci/attach $(PLAY) playbooks/attach.yml -e do=follow,CELRAY_RAW=1 \
	  $(PLAY) playbooks/logs.yml) -e what=$(WHAT) -e lines=$(TAIL)
history: $(VENV)/stamp ## what was done, by whom, from where, with which code; versions; who holds the lock
	@CELRAY_RAW=1 $(PLAY) playbooks/history.yml -e lines=$(TAIL)
credentials: $(VENV)/stamp ## KEY=VALUE lines and nothing else; FOR=submitter: those to hand on to who only sends tasks
	@CELRAY_RAW=1 $(PLAY) playbooks/credentials.yml$(if $(FOR), -e credentials_for=$(FOR))

##@ Use
.PHONY: client
client: $(VENV)/stamp $(CLIENT)/bin/celray ## the command line `celray` and your credentials, mode 0600
	@CELRAY_RAW=1 .ci/client "$$PWD/$(CLIENT)/bin/celray" $(PLAY) playbooks/credentials.yml
$(CLIENT)/bin/celray: $(CLIENT)/stamp tasks_pkg/pyproject.toml
	@$(CLIENT)/bin/python -m pip install --quiet --disable-pip-version-check --no-index --no-deps \
	  --no-build-isolation --editable tasks_pkg
	@touch $@

##@ Act
.PHONY: restart shell unlock destroy
restart: $(VENV)/stamp ## restart one service, gracefully: WHAT=worker-ml
	@$(PLAY) playbooks/restart.yml -e what=$(WHAT)
shell: $(VENV)/stamp ## a shell in one service: WHAT=worker-ml; RUN=python: Python with the app
	@.ci/attach $(PLAY) playbooks/attach.yml -e do=$(or $(RUN),shell) -e what=$(WHAT)
unlock: $(VENV)/stamp ## break a lock that a run has left behind: LOCK=name, which that run's message has
	@$(PLAY) playbooks/unlock.yml -e lock=$(LOCK)
destroy: $(VENV)/stamp ## remove containers and images; data stays unless PURGE=yes; asks first
	@confirm="$(CONFIRM)"; \
	if [ "$$confirm" != yes ] && [ -t 0 ]; then \
	  read -r -p "Remove celray from $(or $(HOST),this machine)$(if $(filter yes,$(PURGE)), AND ALL ITS DATA)? [yes/no] " confirm; \
	fi; \
	if [ "$$confirm" != yes ]; then \
	  echo "celray: nothing was removed; to go on: make destroy CONFIRM=yes" >&2; exit 2; \
	fi; \
	$(PLAY) playbooks/destroy.yml -e confirm=yes -e purge=$(or $(PURGE),no)

##@ Develop
.PHONY: lint test test-fast test-long chaos bench
lint: $(DEV)/stamp $(RAY)/stamp ## ansible-lint, yamllint, ruff, mypy, hadolint, shellcheck
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
.PHONY: new-tasks
new-tasks: $(DEV)/stamp ## a task package of your own: NAME=word-count, DEST=../word-count
	@dest=$$(realpath -m -- "$$DEST"); \
	if [ -n "$$(ls -A -- "$$dest" 2>/dev/null)" ] || [ -f "$$dest" ]; then \
	  printf 'celray: DEST=%s is there already; name a directory that is not\n' "$$DEST" >&2; exit 2; fi; \
	said=$$($(DEV)/bin/copier copy --quiet --defaults --data name=$(NAME) --data "celray=$$PWD" \
	  tasks_pkg/template "$$dest" 2>&1) || \
	{ printf 'celray: %s\n' "$$(printf '%s\n' "$$said" | tail -n 1 | sed 's/^[A-Za-z]*Error: //')" >&2; exit 2; }
	@printf '==> $(NAME) is in %s: its README.md says what to add to the inventory; make test (there) runs its tests\n' "$$DEST"

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
