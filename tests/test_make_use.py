"""Wrong use of make stops with one line before anything is looked at; examples harm nobody."""

from __future__ import annotations

import ipaddress
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from parts import REPO, load

operate: Any = load(".ci/operate")

#: Where an address is nobody's: RFC 5737 and RFC 3849.
DOCUMENTATION = [
    ipaddress.ip_network(text)
    for text in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
]


def make(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Return the commands that a target would run, without running them."""
    kept = {k: v for k, v in os.environ.items() if k not in operate.VARIABLES}
    return subprocess.run(
        ["make", "--dry-run", *words],
        cwd=REPO,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_variable_of_a_script_is_never_every_inventory(empty: str) -> None:
    """`make diff ENV=` took all inventories together."""
    for refused in (make("diff", f"ENV={empty}"), make("diff", ENV=empty)):
        assert refused.returncode != 0
        assert "ENV= is empty" in refused.stderr
        assert "single" in refused.stderr
    refused = make("diff", f"HOST={empty}")
    assert refused.returncode != 0
    assert "HOST= is empty" in refused.stderr or 'HOST=" "' in refused.stderr
    for operation in operate.OPERATIONS:
        with pytest.raises(operate.UseError, match="ENV= is empty"):
            operate.check([], [operation], {"ENV": empty})


@pytest.mark.parametrize("address", ["192.0.2.7", "gpu-7.example", "fd00::5", "2001:db8::1", "::1"])
def test_an_address_of_either_kind_is_one_host(address: str) -> None:
    operate.check(["HOST"], ["diff"], {"HOST": address})


#: Wrong use, and what is said about it; every variable has a line.
WRONG = [
    ("deploy HOST=root@10.0.0.84", "HOST=root@10.0.0.84: give the user by itself"),
    ("deploy HOST=10.0.0.84,10.0.0.85", "for several hosts write an inventory and use ENV=name"),
    ("deploy HOST=a\u00a0b", "is not one host name or address"),
    ("deploy HOST=-oProxyCommand=x", "is not one host name or address"),
    ("deploy HOST=10.0.0.84 SSH_USER=a;b", 'SSH_USER="a;b" is not one user name'),
    (
        "deploy ENV=nowhere",
        'ENV="nowhere": there is no inventory/nowhere; there is: cluster single',
    ),
    ("restart WHAT=a;b", "as in make restart WHAT=worker-ml; make status lists them"),
    ("rollback TO=last", "as in make rollback TO=7; make history lists them"),
    ("diff TO=-1", 'TO="-1" is not the number of a version'),
    ("unlock LOCK=a;b", 'LOCK="a;b" is not the name of a lock'),
    ("logs TAIL=all", 'TAIL="all" is not a number of lines'),
    ("history TAIL=", 'TAIL="" is not a number of lines'),
    ("logs FOLLOW=maybe", "FOLLOW=1 goes on with the log"),
    ("shell RUN=perl", "RUN=python is Python with the app"),
    ("scale CONCURRENCY=8", 'WORKER="": name one worker of the catalogue'),
    ("scale WORKER=data", "give one of them, or both, as whole numbers"),
    ("scale WORKER=data CONCURRENCY=8 REPLICAS=two", 'REPLICAS="two": give one of them'),
    ("destroy CONFIRM=y", 'CONFIRM takes yes or no, not "y"'),
    ("destroy CONFIRM=yes PURGE=all", 'PURGE takes yes or no, not "all"'),
    ("drain FORCE=1", 'FORCE takes yes or no, not "1"'),
    ("drain WAIT=soon", 'WAIT="soon" is not a number of seconds'),
    ("drain ENV=cluster", "make drain: name the hosts, as in make drain LIMIT=worker-1"),
    ("undrain ENV=cluster", "make undrain: name the hosts, as in make undrain LIMIT=worker-1"),
    ("stop LIMIT=worker-1,all;", "name hosts of the inventory, by commas"),
    ("deploy LIMIT=worker-1", "make deploy is about all hosts of the inventory; LIMIT is for logs"),
    ("queues PURGE=a;b CONFIRM=yes", 'PURGE="a;b": name one queue'),
    ("queues CONFIRM=yes", "name the queue too, as in make queues PURGE=data CONFIRM=yes"),
    ("credentials FOR=me", "FOR=operator or FOR=submitter"),
    ("new-tasks", 'NAME="": name the package'),
    ("new-tasks NAME=x DEST=", 'DEST="" is not one directory'),
    ("deploy ARGS=-e'x", "ARGS=-e'x: No closing quotation"),
]


@pytest.mark.parametrize(("words", "said"), WRONG, ids=[words for words, _ in WRONG])
def test_wrong_use_is_answered_with_the_way_out(words: str, said: str) -> None:
    """What make hands to .ci/operate; the next test has make itself."""
    goal, *given = words.split(" ")
    values = dict(word.split("=", 1) for word in given)
    with pytest.raises(operate.UseError) as refused:
        operate.check(values, [goal], values)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("words", "environment", "said"),
    [
        (["rollback", "TO=la st'\"`,\\"], {}, 'TO="la st\'"`,\\" is not the number of a version'),
        (["logs"], {"TAIL": "all"}, 'TAIL="all" is not a number of lines'),
        (["status", "logs", "WHAT=a;b"], {"WHAT": "redis"}, "as in make logs WHAT=worker-ml"),
        (["deploy", "SSH_USER=日 本"], {"LC_ALL": "C"}, 'SSH_USER="日 本" is not one user name'),
        (["HOST=a b"], {}, 'HOST="a b" is not one host name'),
    ],
)
def test_wrong_use_of_make_is_one_line_before_anything_runs(
    words: list[str], environment: dict[str, str], said: str
) -> None:
    done = make(*words, **environment)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_every_variable_of_an_operator_has_a_line_above() -> None:
    named = {name for words, _ in WRONG for name in re.findall(r" ([A-Z_]+)=", words)}
    assert named == operate.VARIABLES.keys()


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("HOTS=10.0.0.84", "HOST"),
        ("host=10.0.0.84", "HOST"),
        ("USER=deploy", "SSH_USER"),
        ("SSHUSER=deploy", "SSH_USER"),
        ("EVN=lab", "ENV"),
        ("CONCURENCY=8", "CONCURRENCY"),
        ("PURG=yes", "PURGE"),
        ("SCENARIO=default", "SCENARIOS"),
    ],
)
def test_a_variable_with_a_slip_in_its_name_is_refused_with_the_right_one(
    typed: str, meant: str
) -> None:
    """`make destroy HOTS=10.0.0.84` was an operation on this machine."""
    name = typed.partition("=")[0]
    with pytest.raises(operate.UseError, match=f"^{name}= is no .*did you mean {meant}="):
        operate.check([name], ["destroy"], {})


def test_make_hands_over_the_names_that_were_typed() -> None:
    done = make("destroy", "CONFIRM=yes", "HOTS=10.0.0.84")
    assert done.returncode == 2
    assert "HOTS= is no variable of celray; did you mean HOST=?" in done.stderr
    assert done.stdout == ""


def test_what_other_programs_read_may_stand_on_the_command_line() -> None:
    others = "PIP_INDEX_URL HTTPS_PROXY ANSIBLE_FORKS DOCKER_HOST SSH_AUTH_SOCK COLUMNS LANG TZ"
    ours = operate.OTHER_VARIABLES
    words = [f"{name}=x" for name in (*others.split(), "HOME", "NO_COLOR", "TMPDIR", *ours)]
    done = make("deploy", *(word for word in words if not word.startswith("PYTHON=")))
    assert done.returncode == 0, done.stderr


def test_an_operation_with_a_slip_in_its_name_is_refused_with_the_right_one() -> None:
    done = make("status", "depoly")
    assert done.returncode == 2
    assert "there is no make depoly; did you mean make deploy?" in done.stderr
    assert done.stdout == ""


def test_another_word_is_refused_by_make_itself() -> None:
    assert "No rule to make target 'everything'" in make("everything").stderr


def test_every_operation_that_make_lists_has_a_rule() -> None:
    listed = subprocess.run(["make"], cwd=REPO, capture_output=True, text=True, check=True).stdout
    targets = re.findall(r"^  ([a-z-]+) +\S", listed.split("\nVariables")[0], flags=re.MULTILINE)
    assert set(targets) >= operate.OPERATIONS.keys() | {"test", "lint", "venv"}
    done = make(*targets, "NAME=x", "WORKER=data", "REPLICAS=2")
    assert done.returncode == 0, done.stderr
    assert "Nothing to be done" not in done.stdout
    for target in operate.OPERATIONS:
        assert f".ci/operate {target}\n" in done.stdout


INVENTORIES = sorted(REPO.glob("inventory/*/hosts.yml"))


@pytest.mark.parametrize("inventory", INVENTORIES, ids=lambda path: path.parent.name)
def test_an_example_names_no_address_of_anybody(inventory: Path) -> None:
    hosts = yaml.safe_load(inventory.read_text())["all"]["hosts"]
    for name, host in hosts.items():
        address = str(host.get("ansible_host", ""))
        if "{{" in address:
            continue  # what the operator names, or this machine
        assert any(ipaddress.ip_address(address) in net for net in DOCUMENTATION), name
