"""What a caller can be told, and the exit status of ``celray`` that goes with it."""

from typing import ClassVar


class ClientError(Exception):
    """Something that the person who sends tasks should know, in one line.

    Attributes:
        exit_status: of the command line; documented in docs/submit.md.
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
    """A short name that several tasks have."""

    exit_status = 2


class UnknownIdError(ClientError):
    """Nothing is known of that id: never sent, or its result has expired."""

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
    """Redis is there and does not take what would keep a task cancelled; its workers know."""


class NotPermittedError(ServiceUnavailableError):
    """Redis does not let this user do that; an operator's credentials may."""

    exit_status = 77
