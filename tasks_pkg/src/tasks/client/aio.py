"""The client for asyncio: every call runs in a thread, and waiting blocks no thread."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar

from tasks.client.catalogue import TaskInfo
from tasks.client.errors import NotFinishedError
from tasks.client.handle import Cancelled, Status, SubmittedTask
from tasks.client.sync import Client

P = ParamSpec("P")
T = TypeVar("T")

#: Concurrent calls; each is one request to Redis.
_THREADS = 4
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.02, 0.5


class AsyncTask:
    """One task; see :class:`tasks.client.SubmittedTask`, whose methods these are."""

    def __init__(self, client: "AsyncClient", task: SubmittedTask) -> None:
        self._client = client
        self._task = task
        self.id = task.id
        self.name = task.name

    async def status(self) -> Status:
        """Look once."""
        return await self._client.call(self._task.status)

    async def follow(self, timeout: float | None = None) -> AsyncIterator[Status]:  # noqa: ASYNC109
        """Yield the status whenever it changes, to the end or for ``timeout`` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        told: Status | None = None
        pause = _FIRST_PAUSE_SECONDS
        while True:
            status = await self._client.call(self._task.peek)
            if status != told:
                told = status
                yield status
            if status.finished or (deadline is not None and time.monotonic() >= deadline):
                return
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)

    async def wait(self, timeout: float | None = None) -> Status:  # noqa: ASYNC109
        """Wait for the end.

        Raises:
            NotFinishedError: not within ``timeout`` seconds; the task goes on.
        """
        status = Status(self.id, "UNKNOWN")
        async for seen in self.follow(timeout):
            status = seen
        if not status.finished:
            message = f"task {self.id} has not ended within {timeout:g} s; it goes on"
            raise NotFinishedError(message)
        return status

    async def result(self, timeout: float | None = None) -> Any:  # noqa: ANN401, ASYNC109
        """Wait for the result; raise as :meth:`tasks.client.SubmittedTask.result` does."""
        return (await self.wait(timeout)).outcome()

    async def cancel(self, wait: float = 10.0) -> Cancelled:
        """End the task wherever it is, together with its Ray job."""
        return await self._client.call(self._task.cancel, wait)

    async def trace(self) -> dict[str, Any]:
        """Return all known data of the task."""
        return await self._client.call(self._task.trace)

    async def log(self) -> str:
        """Return the log of the task's Ray job so far."""
        return await self._client.call(self._task.log)


class AsyncClient:
    """Sends tasks to one service, and follows them; see :class:`tasks.client.Client`."""

    def __init__(
        self,
        credentials: Path | str | None = None,
        *,
        broker: str | None = None,
        backend: str | None = None,
    ) -> None:
        self.sync = Client(credentials, broker=broker, backend=backend)
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="celray-client")

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call of the synchronous client in a thread."""
        work = partial(function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def submit(
        self,
        name: str,
        /,
        *,
        queue: str | None = None,
        **arguments: Any,  # noqa: ANN401 - any argument of the task
    ) -> AsyncTask:
        """Check the arguments against the task's contract, then send it."""
        task = await self.call(partial(self.sync.submit, name, queue=queue, **arguments))
        return AsyncTask(self, task)

    def task(self, task_id: str) -> AsyncTask:
        """Return a handle for a task that was sent before, by any client."""
        return AsyncTask(self, self.sync.task(task_id))

    async def tasks(self) -> dict[str, TaskInfo]:
        """Return the tasks that are installed here, by name."""
        return await self.call(self.sync.tasks)

    async def workers(self) -> dict[str, dict[str, Any]]:
        """Return the workers' descriptions of themselves."""
        return await self.call(self.sync.workers)

    async def queues(self) -> dict[str, dict[str, Any]]:
        """Return every queue."""
        return await self.call(self.sync.queues)

    async def close(self) -> None:
        """Close every connection and thread."""
        await self.call(self.sync.close)
        self._pool.shutdown()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
