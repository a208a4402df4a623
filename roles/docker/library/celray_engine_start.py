#!/usr/bin/python
"""Start the container engine, or report its last log lines if it does not start."""

from __future__ import annotations

DOCUMENTATION = r"""
module: celray_engine_start
short_description: Start a container engine and wait until it answers
description:
  - Does nothing if an engine answers. Otherwise starts one through the service manager; if that
    fails, starts the engine's program directly. (Debian's init script raises a limit, which a
    container or a restricted machine may refuse.)
  - Does not wait for an engine that ends again; the error holds the last lines of its log.
options:
  seconds: {description: How long to wait for an answer, type: int, default: 60}
  log: {description: The log of an engine that is started directly, type: path}
author: celray
"""

EXAMPLES = r"""
- name: Start the engine
  celray_engine_start:
    seconds: 60
"""

RETURN = r"""
how: {description: running, systemd, init or alone, returned: success, type: str}
"""

import functools
import os
import shutil
import subprocess
import time
from typing import Any

from ansible.module_utils import celray_engine  # type: ignore[attr-defined]  # our own
from ansible.module_utils.basic import AnsibleModule

INIT_SCRIPT = "/etc/init.d/docker"
PAUSE_SECONDS = 0.2
#: How long a reported engine may take to write its pid file, in seconds.
GRACE_SECONDS = 2.0
PID_FILE = "/var/run/docker.pid"


class StartError(Exception):
    """The engine does not start; the message is for the operator."""


def run(module: AnsibleModule, *argv: str, timeout: int = 120) -> tuple[int, str, str]:
    timed = ["timeout", str(timeout), *argv] if shutil.which("timeout") else list(argv)
    rc, out, err = module.run_command(timed, check_rc=False)
    return rc, out.strip(), err.strip()


def answers(runner: celray_engine.Run) -> bool:
    return "version" in celray_engine.ask(runner, sudo=False)


def alive(pid_file: str) -> bool:
    try:
        with open(pid_file) as handle:
            os.kill(int(handle.read()), 0)
    except (OSError, ValueError):
        return False
    return True


def words(lines: list[str]) -> str:
    return "".join(f"\n    {line}" for line in lines) or "\n    (it has written nothing)"


def by_systemd(runner: celray_engine.Run, seconds: int) -> None:
    # An engine that has failed too often is refused until that is forgotten.
    runner("systemctl", "reset-failed", "docker.service", "docker.socket")
    rc, out, err = runner("systemctl", "enable", "--now", "docker.service", timeout=seconds + 30)
    if rc == 0 and wait(runner, seconds, lambda: True):
        return
    states = celray_engine.unit(runner)
    raise StartError(
        f"systemd could not start the container engine ({err or out or states}). Its last lines:"
        f"{words(celray_engine.last_lines(runner, []))}\n"
        "way out: mend what they name (often /etc/docker/daemon.json), try it with `systemctl "
        "restart docker`, then deploy again"
    )


def wait(runner: celray_engine.Run, seconds: float, going: Any) -> bool:
    """Whether the engine answers before the time is up, or before it has ended."""
    deadline = time.monotonic() + seconds
    while not answers(runner):
        if time.monotonic() > deadline or not going():
            return answers(runner)
        time.sleep(PAUSE_SECONDS)
    return True


def by_init_script(runner: celray_engine.Run, seconds: int) -> bool:
    """Whether the init script brought it up; where it cannot, nothing of it is left running."""
    if not os.access(INIT_SCRIPT, os.X_OK):
        return False
    if runner(INIT_SCRIPT, "start")[0] != 0 and not alive(PID_FILE):
        return False
    started = time.monotonic()
    return wait(
        runner, seconds, lambda: alive(PID_FILE) or time.monotonic() < started + GRACE_SECONDS
    )


def alone(runner: celray_engine.Run, daemon: str, log: str, seconds: int) -> None:
    with open(log, "a") as handle:
        engine = subprocess.Popen(
            [daemon],
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
        )
    if wait(runner, seconds, lambda: engine.poll() is None):
        return
    ended = engine.poll()
    state = (
        f"ended with exit code {ended}" if ended is not None else f"gave no answer in {seconds} s"
    )
    if ended is None:
        engine.terminate()
    with open(log) as handle:
        lines = handle.read().splitlines()[-celray_engine.LAST_LINES :]
    raise StartError(
        f"the container engine ({daemon}) {state}. The last lines of {log}:{words(lines)}\n"
        "way out: mend what they name (often /etc/docker/daemon.json), then deploy again"
    )


def start(runner: celray_engine.Run, log: str, seconds: int) -> str:
    """Start the engine unless it runs; return the method that worked."""
    if answers(runner):
        return "running"
    daemon = next(iter(celray_engine.programs("dockerd", {})), "")
    if not daemon:
        raise StartError(
            "there is no dockerd on this host after its packages were installed\n"
            "way out: install docker.io yourself (apt-get install docker.io), then deploy again"
        )
    if os.path.isdir(celray_engine.SYSTEMD):
        by_systemd(runner, seconds)
        return "systemd"
    if by_init_script(runner, seconds):
        return "init"
    alone(runner, daemon, log, seconds)
    return "alone"


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "seconds": {"type": "int", "default": 60},
            "log": {"type": "path", "default": celray_engine.LOG},
        }
    )
    runner = functools.partial(run, module)
    try:
        how = start(runner, module.params["log"], module.params["seconds"])
    except StartError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=how != "running", how=how)


if __name__ == "__main__":
    main()
