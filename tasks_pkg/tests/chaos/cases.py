"""The faults. Each case has a fresh stack, injects one for real, and says what it measured."""

import itertools
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import pytest
from celray_testing import wait_for
from redis import Redis
from redis.exceptions import ResponseError

from .front import Front, now
from .stack import Stack, Worker

#: What a case gives besides the ledger: name of the figure, value, limit or None.
Figures = dict[str, tuple[float, float | None]]


S = TypeVar("S", bound=Front)

#: From which form of the suite on a case runs; ``named`` takes so long that only ``--only`` does.
Form = Literal["short", "full", "named"]


@dataclass(frozen=True)
class Case(Generic[S]):
    """One fault; in the ``short`` form it runs with every ``make test`` too."""

    name: str
    fault: str
    run: Callable[[S], Figures]
    form: Form = "short"
    #: So many effects may happen twice, because no broker could know of the first.
    twice: int = 0
    why_twice: str = ""


CASES: list[Case[Stack]] = []


def case(
    fault: str,
    *,
    among: list[Case[S]],
    form: Form = "short",
    twice: int = 0,
    why_twice: str = "",
) -> Callable[[Callable[[S], Figures]], object]:
    """Register a case under its function's name."""

    def register(run: Callable[[S], Figures]) -> object:
        name = run.__name__.replace("_", "-")
        among.append(Case(name, fault, run, form, twice, why_twice))
        return run

    return register


def _two_workers(stack: Stack) -> None:
    stack.worker("first")
    stack.worker("second")


def under_load(stack: Front, fault: Callable[[], Figures], before: float = 3.0) -> Figures:
    """Run ``fault`` in the middle of the load."""
    load = stack.load()
    time.sleep(before)
    try:
        figures = fault()
        time.sleep(3)
    finally:
        load.stop()
    return figures


def resumption(stack: Front, back: float) -> Figures:
    wait_for(lambda: stack.resumed_after(back) is not None, 60)
    return {"seconds until work goes on": (stack.resumed_after(back) or 0.0, 10.0)}


@case("Redis is killed (SIGKILL) and starts again at once", among=CASES)
def redis_killed(stack: Stack) -> Figures:
    _two_workers(stack)

    def fault() -> Figures:
        _kill_redis(stack)
        stack.redis.start()
        return resumption(stack, now())

    return under_load(stack, fault)


def _kill_redis(stack: Stack) -> None:
    process = stack.redis.process
    assert process is not None
    process.kill()
    process.wait(timeout=10)


@case("Redis is away for two leases", among=CASES)
def redis_away(stack: Stack) -> Figures:
    return _away(stack, 2 * stack.lease)


@case(
    "Redis is away for ten minutes; the lease is 60 s, as in a deployment",
    among=CASES,
    form="named",
)
def redis_away_ten_minutes(stack: Stack) -> Figures:
    assert stack.lease == 60, f"the lease is {stack.lease} s: run this case with --lease 60"
    return _away(stack, 600)


def _away(stack: Stack, seconds: float) -> Figures:
    _two_workers(stack)

    def fault() -> Figures:
        stack.redis.stop()
        time.sleep(seconds)
        stack.redis.start()
        return resumption(stack, now())

    return under_load(stack, fault)


@case("every connection to Redis is cut", among=CASES)
def connections_cut(stack: Stack) -> Figures:
    _two_workers(stack)

    def fault() -> Figures:
        with stack.admin() as admin:
            for kind in ("normal", "pubsub"):
                admin.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
        return resumption(stack, now())

    return under_load(stack, fault)


@case(
    "the network swallows what one of two workers sends, for two leases",
    among=CASES,
    twice=4,
    why_twice="one per process of the worker that was cut off: the effect came after the cut, and "
    "nobody could be told",
)
def half_open(stack: Stack) -> Figures:
    cut_off = stack.worker("first", proxied=True)
    for number in range(3):
        stack.submit(f"long-before-{number}", 2.4 * stack.lease)
        stack.wait_for_start(f"long-before-{number}")
    stack.worker("second")

    def fault() -> Figures:
        stack.proxies[0].freeze()
        frozen = now()
        time.sleep(2 * stack.lease)
        stack.proxies[0].thaw()
        if cut_off.process.poll() is not None:
            cut_off.start_again()
        return {"seconds until work goes on": (stack.resumed_after(frozen) or 999.0, 10.0)}

    figures = under_load(stack, fault, before=1)
    stack.ledger.settle(4 * stack.lease)
    figures["tasks run by two workers at once"] = (_overlaps(stack), 0.0)
    return figures


def _overlaps(stack: Stack) -> float:
    """Count pairs of runs of one task of which the second began before the first had its effect."""
    runs = stack.ledger.runs()
    return float(
        sum(
            1
            for one in runs
            for other in runs
            if one.key == other.key
            and one.ended is not None
            and one.started < other.started < one.ended
        )
    )


@case("a pool's child is killed (SIGKILL) while it works", among=CASES)
def child_killed(stack: Stack) -> Figures:
    worker = stack.worker("first")

    def fault() -> Figures:
        stack.submit("victim", 1.2 * stack.lease)
        began = stack.wait_for_start("victim")
        runs = [run for run in stack.ledger.runs() if run.key == "victim"]
        assert runs[0].pid in worker.children()
        os.kill(runs[0].pid, signal.SIGKILL)
        again = _again(stack, began, 60)
        return {"seconds until its task starts again, 5 of them on purpose": (again, None)}

    return under_load(stack, fault, before=1)


@case("a worker is killed with all its processes, as a container dies", among=CASES)
def worker_killed(stack: Stack) -> Figures:
    first = stack.worker("first", concurrency=1)
    stack.submit("victim", 4 * stack.lease)  # a busy machine may take long to start the second
    stack.wait_for_start("victim")
    stack.worker("second")

    def fault() -> Figures:
        first.kill()
        killed = now()
        again = _again(stack, killed, stack.lease + 20)
        return {"seconds until its task starts elsewhere": (again, stack.lease + 5.0)}

    return under_load(stack, fault, before=1)


def _again(stack: Stack, since: float, seconds: float) -> float:
    """Return the seconds until the victim's second start; 999 where it does not come."""
    try:
        return stack.wait_for_start("victim", 2, seconds) - since
    except AssertionError:
        return 999.0


@case(
    "SIGSTOP of an idle worker, twenty publishes, SIGKILL: the window between BRPOP and its record",
    among=CASES,
)
def fetch_window(stack: Stack) -> Figures:
    first = stack.worker("first")
    time.sleep(1.5)
    first.stop_group()
    for number in range(20):
        stack.submit(f"window-{number}", 0.02)
    time.sleep(1)
    first.kill()
    stack.worker("second")
    return {}


@case("docker stop (two seconds of grace here) with long tasks, then a new container", among=CASES)
def stopped(stack: Stack) -> Figures:
    first = stack.worker("first")
    for number in range(3):
        stack.submit(f"slow-{number}", 1.5 * stack.lease)
    stack.wait_for_start("slow-0")

    def fault() -> Figures:
        first.end(grace=10)
        first.start_again()
        return resumption(stack, now())

    return under_load(stack, fault, before=1)


@case("both workers are replaced, one after the other, under load", among=CASES)
def rolling(stack: Stack) -> Figures:
    _two_workers(stack)

    def fault() -> Figures:
        began = now()
        for worker in list(stack.workers.values()):
            count = worker.log.read_text().count(" ready.")
            worker.end(grace=15)
            worker.start_again()
            wait_for(lambda w=worker, c=count: w.log.read_text().count(" ready.") > c, 60)  # type: ignore[misc]
        starts = [run.started for run in stack.ledger.runs() if run.started >= began]
        gaps = [later - earlier for earlier, later in itertools.pairwise(starts)]
        return {"longest gap in consumption, in seconds": (max(gaps, default=999.0), 2.0)}

    return under_load(stack, fault)


@case("tasks of four times the lease, and an ETA of three", among=CASES, form="full")
def long_tasks(stack: Stack) -> Figures:
    _two_workers(stack)
    for number in range(2):
        stack.submit(f"long-{number}", 4 * stack.lease)
    stack.submit("eta", 0.1, countdown=3 * stack.lease)
    stack.ledger.settle(8 * stack.lease)
    starts = len(stack.ledger.runs())
    return {"starts of three tasks": (float(starts), 3.0)}


@case("poison: a task that kills its process each time", among=CASES, form="full")
def poison_process(stack: Stack) -> Figures:
    stack.worker("first")
    stack.submit_poison("poison", "process")
    return _poison(stack)


@case(
    "poison: a task that kills its whole container each time; containers are restarted", among=CASES
)
def poison_container(stack: Stack) -> Figures:
    worker = stack.worker("first")
    stack.submit_poison("poison", "worker")
    deadline = time.monotonic() + 5 * stack.lease + 30
    while time.monotonic() < deadline and not stack.ledger.submitted["poison"].ready():
        if worker.process.poll() is not None:
            worker.start_again()
        time.sleep(0.3)
    return _poison(stack)


def _poison(stack: Stack) -> Figures:
    stack.submit("after", 0.02)
    stack.ledger.settle(3 * stack.lease + 15)
    starts = sum(1 for run in stack.ledger.runs() if run.key == "poison")
    return {"starts of the poison": (float(starts), 3.0)}


@case(
    "Redis' memory is full for two leases: submitters are refused, accepted tasks end",
    among=CASES,
)
def redis_full(stack: Stack) -> Figures:
    _two_workers(stack)

    def fault() -> Figures:
        with stack.admin() as admin:
            admin.setrange("ballast", 20_000_000, "x")
            used = int(admin.info("memory")["used_memory"])
            admin.config_set("maxmemory", int(0.98 * used))
            time.sleep(2 * stack.lease)
            admin.config_set("maxmemory", "200mb")
            back = now()
        for worker in stack.workers.values():
            if worker.process.poll() is not None:
                worker.start_again()
        return resumption(stack, back)

    return under_load(stack, fault)


@case("Redis refuses every write for two leases, as with a full disk", among=CASES)
def disk_full(stack: Stack) -> Figures:
    """By a snapshot that it cannot write: refused (MISCONF) as for its append-only file."""
    _two_workers(stack)

    def fault() -> Figures:
        in_its_way = stack.folder / "redis" / "dump.rdb"
        in_its_way.mkdir()
        with stack.admin() as admin:
            admin.config_set("save", "3600 1000000")
            _save(admin, "err")
            with pytest.raises(ResponseError, match="MISCONF"):
                admin.set("written", "?")
            time.sleep(2 * stack.lease)
            in_its_way.rmdir()
            _save(admin, "ok")
            back = now()
            admin.config_set("save", "")
        for worker in stack.workers.values():
            if worker.process.poll() is not None:
                worker.start_again()
        return resumption(stack, back)

    return under_load(stack, fault)


def _save(admin: Redis, status: str) -> None:
    admin.bgsave()
    wait_for(lambda: admin.info("persistence")["rdb_last_bgsave_status"] == status)


@case("Redis is killed and its append-only file loses its last bytes", among=CASES)
def torn_file(stack: Stack) -> Figures:
    stack.submit("before", 0.02)
    for number in range(20):
        stack.submit(f"queued-{number}", 0.02)
    with stack.admin() as admin:
        admin.set("the-last-write", "x" * 100)
    _kill_redis(stack)
    (file,) = (stack.folder / "redis" / "appendonlydir").glob("*.incr.aof")
    with file.open("r+b") as handle:
        handle.truncate(file.stat().st_size - 7)
    stack.redis.start()
    _two_workers(stack)
    return {}


@case("a worker stands still (SIGSTOP) for two leases and goes on", among=CASES)
def paused(stack: Stack) -> Figures:
    first = stack.worker("first")
    stack.submit("victim", 1.5 * stack.lease)
    stack.wait_for_start("victim")
    stack.worker("second")
    first.stop_group()
    time.sleep(2 * stack.lease + 3)
    os.killpg(first.process.pid, signal.SIGCONT)
    time.sleep(2)
    if first.process.poll() is not None:
        first.start_again()
    stack.submit("after", 0.02)
    return {}


@case("Redis cannot be reached at all when the worker starts", among=CASES, form="full")
def late_redis(stack: Stack) -> Figures:
    stack.submit("early", 0.02)
    stack.redis.stop()
    worker = stack.workers["first"] = Worker(stack, "first", stack.redis.port, 2)
    time.sleep(5)
    stack.redis.start()
    back = now()
    worker.ready()
    return resumption(stack, back)
