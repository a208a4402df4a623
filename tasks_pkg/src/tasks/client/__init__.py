"""Send tasks and follow them from Python: :class:`Client`, and :class:`AsyncClient` for asyncio.

::

    from tasks.client import Client

    client = Client()  # credentials: see tasks.credentials.load_client_settings
    job = client.submit("ping")
    print(job.result(timeout=10))
"""

from tasks.client.aio import AsyncClient, AsyncTask
from tasks.client.errors import (
    AmbiguousNameError,
    ClientError,
    NotFinishedError,
    NotNotedError,
    NotPermittedError,
    ServiceUnavailableError,
    TaskCancelledError,
    TaskFailedError,
    UnknownIdError,
    UnknownTaskError,
)
from tasks.client.handle import Cancelled, Status, SubmittedTask
from tasks.client.sync import Client

__all__ = [
    "AmbiguousNameError",
    "AsyncClient",
    "AsyncTask",
    "Cancelled",
    "Client",
    "ClientError",
    "NotFinishedError",
    "NotNotedError",
    "NotPermittedError",
    "ServiceUnavailableError",
    "Status",
    "SubmittedTask",
    "TaskCancelledError",
    "TaskFailedError",
    "UnknownIdError",
    "UnknownTaskError",
]
