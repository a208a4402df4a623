"""Parallel function calls: on Ray or, in a job without Ray, on local processes.

A job that uses only this module gives the same results with both engines.
"""

import logging
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import cache
from itertools import islice
from typing import Any, Literal, TypeVar

from .protocol import ENGINE_VARIABLE, InfrastructureError

T = TypeVar("T")
R = TypeVar("R")


def engine() -> Literal["ray", "plain"]:
    """Return the engine that this job runs on."""
    return "plain" if os.environ.get(ENGINE_VARIABLE) == "plain" else "ray"


def connect() -> None:
    """Connect to the cluster that runs this job; a local job starts its own Ray."""
    if engine() == "ray":
        import ray  # noqa: PLC0415 - takes a second, which a plain job saves

        if not ray.is_initialized():
            # The Jobs API names the cluster in RAY_ADDRESS. Without it use "local": otherwise Ray
            # takes whichever cluster started last on this machine, and hangs if that is gone.
            address = os.environ.get("RAY_ADDRESS") or "local"
            ray.init(address=address, logging_level=logging.WARNING)


def cpus() -> int:
    """Return the number of CPUs of the whole cluster, or those that this process may use.

    Raises:
        InfrastructureError: the cluster has none.
    """
    if engine() == "plain":
        return len(os.sched_getaffinity(0))
    import ray  # noqa: PLC0415

    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    there = int(resources.get("CPU", 0))
    if there < 1:
        raise InfrastructureError("no_cpus", "The Ray cluster offers no CPU.")
    return there


def each(
    function: Callable[[T], R],
    items: Iterable[T],
    *,
    concurrency: int | None = None,
    cpus_each: float = 1.0,
) -> Iterator[tuple[int, R]]:
    """Call ``function`` for every item; yield each result with its item's index once it is there.

    Items are taken from the iterable as calls end. So at most ``concurrency`` items are in memory,
    plus as many that wait for a CPU: a process whose call has ended begins the next while the
    caller handles the result. Call :func:`connect` first.

    Args:
        function: a function of a module in this package, so that every process can import it. A
            small :func:`functools.partial` of one also works: it is sent with every call, because a
            process that fetched it from Ray's object store would wait for other processes.
        items: the arguments, one per call; they must be picklable.
        concurrency: the most concurrent calls; by default :func:`cpus`.
        cpus_each: CPUs that Ray reserves for a call.

    Raises:
        Exception: a call raised it; no further calls are started. Ray repeats a call whose process
            died; ``ray.exceptions`` and ``BrokenProcessPool`` mean that it gave up.
    """
    at_once = max(1, concurrency or cpus())
    numbered = iter(enumerate(items))
    if engine() == "ray":
        # Ray itself begins no more calls than there are CPUs.
        started = at_once if concurrency else 2 * at_once
        yield from _on_ray(function, numbered, started, cpus_each)
    elif at_once == 1:
        yield from ((index, function(item)) for index, item in numbered)
    else:
        yield from _on_processes(function, numbered, at_once)


def _on_ray(
    function: Callable[[T], R], numbered: Iterator[tuple[int, T]], started: int, cpus_each: float
) -> Iterator[tuple[int, R]]:
    import ray  # noqa: PLC0415
    from ray.exceptions import RayTaskError  # noqa: PLC0415

    call = _remote(cpus_each)
    running = {call.remote(function, item): index for index, item in islice(numbered, started)}
    try:
        while running:
            (reference,), _ = ray.wait(list(running), num_returns=1)
            index = running.pop(reference)
            try:
                result = ray.get(reference)
            except RayTaskError as error:
                # Raise the job's own error, not Ray's wrapper; an error of Ray has no other cause.
                raise (error.cause if isinstance(error.cause, Exception) else error) from None
            running |= {call.remote(function, item): at for at, item in islice(numbered, 1)}
            yield index, result
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


@cache
def _remote(cpus_each: float) -> Any:  # noqa: ANN401 - Ray's are of no type
    """Return :func:`_call` on Ray: one object for all calls, since processes load each new one."""
    import ray  # noqa: PLC0415

    return ray.remote(num_cpus=cpus_each)(_call)  # Ray itself refuses a partial


def _call(function: Callable[[T], R], item: T) -> R:
    return function(item)


def _on_processes(
    function: Callable[[T], R], numbered: Iterator[tuple[int, T]], at_once: int
) -> Iterator[tuple[int, R]]:
    # Not forked: polars and XGBoost hold threads, which a forked child would lack.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(at_once, mp_context=context)
    done = False
    try:
        running: dict[Future[R], int] = {
            pool.submit(function, item): index for index, item in islice(numbered, 2 * at_once)
        }
        while running:
            ended, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in ended:
                index, result = running.pop(future), future.result()
                running |= {pool.submit(function, i): at for at, i in islice(numbered, 1)}
                yield index, result
        done = True
    finally:
        # Finished processes end by themselves while the caller continues. The others must not write
        # any more when the caller cleans up.
        pool.shutdown(wait=not done, cancel_futures=True)
