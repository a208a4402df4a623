"""Run tasks in the caller's own process: the same code, without broker, worker or service.

::

    from tasks.local import Local

    result = Local(datasets="data", models="models").run(
        "distributed_training", dataset_path="wine.csv", model_config={"target": "quality"}
    )

Exceptions are the task's own. Models, manifests and run folders are those of a service.
"""

import sys
import uuid
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from celery import Celery, Task
from celery.exceptions import Retry

from tasks.client import catalogue
from tasks.contracts import InvalidArgumentsError
from tasks.settings import local_settings, using

Progress = dict[str, Any]


class _LocalTask(Task):  # type: ignore[misc]  # celery has no types
    """A task that reports its progress to a function of the caller."""

    abstract = True
    max_retries = 2
    on_progress: ClassVar[Callable[[Progress], None] | None] = None

    def update_state(self, state: str | None = None, meta: Any = None, **_: object) -> None:  # noqa: ANN401, ARG002
        """Pass on the progress that a worker would write into the result store."""
        if _LocalTask.on_progress is not None and isinstance(meta, dict):
            _LocalTask.on_progress(meta)

    def retry(
        self,
        args: object = None,  # noqa: ARG002 - Celery's signature
        kwargs: object = None,  # noqa: ARG002
        exc: BaseException | None = None,
        **_: object,
    ) -> NoReturn:
        """Raise the error: nothing would deliver the task again, and the caller is present."""
        raise exc or sys.exc_info()[1] or Retry("the task asks to be run again later")


class Local:
    """Runs tasks in this process, one at a time.

    Args:
        datasets: stands for ``/datasets`` of a service; relative paths in arguments are under it.
        models: stands for ``/models``: the place of models, outputs and run folders.
        ray: whether Ray jobs run on a Ray that is started for each; False runs them without Ray.
    """

    def __init__(
        self, datasets: Path | str = ".", models: Path | str = "models", *, ray: bool = True
    ) -> None:
        self._settings = local_settings(Path(datasets), Path(models), "ray" if ray else "plain")
        self._app = Celery("celray-local", task_cls=_LocalTask, set_as_current=False)
        self._app.conf.update(broker_url="memory://", result_backend="disabled://")
        self._tasks = catalogue.load(self._app)

    def run(
        self,
        name: str,
        /,
        *,
        on_progress: Callable[[Progress], None] | None = None,
        **arguments: Any,  # noqa: ANN401 - any argument of the task
    ) -> Any:  # noqa: ANN401 - the task's return value
        """Run a task to its end and return its result.

        Args:
            name: the task's name, or an unambiguous end of it.
            on_progress: called with ``phase``, ``done``, ``total``, ``message`` as the job
                proceeds. Use :meth:`call` for a task with a parameter of that name.
            arguments: the task's arguments.

        Raises:
            InvalidArgumentsError: an argument or the data are wrong.
            JobFailedError: the task's job failed.
            Exception: any other exception of the task.
        """
        task = self._tasks[catalogue.resolve(name, self._tasks)]
        if on_progress is not None and "on_progress" in signature(task.run).parameters:
            message = (
                f"{name}: 'on_progress' is a parameter of the task and of run; run it as "
                f"local.call({name!r}, {{'on_progress': ...}})"
            )
            raise InvalidArgumentsError(message)
        return self.call(name, arguments, on_progress)

    def call(
        self,
        name: str,
        arguments: dict[str, Any],
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Any:  # noqa: ANN401 - the task's return value
        """Do the same as :meth:`run`, with the task's arguments in a dictionary."""
        task = self._tasks[catalogue.resolve(name, self._tasks)]
        _LocalTask.on_progress = on_progress
        with using(self._settings):
            done = task.apply(kwargs=arguments, task_id=str(uuid.uuid4()), throw=True)
        return done.get()
