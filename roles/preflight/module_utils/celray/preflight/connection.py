"""Report a host that does not answer."""

from __future__ import annotations

import re

from .problem import Problem


def connection_problem(error: str, host: str, user: str) -> Problem:
    lowered = error.lower()
    last = error.strip().splitlines()[-1] if error.strip() else "no answer"
    if "permission denied" in lowered:
        # ssh may take the user from its own configuration, and names it.
        refused = re.search(r"(?i)(\S+)@\S+: permission denied", error)
        user = refused[1] if refused else user
        return Problem(
            f"{host} refuses user {user}: {last}",
            "SSH_USER / ansible_user and your SSH keys",
            f"make deploy HOST={host} SSH_USER=<name>, or ssh-copy-id {user}@{host}",
        )
    if "host key verification failed" in lowered:
        return Problem(
            f"{host} is not in known_hosts, or its key has changed",
            "~/.ssh/known_hosts",
            f"ssh {host} once and confirm its key",
        )
    return Problem(
        f"{host} cannot be reached: {last}",
        "HOST / ansible_host",
        "check the address and the network",
    )
