"""A client's connection to a service: addresses and passwords, from the environment or a file."""

import os
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, SecretStr, ValidationError

PREFIX = "CELRAY_"


class ConfigurationError(Exception):
    """A mistake in the deployment, in one line for the person who reads the log."""


def _redis_url(value: SecretStr) -> SecretStr:
    try:
        url = urlsplit(value.get_secret_value())
        fine = url.scheme in {"redis", "rediss"} and url.hostname and url.port != 0
    except ValueError:  # such as a port that is no number; its text would contain the URL
        fine = False
    if not fine:
        message = "must be a URL of the form redis://user:password@host:port/db"
        raise ValueError(message)
    return value


RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]


class Strict(BaseModel):
    """Settings in which a misspelt key is an error; validated on first use."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class ClientSettings(Strict):
    """The connection of a client to the service; ``origin`` names its source.

    Ray's address and token are only for clients that follow or stop Ray jobs themselves.
    """

    broker_url: RedisUrl
    result_backend_url: RedisUrl
    ray_address: str | None = None
    ray_auth_token: SecretStr | None = None
    origin: str


#: Field of :class:`ClientSettings` -> its name in the output of `make credentials`.
CLIENT_NAMES = {
    "broker_url": "CELERY_BROKER_URL",
    "result_backend_url": "CELERY_RESULT_BACKEND",
    "ray_address": "RAY_ADDRESS",
    "ray_auth_token": "RAY_AUTH_TOKEN",
}
#: An operator's names, used instead if present: an operator may also cancel and inspect.
OPERATOR_NAMES = {
    "broker_url": f"{PREFIX}OPERATOR_BROKER_URL",
    "result_backend_url": f"{PREFIX}OPERATOR_RESULT_BACKEND",
}
CREDENTIALS_VARIABLE = f"{PREFIX}CREDENTIALS"


def credentials_file() -> Path:
    """Return the path of a user's credentials: ``~/.config/celray/credentials``."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base, "celray", "credentials")


def load_client_settings(file: Path | None = None) -> ClientSettings:
    """Read a client's connection: ``file``, else the environment, else the user's own file.

    The environment counts when it has ``CELERY_BROKER_URL`` or ``CELERY_RESULT_BACKEND``;
    ``CELRAY_CREDENTIALS`` names a file in place of the user's own.

    Raises:
        ConfigurationError: there is none, it is incomplete, or others can read it.
    """
    needed = (CLIENT_NAMES["broker_url"], CLIENT_NAMES["result_backend_url"])
    if file is None and any(map(os.environ.get, needed)):
        return _client_settings(dict(os.environ), "the environment")
    named = os.environ.get(CREDENTIALS_VARIABLE)
    place = file or Path(named or credentials_file()).expanduser()
    if not place.exists() and file is None and not named:
        message = (
            f"no connection: {CLIENT_NAMES['broker_url']} is not set and {place} does not exist; "
            "in a clone of celray run `make client HOST=...`, or save what `make credentials` "
            "prints and name it with --credentials FILE"
        )
        raise ConfigurationError(message)
    try:
        readable_by = place.stat().st_mode & 0o077
        text = place.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "is not text"
        message = f"credentials {place}: {why}; give the file that `make credentials` was saved in"
        raise ConfigurationError(message) from None
    if readable_by:
        message = f"credentials {place}: others can read this file; chmod 600 {place}"
        raise ConfigurationError(message)
    values: dict[str, str] = {}
    for line in text.splitlines():
        name, sign, value = line.strip().removeprefix("export ").partition("=")
        if sign and not name.startswith("#"):
            values[name.strip()] = value.strip().strip("\"'")
    return _client_settings(values, str(place))


def _client_settings(values: dict[str, str], origin: str) -> ClientSettings:
    names = CLIENT_NAMES
    if all(values.get(name) for name in OPERATOR_NAMES.values()):
        names = CLIENT_NAMES | OPERATOR_NAMES
    given = {field: values[name] for field, name in names.items() if values.get(name)}
    try:
        return ClientSettings.model_validate({**given, "origin": origin})
    except ValidationError as error:
        found = "; ".join(
            f"{names[str(e['loc'][0])]}: "
            + ("is missing" if e["type"] == "missing" else e["msg"].removeprefix("Value error, "))
            for e in error.errors()
        )
        message = f"credentials from {origin}: {found}; `make credentials` prints the right ones"
        raise ConfigurationError(message) from None
