"""The faults of a deployed stack: containers, Redis, Ray, the engine, the host, updates, Beat."""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from celray_testing import wait_for

from . import package
from .cases import Case, Figures, case, resumption, under_load
from .deployed import WORKERS, Deployed, Deployment
from .front import now
from .host import HOME, HostError

CASES: list[Case[Deployed]] = []

#: RedBeat's lock lives so long (five of Beat's longest sleeps); then another Beat takes over.
BEAT_LOCK_SECONDS = 25.0
AOF = f"{HOME}/redis"
RESUMED = "seconds until work goes on"


def _back(stack: Deployed) -> Figures:
    """Wait until Redis takes commands; then measure until a task starts."""
    wait_for(stack.redis_answers, 60)
    return resumption(stack, now())


# --- containers


@case("the container of a worker is killed (SIGKILL)", among=CASES)
def worker_container_killed(stack: Deployed) -> Figures:
    def fault() -> Figures:
        stack.submit("victim", 1.5 * stack.lease)
        stack.wait_for_start("victim")
        stack.host.kill(stack.container_of("victim"))
        killed = now()
        again = stack.wait_for_start("victim", 2, stack.lease + 30)
        return {"seconds until its task starts again": (again - killed, stack.lease + 5.0)}

    return under_load(stack, fault)


@case("the container of Redis is killed (SIGKILL); the engine starts it again", among=CASES)
def redis_container_killed(stack: Deployed) -> Figures:
    def fault() -> Figures:
        stack.host.kill("redis-celery")
        return _back(stack)

    return under_load(stack, fault)


@case(
    "docker stop of a worker with tasks longer than its grace time, then docker start", among=CASES
)
def worker_stopped(stack: Deployed) -> Figures:
    for number in range(4):
        stack.submit(f"slow-{number}", 2.0 * stack.lease)
    stack.wait_for_start("slow-0")

    def fault() -> Figures:
        container = stack.container_of("slow-0")
        began = time.monotonic()
        stack.host.sh(f"docker stop {container}")
        took = time.monotonic() - began
        stack.host.sh(f"docker start {container}")
        # The soft shutdown of 5 s, not the grace time of 45 s, ends it.
        return {"seconds that the stop took": (took, 15.0), **resumption(stack, now())}

    return under_load(stack, fault, before=1)


@case("a process of a worker's pool is killed (SIGKILL) while it works", among=CASES)
def pool_process_killed(stack: Deployed) -> Figures:
    def fault() -> Figures:
        stack.submit("victim", 1.2 * stack.lease)
        began = stack.wait_for_start("victim")
        (run,) = (run for run in stack.ledger.runs() if run.key == "victim")
        # The task's own number is that of its container; the image has no `kill`.
        script = f"import os; os.kill({run.pid}, 9)"
        stack.host.sh(f"docker exec {stack.container_of('victim')} python3 -c '{script}'")
        again = stack.wait_for_start("victim", 2)
        return {"seconds until its task starts again, 5 of them on purpose": (again - began, None)}

    return under_load(stack, fault, before=1)


@case("poison: a task that kills its whole container each time", among=CASES)
def poison_container(stack: Deployed) -> Figures:
    def fault() -> Figures:
        stack.submit_poison("poison", "worker")
        poison = stack.ledger.submitted["poison"]
        wait_for(poison.ready, 5 * stack.lease + 60)
        starts = sum(1 for run in stack.ledger.runs() if run.key == "poison")
        return {"starts of the poison": (float(starts), 3.0)}

    return under_load(stack, fault, before=1)


@case(
    "SIGSTOP of every process of a worker, twenty publishes, SIGKILL: the window of the fetch",
    among=CASES,
)
def fetch_window(stack: Deployed) -> Figures:
    """The other worker is stopped meanwhile, so that all twenty meet the one that stands still."""
    first, second = WORKERS
    stack.host.sh(f"docker stop {second}")
    try:
        stack.host.sh(f"kill -STOP {_processes(stack, first)}")
        for number in range(20):
            stack.submit(f"window-{number}", 0.02)
        time.sleep(1)
        stack.host.kill(first)
    finally:
        stack.host.sh(f"docker start {second}")
    return {}


def _processes(stack: Deployed, container: str) -> str:
    """Return the host's numbers of a container's processes."""
    lines = stack.host.sh(f"docker top {container} -eo pid").split()
    return " ".join(word for word in lines if word.isdigit())


# --- Redis


@case("Redis is away (docker stop) for two leases", among=CASES)
def redis_away(stack: Deployed) -> Figures:
    def fault() -> Figures:
        stack.host.sh("docker stop redis-celery")
        time.sleep(2 * stack.lease)
        stack.host.sh("docker start redis-celery")
        return _back(stack)

    return under_load(stack, fault)


@case(
    "Redis takes connections and answers nothing (docker pause) for two leases",
    among=CASES,
)
def redis_half_open(stack: Deployed) -> Figures:
    def fault() -> Figures:
        stack.host.sh("docker pause redis-celery")
        try:
            time.sleep(2 * stack.lease)
        finally:
            stack.host.sh("docker unpause redis-celery")
        return _back(stack)

    return under_load(stack, fault)


@case(
    "Redis' memory is full for two leases: submitters are refused, accepted tasks end",
    among=CASES,
)
def redis_full(stack: Deployed) -> Figures:
    def fault() -> Figures:
        with stack.admin() as admin:
            before = admin.config_get("maxmemory")["maxmemory"]
            ballast = ["ballast-0", "ballast-1"]  # no value is larger than proto-max-bulk-len
            for key in ballast:
                admin.setrange(key, 10_000_000, "x")
            used = int(admin.info("memory")["used_memory"])
            admin.config_set("maxmemory", int(0.98 * used))
            time.sleep(2 * stack.lease)
            admin.delete(*ballast)
            admin.config_set("maxmemory", before)
        return resumption(stack, now())

    return under_load(stack, fault)


@case(
    "Redis is killed in the middle of a write: its append-only file ends in half a command",
    among=CASES,
)
def torn_file(stack: Deployed) -> Figures:
    def fault() -> Figures:
        stack.host.sh("docker update --restart=no redis-celery")
        stack.host.kill("redis-celery")
        wait_for(lambda: not stack.redis_answers(), 20)
        stack.host.sh(
            f"printf '*3\\r\\n$3\\r\\nSET\\r\\n$9\\r\\nhalf' >>$(ls {AOF}/appendonlydir/*.incr.aof)"
        )
        stack.host.sh("docker update --restart=unless-stopped redis-celery")
        stack.host.sh("docker start redis-celery")
        return _back(stack)

    return under_load(stack, fault)


@case("the disk of Redis' append-only file is full for one lease", among=CASES)
def disk_full(stack: Deployed) -> Figures:
    with _small_disk(stack):

        def fault() -> Figures:
            stack.host.sh(f"dd if=/dev/zero of={AOF}/ballast bs=64k 2>/dev/null || true")
            filled = now()
            time.sleep(stack.lease)
            refused = [at for at in stack.ledger.refused_at if at >= filled]
            stack.host.sh(f"rm {AOF}/ballast")
            figures = resumption(stack, now())
            return {"submissions refused with an error": (float(len(refused)), None), **figures}

        figures = under_load(stack, fault)
        stack.ledger.settle(3 * stack.lease + 20)
    return figures


@contextmanager
def _small_disk(stack: Deployed) -> Iterator[None]:
    """Have Redis' files on a disk with 32 MB left; a tmpfs, which is full as a disk is."""
    aside = f"{AOF}.aside"
    away, there = "docker stop redis-celery", "docker start redis-celery"
    size = f"$(( $(du -sm {AOF}.copy | cut -f1) + 32 ))m"
    stack.host.sh(
        f"{away} && mv {AOF} {aside} && cp -a {aside} {AOF}.copy && mkdir {AOF}"
        f" && mount -t tmpfs -o size={size} tmpfs {AOF} && cp -a {AOF}.copy/. {AOF}/"
        f" && chown --reference={aside} {AOF} && rm -r {AOF}.copy && {there}"
    )
    wait_for(stack.redis_answers, 60)
    try:
        yield
    finally:
        stack.host.sh(
            f"rm -f {AOF}/ballast; {away}; rm -rf {aside}/* && cp -a {AOF}/. {aside}/"
            f" && umount {AOF} && rmdir {AOF} && mv {aside} {AOF} && {there}"
        )
        wait_for(stack.redis_answers, 60)


# --- Ray


@case("the head of Ray is killed (SIGKILL) in the middle of a job", among=CASES)
def ray_head_killed(stack: Deployed) -> Figures:
    def fault() -> Figures:
        stack.submit_job("victim", 6.0)
        stack.wait_for_start("victim")
        stack.host.kill("ray-head")
        killed = now()
        again = stack.wait_for_start("victim", 2, 120)
        wait_for(stack.ledger.submitted["victim"].ready, 60)
        return {"seconds until its job starts again": (again - killed, None)}

    return under_load(stack, fault)


@case("a task on Ray takes more memory than Ray has", among=CASES)
def ray_memory(stack: Deployed) -> Figures:
    def fault() -> Figures:
        stack.publish("greedy", "chaos.greedy", [4096])
        began = now()
        greedy = stack.ledger.submitted["greedy"]
        wait_for(greedy.ready, 240)
        assert greedy.state == "FAILURE", greedy.state
        assert "low on memory" in str(greedy.result), greedy.result
        return {"seconds until its caller is told why": (now() - began, None)}

    return under_load(stack, fault)


# --- the engine, the host


@case(
    "the engine is stopped (SIGTERM), and with it all containers at once, and started",
    among=CASES,
)
def engine_restarted(stack: Deployed) -> Figures:
    def fault() -> Figures:
        stack.host.stop_engine()
        time.sleep(2)
        stack.host.start_engine()
        return _after_start(stack)

    return under_load(stack, fault)


@case("the host loses power (every process is gone at once) and is switched on", among=CASES)
def host_power(stack: Deployed) -> Figures:
    def fault() -> Figures:
        stack.host.lose_power()
        time.sleep(5)
        stack.host.start()
        return _after_start(stack)

    return under_load(stack, fault)


def _after_start(stack: Deployed) -> Figures:
    """Containers start side by side, and Redis is not the last."""
    seconds, _ = _back(stack)[RESUMED]
    return {f"{RESUMED}, the workers' own start included": (seconds, None)}


# --- updates


@case(
    "two updates (make update) of the tasks' code under load, two workers on the queue", among=CASES
)
def two_updates(stack: Deployed) -> Figures:
    def fault() -> Figures:
        began = now()
        for number in range(2):
            _code(stack.deployment, f'\nVERSION = "{number} {began}"\n')
            _update(stack.deployment, expected=0)
        starts = [run.started for run in stack.ledger.runs() if run.started >= began]
        gaps = [later - earlier for earlier, later in itertools.pairwise(starts)]
        refused = [at for at in stack.ledger.refused_at if at >= began]
        return {
            "longest time in which no task began, in seconds": (max(gaps, default=999.0), 5.0),
            "submissions refused": (float(len(refused)), 0.0),
            "seconds for both": (now() - began, None),
        }

    return under_load(stack, fault)


@case("an update whose code cannot be imported", among=CASES)
def broken_update(stack: Deployed) -> Figures:
    def fault() -> Figures:
        before = {box["Name"]: box["Id"] for box in stack.host.inspect(*WORKERS)}
        _code(stack.deployment, '\nraise RuntimeError("broken on purpose")\n')
        try:
            said = _update(stack.deployment, expected=2)
        finally:
            package.write(stack.deployment.source)
        assert "broken on purpose" in said, said[-1500:]
        after = {box["Name"]: box["Id"] for box in stack.host.inspect(*WORKERS)}
        return {"workers replaced": (float(sum(after[n] != before[n] for n in before)), 0.0)}

    return under_load(stack, fault)


@case("version skew: a worker of the version before stays beside the new ones", among=CASES)
def version_skew(stack: Deployed) -> Figures:
    old = "celery-worker-default-9"
    stack.copy(WORKERS[0], old, CELRAY_NODE_NAME="default-9")
    newer = (
        '\n\n@shared_task(name="chaos.newer")\n'
        "def newer(key: str, seconds: float, more: str) -> str:\n"
        "    return work(key, seconds) + more\n"
    )
    try:
        wait_for(lambda: " ready." in stack.host.sh(f"docker logs {old} 2>&1"), 60)

        def fault() -> Figures:
            _code(stack.deployment, newer)
            _update(stack.deployment, expected=0)
            for number in range(30):
                stack.publish(f"newer-{number}", "chaos.newer", [0.2, "!"])
            stack.ledger.settle(3 * stack.lease)
            states = [stack.ledger.submitted[f"newer-{n}"].state for n in range(30)]
            return {
                "new tasks that failed, of 30": (float(states.count("FAILURE")), 0.0),
            }

        return under_load(stack, fault)
    finally:
        stack.host.sh(f"docker rm --force {old}")


def _code(deployment: Deployment, more: str) -> None:
    package.write(deployment.source, more)


def _update(deployment: Deployment, expected: int) -> str:
    said = deployment.host.make("update")
    if (said.code != 0) != (expected != 0):
        message = f"make update: exit status {said.code}: {said.text[-2000:]}"
        raise HostError(message)
    return said.text


# --- Beat


def _ticks(stack: Deployed, since: float) -> Figures:
    """Return figures of Beat's ticks, with limits: none sent twice, no gap above a Beat's start."""
    ticks = [tick for tick in stack.ledger.ticks() if tick >= since]
    gaps = [later - earlier for earlier, later in itertools.pairwise(ticks)]
    twice = sum(1 for gap in gaps if gap < package.TICK_SECONDS / 2)
    return {
        "ticks of a schedule of 5 s sent twice": (float(twice), 0.0),
        "longest time between two": (max(gaps, default=999.0), BEAT_LOCK_SECONDS + 15),
    }


def _beat(stack: Deployed, fault: Callable[[], None], after: float) -> Figures:
    began = now()
    wait_for(lambda: len(stack.ledger.ticks()) >= 2, 60)

    def faulty() -> Figures:
        fault()
        time.sleep(after)
        return _ticks(stack, began)

    return under_load(stack, faulty, before=0)


@case("Beat's container is killed (SIGKILL)", among=CASES)
def beat_killed(stack: Deployed) -> Figures:
    return _beat(stack, lambda: stack.host.kill("celery-beat"), BEAT_LOCK_SECONDS + 20)


@case("a second Beat runs beside the first", among=CASES)
def beat_twice(stack: Deployed) -> Figures:
    try:
        return _beat(stack, lambda: stack.copy("celery-beat", "celery-beat-2"), 30)
    finally:
        stack.host.sh("docker rm --force celery-beat-2")


@case("Beat's lock is deleted while a second Beat waits for it", among=CASES)
def beat_lock_deleted(stack: Deployed) -> Figures:
    def fault() -> None:
        stack.copy("celery-beat", "celery-beat-2")
        wait_for(lambda: "beat" in stack.host.sh("docker logs celery-beat-2 2>&1"), 30)
        time.sleep(3)
        with stack.admin() as admin:
            assert admin.delete("redbeat::lock"), "Beat has no lock of this name"

    try:
        return _beat(stack, fault, 2 * BEAT_LOCK_SECONDS)
    finally:
        stack.host.sh("docker rm --force celery-beat-2")
