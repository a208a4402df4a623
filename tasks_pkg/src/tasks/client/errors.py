"""The errors of the client, each with the exit status of ``celray``."""

from typing import ClassVar


class ClientError(Exception):
    """An error for the person who sends tasks, in one line.

    Attributes:
        exit_status: the exit status of the command line; documented in docs/submit.md.
    """

    exit_status: ClassVar[int] = 1


class TaskFailedError(ClientError):
    """The task ran and failed. ``kind`` is the name of the exception that it raised."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}" if message else kind)
        self.kind = kind


class UnknownTaskError(ClientError):
    """No task has that name."""

    exit_status = 2


class AmbiguousNameError(ClientError):
    """A short name fits several tasks."""

    exit_status = 2


class UnknownIdError(ClientError):
    """The id is unknown: it was never sent, or its result has expired."""

    exit_status = 3


class TaskCancelledError(ClientError):
    """The task was cancelled."""

    exit_status = 4


class NotFinishedError(ClientError, TimeoutError):
    """The task has no result yet."""

    exit_status = 5


class ServiceUnavailableError(ClientError):
    """Redis, the workers or Ray do not answer."""

    exit_status = 69


class NotNotedError(ServiceUnavailableError):
    """Redis rejected the record that keeps a task cancelled; running workers were notified."""


class NotPermittedError(ServiceUnavailableError):
    """Redis does not permit this user to do that; an operator's credentials may."""

    exit_status = 77
