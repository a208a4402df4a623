"""A client for Ray's Jobs API over plain HTTP, so that it needs no Ray."""

from typing import TYPE_CHECKING, Any

from tasks.client.connection import place
from tasks.client.errors import ServiceUnavailableError
from tasks.credentials import ClientSettings

if TYPE_CHECKING:
    import requests

_NOT_FOUND = 404


class Jobs:
    """The Jobs API, if the credentials name it.

    Args:
        settings: provide Ray's address and token.
        timeout: time limit for a connection or an answer, in seconds.
    """

    def __init__(self, settings: ClientSettings, timeout: float) -> None:
        self._address = settings.ray_address
        self._token = settings.ray_auth_token
        self._timeout = timeout
        self._origin = settings.origin

    @property
    def configured(self) -> bool:
        """Return whether the credentials name a Ray cluster."""
        return self._address is not None

    def details(self, submission_id: str) -> dict[str, Any] | None:
        """Return Ray's details of a job; None if Ray does not know it.

        Raises:
            ServiceUnavailableError: Ray does not answer, or refuses the token.
        """
        answer = self._ask("GET", f"/api/jobs/{submission_id}")
        return None if answer is None else dict(answer.json())

    def log(self, submission_id: str) -> str | None:
        """Return the driver's log so far; None if Ray does not know the job.

        Raises:
            ServiceUnavailableError: Ray does not answer, or refuses the token.
        """
        answer = self._ask("GET", f"/api/jobs/{submission_id}/logs")
        return None if answer is None else str(answer.json().get("logs") or "")

    def stop(self, submission_id: str) -> bool:
        """Ask Ray to stop a job; return False if Ray does not know it or it has ended.

        Raises:
            ServiceUnavailableError: Ray does not answer, or refuses the token.
        """
        answer = self._ask("POST", f"/api/jobs/{submission_id}/stop")
        return answer is not None and bool(answer.json().get("stopped"))

    def _ask(self, method: str, path: str) -> "requests.Response | None":
        import requests  # noqa: PLC0415 - only needed to follow or stop Ray jobs

        if self._address is None:
            message = f"RAY_ADDRESS is not in the credentials ({self._origin})"
            raise ServiceUnavailableError(message)
        token = self._token.get_secret_value() if self._token else ""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            answer = requests.request(
                method, self._address.rstrip("/") + path, headers=headers, timeout=self._timeout
            )
        except requests.RequestException as error:
            message = f"Ray at {place(self._address)} does not answer ({type(error).__name__})"
            raise ServiceUnavailableError(message) from None
        if answer.status_code == _NOT_FOUND:
            return None
        if not answer.ok:
            why = "refuses the token" if answer.status_code in {401, 403} else "answers with"
            message = f"Ray at {place(self._address)} {why} (HTTP {answer.status_code})"
            raise ServiceUnavailableError(message)
        return answer
