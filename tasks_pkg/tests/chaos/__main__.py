"""``make chaos``: all cases, celray's and stock settings; ``make test`` runs ``--short``.

Exit status 1 when something was lost, happened twice, or took longer than its limit.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

from .cases import CASES, Case
from .report import Outcome, document, line
from .stack import Kind, Stack

ROOT = Path(__file__).parents[3]


def run_case(case: Case, kind: Kind, lease: int, folder: Path) -> Outcome:
    """Run one case under one kind of settings."""
    began = time.monotonic()
    try:
        with Stack(kind, folder, lease) as stack:
            figures = case.run(stack)
            stack.ledger.settle(3 * lease + 20)
            outcome = Outcome(case, kind, stack.ledger.count(), figures, time.monotonic() - began)
    except Exception as error:  # noqa: BLE001 - one case's end is not the suite's
        trace = traceback.format_exc(limit=-3)
        (folder / "error").write_text(trace)
        said = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        outcome = Outcome(case, kind, None, {}, time.monotonic() - began, said)
    print(line(outcome), flush=True)  # noqa: T201
    return outcome


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--short", action="store_true", help="celray's settings and a short lease")
    parser.add_argument("--only", default="", help="some cases, by name")
    parser.add_argument("--kinds", default=",".join(get_args(Kind)), help="celray,stock")
    parser.add_argument("--lease", type=int, default=5, help="seconds; a deployment has 60")
    parser.add_argument("--rounds", type=int, default=1, help="how often everything is run")
    parser.add_argument("--at-once", type=int, default=5, help="so many cases side by side")
    parser.add_argument("--write", action="store_true", help="write docs/reliability.md")
    options = parser.parse_args()
    names = [name for name in options.only.split(",") if name]
    if unknown := set(names) - {case.name for case in CASES}:
        parser.error(f"--only {','.join(unknown)}: there are {', '.join(c.name for c in CASES)}")
    kinds: list[Kind] = ["celray"] if options.short else options.kinds.split(",")
    cases = [c for c in CASES if (c.name in names if names else c.short or not options.short)]
    keep = Path(tempfile.mkdtemp(prefix="celray-chaos-"))
    jobs = [(c, k, r) for r in range(options.rounds) for c in cases for k in kinds]
    with ThreadPoolExecutor(options.at_once) as pool:
        outcomes = list(
            pool.map(
                lambda job: run_case(
                    job[0], job[1], options.lease, keep / f"{job[2]}-{job[1]}-{job[0].name}"
                ),
                jobs,
            )
        )
    broken = [o for o in outcomes if o.kind == "celray" and not o.fine]
    if options.write:
        machine = f"{os.cpu_count()} processors, Python {platform.python_version()}"
        text = document(outcomes, options.lease, machine, options.rounds)
        (ROOT / "docs" / "reliability.md").write_text(text, encoding="utf-8")
    if broken:
        print(f"chaos: {len(broken)} cases broken; their logs are in {keep}", file=sys.stderr)  # noqa: T201
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
