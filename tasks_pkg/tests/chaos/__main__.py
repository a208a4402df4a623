"""``make chaos``: all cases, celray's and stock settings; ``make test`` runs ``--short``.

With ``--deployed``: celray deployed to a test host, which stays for the next run (``--down``
removes it). Exit status 1 when something was lost, happened twice, or took longer than its limit.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, get_args

from . import cases, deployed_cases
from .cases import Case
from .deployed import Deployed, Deployment
from .front import Front
from .host import Host
from .report import Outcome, document, line, record
from .stack import Kind, Stack

ROOT = Path(__file__).parents[3]
#: Where the test host's key, inventory and package lie, over runs.
STATE = ROOT / ".cache" / "chaos"
#: A deployment has 60 s.
LEASES = {"processes": 5, "deployed": 10}

S = TypeVar("S", bound=Front)


def run_case(
    case: Case[S], kind: str, folder: Path, make: Callable[[], AbstractContextManager[S]]
) -> Outcome:
    """Run one case on a stack of its own."""
    began = time.monotonic()
    try:
        with make() as stack:
            figures = case.run(stack)
            stack.ledger.settle(3 * stack.lease + 20)
            outcome = Outcome(case, kind, stack.ledger.count(), figures, time.monotonic() - began)
    except Exception as error:  # noqa: BLE001 - one case's end is not the suite's
        trace = traceback.format_exc(limit=-3)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "error").write_text(f"{trace}\n{error}")
        said = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        outcome = Outcome(case, kind, None, {}, time.monotonic() - began, said)
    print(line(outcome), flush=True)  # noqa: T201
    return outcome


def in_processes(options: argparse.Namespace, keep: Path) -> list[Outcome]:
    """Run cases side by side, each with a Redis and workers of its own."""
    kinds: list[Kind] = ["celray"] if options.short else options.kinds.split(",")
    chosen = _chosen(cases.CASES, options)

    def run(job: tuple[Case[Stack], Kind, int]) -> Outcome:
        case, kind, number = job
        folder = keep / f"{number}-{kind}-{case.name}"
        return run_case(case, kind, folder, lambda: Stack(kind, folder, options.lease))

    jobs = [(c, k, r) for r in range(options.rounds) for c in chosen for k in kinds]
    with ThreadPoolExecutor(options.at_once) as pool:
        return list(pool.map(run, jobs))


def on_a_host(options: argparse.Namespace, keep: Path) -> list[Outcome]:
    """Run cases one after the other, on one deployed stack."""
    deployment = Deployment(Host(STATE), options.lease)
    deployment.prepare(deploy=not options.as_it_is)
    outcomes = []
    for number in range(options.rounds):
        for case in _chosen(deployed_cases.CASES, options):
            deployment.settle()
            folder = keep / f"{number}-{case.name}"
            prefix = f"{case.name}.{time.time():.0f}/"

            def make(folder: Path = folder, prefix: str = prefix) -> Deployed:
                return Deployed(deployment, folder, prefix)

            outcomes.append(run_case(case, "celray", folder, make))
    return outcomes


def _chosen(there: list[Case[S]], options: argparse.Namespace) -> list[Case[S]]:
    names = [name for name in options.only.split(",") if name]
    if unknown := set(names) - {case.name for case in there}:
        known = ", ".join(case.name for case in there)
        sys.exit(f"chaos: --only {','.join(sorted(unknown))}: there are {known}")
    if names:
        return [c for c in there if c.name in names]
    forms = ("short",) if options.short else ("short", "full")
    return [c for c in there if c.form in forms]


def _about(options: argparse.Namespace) -> str:
    times = "once" if options.rounds == 1 else f"{options.rounds} times, the worst is shown"
    asked = ["git", "rev-parse", "--short=12", "HEAD"]
    commit = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, commit {commit.strip()}; {os.cpu_count()} processors, "
        f"Python {platform.python_version()}; lease {options.lease} s (a deployment has 60 s by "
        f"default), and what is longer is scaled with it; each case was run {times}."
    )


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--deployed", action="store_true", help="a deployed stack on a test host")
    parser.add_argument("--as-it-is", action="store_true", help="do not deploy before the cases")
    parser.add_argument("--down", action="store_true", help="remove the test host, and no more")
    parser.add_argument("--short", action="store_true", help="celray's settings and a short lease")
    parser.add_argument("--only", default="", help="some cases, by name, with commas")
    parser.add_argument("--kinds", default=",".join(get_args(Kind)), help="celray,stock")
    parser.add_argument("--lease", type=int, help="seconds; 5, with --deployed 10")
    parser.add_argument("--rounds", type=int, default=1, help="how often everything is run")
    parser.add_argument("--at-once", type=int, default=5, help="so many cases side by side")
    parser.add_argument("--write", action="store_true", help="write docs/reliability.md")
    options = parser.parse_args()
    if options.down:
        Host(STATE).down()
        return 0
    form = "deployed" if options.deployed else "processes"
    options.lease = options.lease or LEASES[form]
    keep = Path(tempfile.mkdtemp(prefix="celray-chaos-"))
    outcomes = on_a_host(options, keep) if options.deployed else in_processes(options, keep)
    if options.write:
        every: list[Case[Any]] = [
            *(deployed_cases.CASES if options.deployed else []),
            *([] if options.deployed else cases.CASES),
        ]
        record(form, _about(options), every, outcomes)
        (ROOT / "docs" / "reliability.md").write_text(document(), encoding="utf-8")
    broken = [o for o in outcomes if o.kind == "celray" and not o.fine]
    if broken:
        print(f"chaos: {len(broken)} cases broken; their logs are in {keep}", file=sys.stderr)  # noqa: T201
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
