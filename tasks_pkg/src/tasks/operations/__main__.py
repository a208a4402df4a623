"""Commands for operators, run inside a container: ``python -m tasks.operations status|verify|...``.

Exit status: 0 all is well, 1 a check failed, 2 wrong use, 78 wrong configuration.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError
from pydantic import ValidationError
from redis.exceptions import RedisError

from tasks import code_version
from tasks.broker.redis import dead_letters
from tasks.broker.redis.connection import connect
from tasks.operations import canary as rollout
from tasks.operations import drain as draining
from tasks.operations import health, inspection, probes, queues
from tasks.operations.report import Report, markdown
from tasks.operations.verify import Request, Verification
from tasks.samples import SAMPLES
from tasks.settings import Settings, get_settings
from tasks.worker.info import WorkerInfo, ask_workers

TRAINING = "tasks.ml_tasks.distributed_training"


def _say(text: str) -> None:
    sys.stdout.write(text.rstrip("\n") + "\n")


def _load_app() -> Celery:
    from tasks.app import app  # noqa: PLC0415 - ends the process when the settings are wrong

    return app


def status(*, as_json: bool, ray_nodes: list[str]) -> int:
    """Print queues, workers, Ray and Beat; return 1 if a part is missing.

    Args:
        as_json: for programs.
        ray_nodes: the nodes, by name, that Ray has to have beside its head.
    """
    app, settings = _load_app(), get_settings()
    timeout = settings.health_timeout_seconds
    verdict = health.check(app, settings, ray_nodes)
    workers = ask_workers(app, timeout) if verdict.redis else {}
    codes, wanted = _codes(workers, settings) if verdict.redis else ({}, None)
    beat = probes.beat_state(app, settings, timeout) if verdict.redis else None
    if as_json:
        document: dict[str, Any] = {
            **verdict.model_dump(mode="json"),
            "nodes": workers,
            "deployed": wanted,
            "code_states": codes,
            "beat": beat.model_dump(mode="json") if beat else None,
        }
        _say(json.dumps(document, indent=2))
        return int(verdict.status == "unhealthy")
    lines = [f"status   {verdict.status}"]
    lines += [f"         {r.level}: {r.part}: {r.message}" for r in verdict.reasons]
    lines += [
        f"queue    {name:<10} {length} waiting" for name, length in (verdict.queues or {}).items()
    ]
    lines += [
        f"worker   {node:<28} queues {_consumed(info):<16} processes {info['processes']}"
        f"  running {info['running']}  done {info['done']}"
        f"  code {code_version.describe(info['versions']['code'], codes[node], wanted)}"
        for node, info in workers.items()
    ]
    if verdict.redis:
        letters, refused = _dead_letters(settings)
        lines.append(f"dead     {letters} letters  messages refused so far {refused}")
        used, most = verdict.redis.memory_used_bytes / 2**20, verdict.redis.memory_max_bytes / 2**20
        lines.append(
            f"redis    {verdict.redis.version}  {used:.1f} of {most:.0f} MiB"
            f"  evicted {verdict.redis.evicted_keys}  up {verdict.redis.uptime_seconds} s"
        )
    if verdict.ray:
        ray = verdict.ray
        wanted_nodes = f" of {len(ray_nodes) + 1}" if ray_nodes else ""
        lines.append(
            f"ray      {ray.version}  nodes {ray.nodes}{wanted_nodes}"
            f"  CPUs free {ray.available_cpus:g} of {ray.total_cpus:g}"
        )
    if beat:
        ago = beat.last_tick_seconds_ago
        lines.append(f"beat     last tick {'never' if ago is None else f'{ago} s ago'}")
        lines += [
            f"         {name:<28} last ran {beat.said_of(name)}{_missed(beat.missed.get(name))}"
            for name in beat.last_runs
        ]
    _say("\n".join(lines))
    return int(verdict.status == "unhealthy")


def _consumed(info: WorkerInfo) -> str:
    """Return the queues that a worker consumes; "drained" if it consumes none on purpose."""
    return ",".join(info["queues"]) or ("drained" if info.get("drained") else "none")


def _dead_letters(settings: Settings) -> tuple[int, int]:
    """Count the current dead letters, and the messages that were ever refused."""
    broker = connect(settings.broker_url.get_secret_value(), settings.health_timeout_seconds)
    with broker:
        return dead_letters.count(broker), dead_letters.refused_total(broker)


def _codes(
    workers: dict[str, WorkerInfo], settings: Settings
) -> tuple[dict[str, code_version.State], code_version.Deployed | None]:
    """Compare each worker's code with the deployed version."""
    broker = connect(settings.broker_url.get_secret_value(), settings.health_timeout_seconds)
    with broker:
        wanted = code_version.read(broker)
    return {
        node: code_version.judge(info["versions"]["code"], info["started_at"], wanted)
        for node, info in workers.items()
    }, wanted


def _missed(missed_run: dict[str, Any] | None) -> str:
    """Describe an entry's last missed run."""
    if missed_run is None:
        return ""
    action = (
        "skipped" if missed_run["action"] == "skip" else f"sent once at {missed_run['noticed_at']}"
    )
    return f"  missed {missed_run['due_at']}: {action}"


def verify(*, as_markdown: bool) -> int:
    """Run all checks requested on standard input, or render a report from standard input."""
    text = sys.stdin.read()
    try:
        if as_markdown:
            report = Report.model_validate_json(text)
            _say(markdown(report))
        else:
            request = Request.model_validate_json(text or "{}")
            report = Verification(_load_app(), get_settings(), request).run()
            _say(report.model_dump_json(indent=2))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'document'}: {e['msg']}" for e in error.errors()
        )
        sys.stderr.write(f"celray: standard input: {problems}\n")
        return 2
    return int(not report.ok)


def train_sample() -> int:
    """Train on the sample dataset; progress on standard error, the result on standard output."""
    sample = SAMPLES[TRAINING]
    pending = _load_app().send_task(TRAINING, kwargs=sample.kwargs)
    missed_run = ""
    deadline = time.monotonic() + sample.seconds
    while not pending.ready() and time.monotonic() < deadline:
        line = progress_line(pending.backend.get_task_meta(pending.id))
        if line != missed_run:
            missed_run = line
            sys.stderr.write(f"train-sample {pending.id} {line}\n")
        time.sleep(0.3)
    if not pending.ready():
        sys.stderr.write(f"train-sample: no result in {sample.seconds:.0f} s; it goes on\n")
        return 1
    if not pending.successful():
        sys.stderr.write(f"train-sample: {type(pending.result).__name__}: {pending.result}\n")
        return 1
    _say(json.dumps(pending.result, indent=2))
    return 0


def progress_line(meta: dict[str, Any]) -> str:
    """Return a task's progress in one line.

    Args:
        meta: state and result as stored together. Read separately, the state may be from before
            the end and the result from after it.
    """
    info = meta.get("result")
    if meta["status"] != "PROGRESS" or not isinstance(info, dict):
        return str(meta["status"])
    return "{phase}: {done} of {total} ({message})".format(**info)


def running(*, as_json: bool) -> int:
    """Print the tasks that run on each worker now."""
    found = rollout.running(_load_app(), get_settings().health_timeout_seconds)
    if as_json:
        _say(json.dumps(found, indent=2))
        return 0
    lines = [f"{one['worker']:<28} {one['task']:<44} {one['seconds']:8.1f} s" for one in found]
    _say("\n".join(lines) or "no worker works on anything")
    return 0


def canary(seconds: float) -> int:
    """Send pings through each queue of this container's worker; return 1 if it answers none."""
    app, settings = _load_app(), get_settings()
    node = rollout.own_node(settings)
    try:
        took = rollout.canary(app, settings, node, seconds)
    except TimeoutError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    for queue, answer in took.items():
        _say(f"{node} answered on queue {queue} after {answer:.3f} s")
    return 0


def show_queues(*, as_json: bool) -> int:
    """Print every queue: what waits, who consumes it."""
    found = queues.look(_load_app(), get_settings())
    _say(
        json.dumps(queues.document(found), indent=2) if as_json else "\n".join(queues.table(found))
    )
    return 0


def purge(queue: str, *, confirmed: bool) -> int:
    """Remove what waits in a queue, or say what would be lost."""
    try:
        lines = queues.purge(_load_app(), get_settings(), queue, confirmed=confirmed)
    except queues.UnknownQueueError as error:
        return _refuse(f"PURGE={queue}: {error}")
    _say("\n".join(lines))
    return 0


def show_tasks(*, as_json: bool) -> int:
    """Print what every worker has; return 1 if an expected worker does not answer."""
    found = inspection.inspect(_load_app(), get_settings())
    _say(found.model_dump_json(indent=2) if as_json else "\n".join(inspection.table(found)))
    return int(bool(found.missing))


def drain(options: argparse.Namespace) -> int:
    """Drain this container's host, or say what that would do."""
    app, settings, hosts = _load_app(), get_settings(), options.host
    try:
        if options.check:
            lines = draining.plan(app, settings, hosts, force=options.force)
        else:
            lines = draining.drain(app, settings, hosts, wait=options.wait, force=options.force)
    except draining.RefusedError as error:
        return _refuse(str(error))
    except draining.NotDrainedError as error:
        sys.stderr.write(f"celray: {error}\n")
        return 1
    _say("\n".join(lines))
    return 0


def undrain() -> int:
    """Let the workers of this container's host consume again."""
    try:
        lines = draining.undrain(_load_app(), get_settings())
    except draining.RefusedError as error:
        return _refuse(str(error))
    _say("\n".join(lines))
    return 0


def _refuse(message: str) -> int:
    sys.stderr.write(f"celray: {message}\n")
    return 2


def _answering(command: Callable[[], int]) -> int:
    """Run a command; report a silent Redis in one line."""
    try:
        return command()
    except (RedisError, OSError, OperationalError) as error:
        sys.stderr.write(f"celray: Redis does not answer: {type(error).__name__}: {error}\n")
        return 1


def main(arguments: list[str] | None = None) -> int:
    """Run one subcommand; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tasks.operations", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    about_status = commands.add_parser("status", help="queues, workers, Ray, Beat")
    about_status.add_argument("--json", action="store_true", help="for programs")
    words = "a node that Ray has to have; once for each"
    about_status.add_argument("--ray-node", action="append", default=[], metavar="NAME", help=words)
    about_verify = commands.add_parser("verify", help="use every part; JSON in, JSON out")
    about_verify.add_argument("--markdown", action="store_true", help="render a report instead")
    commands.add_parser("train-sample", help="one training job on the sample data")
    about_running = commands.add_parser("running", help="what every worker works on now")
    about_running.add_argument("--json", action="store_true", help="for programs")
    about_canary = commands.add_parser("canary", help="a ping through each queue to this worker")
    about_canary.add_argument("--seconds", type=float, default=60.0, help="to try, per queue")
    about_queues = commands.add_parser("queues", help="what waits in each queue, who consumes it")
    about_queues.add_argument("--json", action="store_true", help="for programs")
    about_purge = commands.add_parser("purge", help="remove what waits in a queue")
    about_purge.add_argument("queue")
    about_purge.add_argument("--confirmed", action="store_true", help="else say what would be lost")
    about_inspect = commands.add_parser("inspect", help="what every worker has at hand")
    about_inspect.add_argument("--json", action="store_true", help="for programs")
    about_drain = commands.add_parser("drain", help="this host's workers finish, and take no more")
    about_drain.add_argument("--host", action="append", default=[], help="another that is drained")
    about_drain.add_argument("--wait", type=float, default=600.0, help="for what runs, in seconds")
    about_drain.add_argument("--force", action="store_true", help="leave queues without a consumer")
    about_drain.add_argument("--check", action="store_true", help="only say what would be done")
    commands.add_parser("undrain", help="this host's workers consume their queues again")
    options = parser.parse_args(arguments)
    run: dict[str, Callable[[], int]] = {
        "status": lambda: status(as_json=options.json, ray_nodes=options.ray_node),
        "verify": lambda: verify(as_markdown=options.markdown),
        "train-sample": train_sample,
        "running": lambda: running(as_json=options.json),
        "canary": lambda: canary(options.seconds),
        "queues": lambda: _answering(lambda: show_queues(as_json=options.json)),
        "purge": lambda: _answering(lambda: purge(options.queue, confirmed=options.confirmed)),
        "inspect": lambda: _answering(lambda: show_tasks(as_json=options.json)),
        "drain": lambda: _answering(lambda: drain(options)),
        "undrain": lambda: _answering(undrain),
    }
    return run[options.command]()


if __name__ == "__main__":
    sys.exit(main())
