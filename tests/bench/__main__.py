"""``make bench``: measure everything, write docs/benchmarks.md, leave the machine as it was.

``make bench BENCH="--only ping --repeat 3"`` measures parts, and prints them without writing.
"""

import argparse
import sys

from tests.bench import csv_file, groups, jobs, training
from tests.bench import operations as do
from tests.bench.converge import edit_one_line, fresh, no_change
from tests.bench.loopback import ssh_server
from tests.bench.operations import REPO, BenchError
from tests.bench.report import Report, aims, details, render
from tests.bench.roundtrip import compare
from tests.bench.throughput import throughput

PARTS = (
    *("fresh", "nothing", "edit", "ping", "sizes"),
    *("csv", "groups", "wide", "training", "throughput", "overhead", "search"),
)
#: What needs no deployment.
ALONE = frozenset({"csv", "groups", "wide", "training", "throughput", "overhead", "search"})


def say(text: str) -> None:
    """Print what is being measured."""
    print(f"==> {text}", file=sys.stderr, flush=True)


def bring_up(report: Report, wanted: list[str], *, there: bool) -> None:
    """Deploy: afresh, measuring that, where nothing is deployed; else bring up to date."""
    if there:
        report.skipped["fresh deploy"] = (
            "this machine has a deployment, which a fresh one would remove; "
            "make destroy first (with PURGE=yes when its data may go)"
        )
        say("a deployment is here: it is brought up to date and used")
        do.run("make", "deploy")
        return
    say("fresh deploy")
    result = fresh()
    if "fresh" in wanted:
        report.fresh = result


def measure(report: Report, wanted: list[str], repeat: int) -> None:
    """Everything that needs a running deployment."""
    if "nothing" in wanted:
        say(f"a deploy that changes nothing, {repeat} times, on this machine")
        report.no_change.append(no_change("on this machine", repeat))
        say("the same over SSH")
        try:
            with ssh_server() as reach:
                report.no_change.append(no_change("over SSH", repeat, reach))
        except BenchError as error:
            report.skipped["deploy over SSH"] = str(error)
    urls = do.credentials()
    if "ping" in wanted:
        say("ping, against a stock worker")
        report.round_trips = compare(urls, tasks=500)
    if "sizes" in wanted:
        tags = sorted({box["tag"] for box in do.containers().values()})
        for tag in tags:
            size = int(do.run("docker", "image", "inspect", "--format", "{{.Size}}", tag))
            report.sizes[tag] = size / 1e6
    if "edit" in wanted:
        say("edit one line of one task file, deploy")
        report.edit = edit_one_line(urls)


def measure_alone(report: Report, wanted: list[str], repeat: int) -> None:
    """Everything that needs no deployment."""
    if "csv" in wanted:
        report.csv = csv_file.compare(repeat, say)
    if "groups" in wanted:
        report.groups = groups.compare(repeat, say)
    if "wide" in wanted:
        report.wide = groups.compare_wide(repeat, say)
    if "training" in wanted:
        report.training = training.compare(repeat, say)
    if "throughput" in wanted:
        say("tasks a second, beside stock Celery, dramatiq, taskiq and rq")
        report.throughput = throughput(repeat)
    if "overhead" in wanted:
        say("from submitting a Ray job to its first line, beside a trivial job of Ray's own")
        report.overhead = jobs.overhead(repeat)
    if "search" in wanted:
        say("a search over nine combinations, and one by one")
        report.search = jobs.search()


def main() -> int:
    """Measure, print, and write when everything was asked for."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", help=f"some of {','.join(PARTS)}")
    parser.add_argument(
        "--repeat", type=int, default=5, help="repetitions; more where one is short"
    )
    options = parser.parse_args()
    wanted = options.only.split(",") if options.only else list(PARTS)
    if unknown := set(wanted) - set(PARTS):
        parser.error(f"--only {','.join(unknown)}: there are {', '.join(PARTS)}")
    report = Report()
    needs_deployment = bool(set(wanted) - ALONE)
    there = bool(do.containers()) if needs_deployment else True
    try:
        measure_alone(report, wanted, options.repeat)
        if not needs_deployment:
            print("\n".join([*aims(report), *details(report)]))
            return 0
        bring_up(report, wanted, there=there)
        measure(report, wanted, options.repeat)
        text = render(report)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        if not there:
            say("removing the deployment that this bench made")
            do.run("make", "destroy", extra={"CONFIRM": "yes", "PURGE": "yes"})
    print(text)
    if not options.only:
        (REPO / "docs/benchmarks.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
