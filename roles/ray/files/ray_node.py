"""Ask the head of a Ray cluster from one of its other nodes, in that node's container.

    ray_node.py wait URL TOKEN_FILE     end once the head answers: `ray start` waits for 30 s only
    ray_node.py alive URL TOKEN_FILE    fail unless the head lists this very node as alive

A port that answers is not enough for a health check: after a drain `ray start` goes on without its
raylet, and a head that has not seen a node for too long gives it no more work.
"""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ANSWER_SECONDS = 8
EVERY_SECONDS = 2
NODE = "/api/v0/nodes?limit=1&filter_keys=node_id&filter_predicates=%3D&filter_values="


def say(text: str) -> None:
    """Write a line to the container's log, or to the health check's."""
    print(f"celray: {text}", flush=True)


def ask(url: str, token: str) -> Any:
    """Return the answer of Ray's dashboard.

    Raises:
        OSError: there is none, or it refuses.
    """
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})  # noqa: S310 - ours
    with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:  # noqa: S310 - ours
        return answer.read()


def reason(error: OSError) -> str:
    """Return why there was no answer, in words."""
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code}"
    return str(getattr(error, "reason", "")) or str(error) or type(error).__name__


def wait(address: str, token_file: Path) -> None:
    """Return once the head answers; say what keeps it from that, each reason once."""
    said = ""
    while True:
        try:
            ask(f"{address}/api/gcs_healthz", token_file.read_text().strip())
        except OSError as error:
            if reason(error) != said:
                said = reason(error)
                say(f"waiting for the Ray head at {address}: {said}")
            time.sleep(EVERY_SECONDS)
        else:
            return


def own_id(processes: Path) -> str:
    """Return the id of the node whose raylet runs here; empty where none does."""
    for file in processes.glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has gone
            continue
        if words[0].rpartition("/")[2] == "raylet":
            for word in words:
                if word.startswith("--node_id="):
                    return word.removeprefix("--node_id=")
    return ""


def state_of(node: str, address: str, token: str) -> str:
    """Return the state in which the head lists a node; empty where it does not know it.

    Raises:
        OSError: the head does not answer.
        ValueError: it does, in another form.
    """
    try:
        found = json.loads(ask(address + NODE + node, token))["data"]["result"]["result"]
        return "".join(str(one["state"]) for one in found if one["node_id"] == node)
    except (LookupError, TypeError) as error:
        raise ValueError(f"an answer in an unknown form ({error!r})") from error


def problem(address: str, token_file: Path, processes: Path = Path("/proc")) -> str:
    """Return why this node gets no work; empty where it does."""
    node = own_id(processes)
    if not node:
        return "no raylet runs in this container"
    try:
        state = state_of(node, address, token_file.read_text().strip())
    except OSError as error:
        return f"the Ray head at {address} does not answer: {reason(error)}"
    except ValueError as error:
        return f"the Ray head at {address} gives {error}"
    return "" if state == "ALIVE" else f"the head says that node {node} is {state or 'unknown'}"


def main(arguments: list[str]) -> int:
    """Do one of the two; return the exit status."""
    what, address, token_file = arguments[0], arguments[1], Path(arguments[2])
    if what == "wait":
        wait(address, token_file)
        return 0
    wrong = problem(address, token_file)
    if wrong:
        say(wrong)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
