"""Python programs (``python -m MODULE``) as real processes that start in a tenth of the time.

A helper process (:mod:`multiprocessing.forkserver`) imports the libraries once, and forks for each
program. It does not import our own code or Ray: both read the environment when they are imported,
and each program has its own.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from unittest.mock import patch

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        "celery.bin.celery",
        "celery.apps.worker",
        "celery.apps.beat",
        "celery.concurrency.prefork",
        "celery.backends.redis",
        "celery.worker.consumer",
        "kombu.transport.redis",
        "pydantic_settings",
        "redbeat",
        "apprise",
        "requests",
        "rich.console",
        "pytest",  # multiprocessing executes the parent's main module again
    ]
)
#: Variables that Celery reads when it is imported; deployed workers have them.
_READ_BY_CELERY = {"REMAP_SIGTERM": "SIGQUIT"}


def _become(
    module: str, arguments: Sequence[str], env: Mapping[str, str], files: tuple[Path, Path, Path]
) -> None:
    """Run a module as ``python -m`` does, with no state of the tests' own process."""
    os.setsid()
    os.environ.clear()
    os.environ.update(env)
    for number, path in enumerate(files):
        how = os.O_WRONLY | os.O_CREAT | os.O_APPEND if number else os.O_RDONLY
        opened = os.open(path, how)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - until the process ends
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    ours = [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path]
    pythons = [path for path in sys.path if path.startswith((sys.prefix, sys.base_prefix))]
    sys.path[:] = [str(Path.cwd()), *ours, *pythons]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


class Program:
    """A running ``python -m MODULE`` in its own session, with methods of :class:`subprocess.Popen`.

    Args:
        module: the module to run.
        arguments: its command line.
        env: its whole environment.
        out: the file to which its standard output is appended.
        err: the file to which its standard error is appended; ``out`` by default.
        stdin: the file that is its standard input.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - as many as a process has
        self,
        module: str,
        arguments: Sequence[str],
        env: Mapping[str, str],
        out: Path,
        err: Path | None = None,
        stdin: Path = Path(os.devnull),
    ) -> None:
        self._process: ForkServerProcess = _FORKS.Process(
            target=_become, args=(module, list(arguments), dict(env), (stdin, out, err or out))
        )
        with patch.dict(os.environ, _READ_BY_CELERY):  # the first start also starts the helper
            self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal; None while the program runs."""
        return self._process.exitcode

    #: The same under the name that :class:`subprocess.Popen` has.
    returncode = property(poll)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the program's end and return its exit status.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        self._process.join(timeout)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0.0)
        return status

    def send_signal(self, number: int) -> None:
        """Send the program a signal, unless it has ended."""
        if self.poll() is None:
            # The helper process has seen its end, and this one is about to be told.
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


def run(
    module: str, *arguments: str, env: Mapping[str, str], stdin: str = "", timeout: float = 60.0
) -> "subprocess.CompletedProcess[str]":
    """Run ``python -m MODULE`` to its end and capture its output, like :func:`subprocess.run`.

    Raises:
        subprocess.TimeoutExpired: it did not end in time, and was killed.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, out, err = (Path(folder, name) for name in ("in", "out", "err"))
        given.write_text(stdin)
        program = Program(module, arguments, env, out, err, given)
        try:
            status = program.wait(timeout)
        finally:
            program.kill()
        # The files do not exist if the program ended before it opened them.
        said = [path.read_text() if path.exists() else "" for path in (out, err)]
        return subprocess.CompletedProcess([module, *arguments], status, *said)
