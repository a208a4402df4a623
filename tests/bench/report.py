"""What was measured, as Markdown."""

import datetime as dt
import os
import platform
import re
import statistics
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import operations as do
from tests.bench.converge import Edit, NoChange
from tests.bench.csv_file import CsvFile
from tests.bench.jobs import Overhead, Search, shown
from tests.bench.operations import Sample
from tests.bench.roundtrip import Pings
from tests.bench.throughput import Throughput
from tests.bench.training import Training

HEAD = """\
# Benchmarks

Written by `make bench`; do not edit. Each comparison is a ratio of two things measured in turns in
one run on one machine, because seconds alone mean little elsewhere. Medians, with the lowest and
the highest.
"""

NO_CHANGE = """
## A deploy that changes nothing

The floor is a bare playbook (`tests/bench/floor.yml`): gather facts, then one compose call per
project that has nothing to do.

| | deploy | floor | ratio |
| --- | --- | --- | --- |"""

FRESH = """
## A fresh deploy

By role; what took more than 3 s by task.

| part | seconds |
| --- | --- |"""

EDIT = """
## Edit one line of one task file, `make deploy`

New code answered a ping after {seconds:.1f} s; the deploy ended after {deploy:.1f} s.
Replaced: {replaced}. Nothing else was touched."""

PING = """
## Ping, from sending to having the result

One client, one task at a time, in alternating batches. All workers run in the same image with four
processes, on the same Redis. The stock workers have Celery's default settings. The first logs at
INFO, as Celery's manual starts a worker and as the deployed one does, two lines a task; the second
none. The third logs as the first does; it and its client come as a user whom no access rule of
Redis holds back.

| worker | median | 95 of 100 under | n |
| --- | --- | --- | --- |"""

CHECKS = """
Our look at one message, beside decoding it as kombu does, takes {microseconds:.0f} microseconds.
"""

CSV = """
## One CSV file of {megabytes:.0f} MB: filter, derived column, Parquet

In turns, the file in the page cache. The start of Ray and of its worker processes is not in the
seconds, on neither side: both have read a small file before, for which our job with a Ray of its
own takes {startup} to start, and each way begins when the machine has been idle for a second, so
that none runs beside a Ray that comes up or goes away. Both polars and our job write zstd level 1,
which is ours; `polars, default` writes its own level 3, and Ray Data its own snappy. Our job also
checks every record and every beginning of a range, counts rows, and digests what it writes. Two
nodes against one are two Ray nodes of one CPU each on this machine, with a simulated storage that
gives each node 24 MB a second.

| way | seconds |
| --- | --- |"""

WAYS = {
    "polars": "polars alone",
    "default": "polars, default",
    "celray": "our job on Ray",
    "plain": "our job without Ray",
    "raydata": "Ray Data",
    "duckdb": "DuckDB alone",
    "nodes 1": "our job on one node, slow storage",
    "nodes 2": "our job on two nodes, slow storage",
}

GROUPS = """
## Aggregates of one CSV file of {megabytes:.0f} MB by group

3.4 million rows of eight columns, in 400 groups: count, sum, mean, least and greatest of one
column. In turns, as above; all read the two columns that are asked for. Our job also checks every
record, looks both columns through for codes, keeps twice the digits of a sum, and summarises both
columns.

| way | seconds |
| --- | --- |"""

#: Ratio of our job's aggregates to polars alone.
MAX_GROUPS = 1.5

WIDE = """
## A CSV file of 5,000 columns and {megabytes:.0f} MB as a table

300 rows of numbers, whole ones, words and dates, read in one process. In turns, as above. Our
reader finds the types in all rows, and looks for codes and missing values. Polars finds them in its
first hundred rows, as it does by default.

| way | seconds |
| --- | --- |"""

#: Ratio of our reader to polars alone, of 5,000 columns.
MAX_WIDE = 3

#: Ratios: our job to polars alone, Ray Data to our job, one node to two.
MAX_CSV, MIN_RAYDATA, MIN_NODES = 1.3, 8.0, 1.7

#: The aims: ratio, seconds, seconds, ratio, megabytes.
MAX_NO_CHANGE, MAX_FRESH, MAX_EDIT, MAX_PING, MAX_WORKER_IMAGE = 2.0, 360.0, 30.0, 1.0, 400.0

#: Tasks a second, as a part of stock Celery's.
MIN_THROUGHPUT = 0.95

THROUGHPUT = """
## Tasks a second

Two processes each, on one Redis with its append-only file, in turns; a task adds one to a counter
in Redis and has a result. The queue is full when the worker starts; start-up is not counted.
celray's figure includes late acknowledgement, leases, the state STARTED, extended results and
events; Celery has its own defaults, with none of these.

| | median | lowest | highest |
| --- | --- | --- | --- |"""


OVERHEAD = """
## From submitting a job to its first line

In turns, on a Ray of one node that this part starts, with a Celery worker and a Redis beside it as
processes, not containers. Ray's own job is `python -c "..."` through the same Jobs API, from the
call to the line that it prints. Ours goes from `send_task` through queue and worker to the first
line of the job's code, with its code as a package; the first job of each is not counted.

| job | seconds |
| --- | --- |"""

SEARCH = """
## A search over nine combinations

On a Ray like the one above, by the submitter's clock: 6,497 wines, three folds, 20 rounds. One by
one are nine searches of one combination each; each also starts a job, reads the file and trains
its best model. Both use all CPUs, so on few of them that is what a search saves. Three of the nine
are measured, one of each depth and rate, and counted three times.

| way | seconds |
| --- | --- |"""

TRAINING = """
## Training on one table of 2 million rows and 20 columns

A hundred rounds on two CPUs, from a Parquet file to a scored model. Memory is the most that the
process and those it has started take together, less what an idle Ray does and what they map from
files. Start-up is a training of a thousand rows, with all that Ray starts once.

| way | seconds | start-up | MB |
| --- | --- | --- | --- |"""

#: Training to xgboost alone: seconds and memory.
MAX_TRAINING = {"seconds": 1.3, "megabytes": 1.4}

#: First line of our job to that of Ray's own, and of a second job to one that is alone; the
#: latter with a tenth for noise.
MAX_OVERHEAD, MAX_BESIDE = 1.2, 1.1


@dataclass
class Report:
    """The results that there are; a part that was not measured says why."""

    no_change: list[NoChange] = field(default_factory=list)
    fresh: tuple[float, dict[str, float]] | None = None
    edit: Edit | None = None
    round_trips: Pings | None = None
    throughput: Throughput | None = None
    csv: CsvFile | None = None
    training: Training | None = None
    groups: CsvFile | None = None
    wide: CsvFile | None = None
    overhead: Overhead | None = None
    search: Search | None = None
    sizes: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    #: What else the machine was doing when the measuring began.
    load: float = field(default_factory=lambda: os.getloadavg()[0])


def machine(load: float) -> str:
    """What the figures were taken on, and how busy it was with other things."""
    cpus = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = re.search(r"^model name\s*: (.*)$", cpus, flags=re.MULTILINE)
    memory = int(Path("/proc/meminfo").read_text(encoding="utf-8").split()[1]) / 2**20
    engine = do.run("docker", "version", "--format", "{{.Server.Version}}").strip()
    compose = do.run(*do.compose_command(), "version", "--short").strip()
    return ", ".join(
        [
            str(dt.datetime.now(tz=dt.UTC).date()),
            f"commit {do.run('git', 'rev-parse', '--short=12', 'HEAD').strip()}",
            f"{os.cpu_count()} CPUs ({model[1] if model else platform.machine()})",
            f"{memory:.0f} GiB",
            platform.freedesktop_os_release()["PRETTY_NAME"],
            f"engine {engine}",
            f"compose {compose}",
            f"load average {load:.1f} before the start.",
        ]
    )


def row(what: str, measured: str, aim: str, *, reached: bool) -> str:
    """One line of the table of aims."""
    return f"| {what} | {measured} | {aim} | {'reached' if reached else '**missed**'} |"


def aims(report: Report) -> list[str]:
    """The table of what was to be reached."""
    rows = ["| what | measured | aim | |", "| --- | --- | --- | --- |"]
    rows += [
        row(
            f"deploy that changes nothing, {part.where}: ratio to the floor",
            f"{part.ratio:.2f}",
            f"at most {MAX_NO_CHANGE:g}",
            reached=part.ratio <= MAX_NO_CHANGE,
        )
        for part in report.no_change
    ]
    if report.fresh:
        seconds = report.fresh[0]
        what = "fresh deploy, warm package caches"
        aim = f"under {MAX_FRESH:g} s"
        rows.append(row(what, f"{seconds:.0f} s", aim, reached=seconds < MAX_FRESH))
    if report.edit:
        seconds = report.edit.until_new_code_answers
        what = "edit one line of a task, deploy: new code answers after"
        rows.append(
            row(what, f"{seconds:.1f} s", f"under {MAX_EDIT:g} s", reached=seconds < MAX_EDIT)
        )
    if report.round_trips:
        ours, stock, *others = report.round_trips.trips
        ratio = ours.median / stock.median
        what = "ping round trip: ratio to a {}"
        aim = f"at most {MAX_PING:g}"
        rows.append(row(what.format(stock.name), f"{ratio:.2f}", aim, reached=ratio <= MAX_PING))
        rows += [
            row(what.format(o.name), f"{ours.median / o.median:.2f}", "reported", reached=True)
            for o in others
        ]
        cost = report.round_trips.access_rules
        what = "ping round trip: a stock worker under Redis's access rules to one without"
        rows.append(row(what, f"{cost:.2f}", "reported", reached=True))
        share = report.round_trips.checks / 1000 / ours.median
        what = "ping round trip: what our look at the message takes of it"
        rows.append(row(what, f"{100 * share:.1f} %", "reported", reached=True))
    if report.throughput:
        ratio = report.throughput.ratio
        what = "tasks a second: ratio to stock Celery"
        aim = f"at least {MIN_THROUGHPUT:g}"
        rows.append(row(what, f"{ratio:.2f}", aim, reached=ratio >= MIN_THROUGHPUT))
    for name, size in report.sizes.items():
        limited = "worker" in name
        aim = f"under {MAX_WORKER_IMAGE:g} MB" if limited else "reported"
        reached = not limited or size < MAX_WORKER_IMAGE
        rows.append(row(f"image `{name}`", f"{size:.0f} MB", aim, reached=reached))
    rows += csv_aims(report)
    rows += training_aims(report.training)
    if report.overhead:
        for what, found, most in (
            ("to a trivial job of Ray's own", report.overhead.ratios, MAX_OVERHEAD),
            ("while another runs, to one alone", report.overhead.beside_ratios, MAX_BESIDE),
        ):
            rows.append(at_most(f"first line of a Ray job, {what}: ratio", found, most))
    if report.search:
        what = "search over nine combinations: one by one to all in one"
        rows.append(row(what, f"{report.search.ratio:.1f}", "reported", reached=True))
    return rows


def at_most(what: str, found: list[float], most: float) -> str:
    """One line with the median of some ratios, which shall not be more."""
    median = statistics.median(found)
    measured = f"{median:.2f} ({min(found):.2f} to {max(found):.2f})"
    return row(what, measured, f"at most {most:g}", reached=median <= most)


def csv_aims(report: Report) -> list[str]:
    """What was to be reached with one large file."""
    rows = []
    if report.groups:
        what = "aggregates of one CSV file by group, our job on Ray to polars alone: ratio"
        rows.append(at_most(what, report.groups.ratios("celray", "polars"), MAX_GROUPS))
    if report.wide:
        what = "a CSV file of 5,000 columns as a table, our reader to polars"
        rows.append(
            at_most(f"{what} alone: ratio", report.wide.ratios("celray", "polars"), MAX_WIDE)
        )
        told = f"{what} that is told the types: ratio"
        ratio = statistics.median(report.wide.ratios("celray", "told"))
        rows.append(row(told, f"{ratio:.2f}", "reported", reached=True))
    if report.csv is None:
        return rows
    for what, way, to, aim in (
        ("our job on Ray to polars alone", "celray", "polars", MAX_CSV),
        ("our job without Ray to polars alone", "plain", "polars", MAX_CSV),
        ("our job on Ray to polars with its default compression", "celray", "default", MAX_CSV),
        ("Ray Data's read_csv to our job", "raydata", "celray", MIN_RAYDATA),
        ("one Ray node to two, simulated slow storage", "nodes 1", "nodes 2", MIN_NODES),
    ):
        found = report.csv.ratios(way, to)
        median = statistics.median(found)
        most = aim == MAX_CSV
        rows.append(
            row(
                f"one CSV file, {what}: ratio",
                f"{median:.2f} ({min(found):.2f} to {max(found):.2f})",
                f"at {'most' if most else 'least'} {aim:g}",
                reached=median <= aim if most else median >= aim,
            )
        )
    return rows


def training_aims(training: Training | None) -> list[str]:
    """What was to be reached with one large table."""
    return [
        at_most(
            f"training, {way} to xgboost alone, {what}: ratio", training.ratios(way, what), most
        )
        for way in ("celray on Ray", "celray without Ray")
        for what, most in MAX_TRAINING.items()
        if training
    ]


def details(report: Report) -> list[str]:
    """The figures behind the table."""
    lines = []
    if report.no_change:
        lines.append(NO_CHANGE)
        lines += [
            f"| {part.where} | {part.deploy} | {part.floor} | {part.ratio:.2f} |"
            for part in report.no_change
        ]
    if report.fresh:
        parts = sorted(report.fresh[1].items(), key=lambda part: -part[1])
        lines.append(FRESH)
        lines += [f"| {name} | {seconds:.1f} |" for name, seconds in parts]
    if report.edit:
        edit = report.edit
        lines.append(
            EDIT.format(
                seconds=edit.until_new_code_answers,
                deploy=edit.deploy,
                replaced=", ".join(f"`{name}`" for name in edit.replaced),
            )
        )
    if report.throughput:
        lines.append(THROUGHPUT)
        lines += [
            f"| {name} | {statistics.median(rates):.0f} | {min(rates):.0f} | {max(rates):.0f} |"
            for name, rates in report.throughput.rates.items()
        ]
    if report.round_trips:
        lines.append(PING)
        lines += [
            f"| {trip.name} | {trip.median:.2f} ms | {trip.p95:.2f} ms | {len(trip.milliseconds)} |"
            for trip in report.round_trips.trips
        ]
        lines.append(CHECKS.format(microseconds=report.round_trips.checks))
    if report.csv:
        startup = Sample(tuple(report.csv.startup))
        lines.append(CSV.format(megabytes=report.csv.megabytes, startup=startup))
        lines += [f"| {WAYS.get(way, way)} | {report.csv.sample(way)} |" for way in report.csv.ways]
    if report.groups:
        lines.append(GROUPS.format(megabytes=report.groups.megabytes))
        ways = report.groups.ways
        lines += [f"| {WAYS[way]} | {report.groups.sample(way)} |" for way in ways]
    if report.wide:
        lines.append(WIDE.format(megabytes=report.wide.megabytes))
        named = {
            "polars": "polars alone",
            "told": "polars that is told the types",
            "celray": "our reader",
        }
        lines += [f"| {named[way]} | {report.wide.sample(way)} |" for way in report.wide.ways]
    lines += training_details(report.training)
    lines += job_details(report)
    if report.skipped:
        lines.append("\n## Not measured\n")
        lines += [f"- {name}: {why}" for name, why in report.skipped.items()]
    return lines


def training_details(training: Training | None) -> list[str]:
    """The figures of training on one large table."""
    if training is None:
        return []
    lines = [TRAINING]
    for way in training.figures:
        seconds, startup = (training.sample(way, what) for what in ("seconds", "startup"))
        memory = training.sample(way, "megabytes").median
        lines.append(f"| {way} | {seconds} | {startup} | {memory:.0f} |")
    return lines


def job_details(report: Report) -> list[str]:
    """The figures of Ray jobs."""
    lines = []
    if report.overhead:
        lines.append(OVERHEAD)
        for name, seconds in (
            ("Ray's own", report.overhead.ray),
            ("celray", report.overhead.celray),
            ("of these, before it reaches Ray", report.overhead.before_ray),
            ("celray, while another job runs", report.overhead.beside),
        ):
            lines.append(f"| {name} | {shown(seconds)} |")
    if report.search:
        lines.append(SEARCH)
        lines.append(f"| all in one search | {shown(report.search.together)} |")
        lines.append(f"| one by one | {shown(report.search.one_by_one)} |")
    return lines


def render(report: Report) -> str:
    """The whole document."""
    return "\n".join([HEAD, machine(report.load), "", *aims(report), *details(report)]) + "\n"
