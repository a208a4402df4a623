"""The model registry of an MLflow server, over its REST API; it needs only the library requests.

A registered model belongs to celray if it has the tag ``celray.dataset_path``;
``celray.model_config`` and ``celray.gate`` are JSON. The version in use has the alias ``champion``,
the one before it ``previous``. The models' files stay below the models folder; a version's tags
hold their paths.
"""

import dataclasses
import json
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from hashlib import sha256
from pathlib import Path
from typing import Any

import requests

from ..files import locked
from ..protocol import InfrastructureError, InputProblemError
from .versions import State, Version

PREFIX = "celray."
CHAMPION, PREVIOUS = "champion", "previous"
#: A version without this tag is incomplete: its job was killed.
WHOLE = "celray.version"
#: Set to "true" before a promoted version is complete, until it has its alias.
DUE = "celray.due"

_TIMEOUT_SECONDS = 30.0
_PAGE_ENTRIES = 1000


class MlflowRegistry:
    """Registered models of one MLflow server.

    Args:
        uri: such as ``http://mlflow:5000``.
    """

    def __init__(self, uri: str) -> None:
        self.where = uri.rstrip("/")

    def retraining(self, waiting: Callable[[], None]) -> AbstractContextManager[None]:
        """Lock retrainings, see :class:`.Registry`; on this node only, since MLflow has no lock."""
        return locked(self._file("retraining"), waiting)

    def lock(self, waiting: Callable[[], None] = lambda: None) -> AbstractContextManager[None]:
        """Lock changes, see :class:`.Registry`; on this node only, since MLflow has no lock."""
        return locked(self._file("lock"), waiting)

    def _file(self, suffix: str) -> Path:
        number = sha256(self.where.encode()).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"celray-mlflow-{number}.{suffix}"

    def models(self) -> dict[str, dict[str, str]]:
        """Return celray's registered models: name, and celray's tags without their prefix."""
        found: dict[str, dict[str, str]] = {}
        token = ""
        while True:
            answer = self._ask(
                "GET", "registered-models/search", max_results=_PAGE_ENTRIES, page_token=token
            )
            for model in answer.get("registered_models", []):
                tags = {
                    tag["key"].removeprefix(PREFIX): tag["value"]
                    for tag in model.get("tags", [])
                    if tag["key"].startswith(PREFIX)
                }
                if "dataset_path" in tags:
                    found[model["name"]] = tags
            token = answer.get("next_page_token", "")
            if not token:
                return found

    def state(self, name: str) -> State:
        """Return the state, see :class:`.Registry`; first finish an interrupted promotion."""
        state, due = self._read(name)
        if due is None:
            return state
        self._put_to_use(name, due, state.champion)
        return self._read(name)[0]

    def _read(self, name: str) -> tuple[State, int | None]:
        """Return the state of a name, and the version that was promoted but lacks its alias."""
        model = self._ask("GET", "registered-models/get", name=name)["registered_model"]
        aliases = {alias["alias"]: alias["version"] for alias in model.get("aliases", [])}
        versions = []
        due = None
        quoted = name.replace("'", "\\'")
        answer = self._ask(
            "GET", "model-versions/search", filter=f"name='{quoted}'", max_results=_PAGE_ENTRIES
        )
        for version in answer.get("model_versions", []):
            tags = {tag["key"]: tag["value"] for tag in version.get("tags", [])}
            if WHOLE in tags:
                kept = json.loads(tags[WHOLE])
                versions.append(Version(**{**kept, "number": int(version["version"])}))
                if tags.get(DUE) == "true":
                    due = versions[-1].number
        versions.sort(key=lambda version: version.number)
        known = {version.number for version in versions}
        in_use, before = (
            int(aliases[alias]) if alias in aliases and int(aliases[alias]) in known else None
            for alias in (CHAMPION, PREVIOUS)
        )
        # The champion is not ours, or incomplete: compare new versions with the one before it.
        if in_use is None and CHAMPION in aliases:
            in_use, before = before, None
        return State(in_use, before, tuple(versions)), due

    def record(self, name: str, version: Version) -> None:
        """Add a version, see :class:`.Registry`; MLflow chooses the number.

        The version is completed before it is promoted. An incomplete champion would not count, and
        the next version would be promoted without a comparison.
        """
        in_use = self.state(name).champion
        made = self._ask(
            "POST",
            "model-versions/create",
            name=name,
            source=f"celray:{version.model_path}",
            description=version.reason,
        )["model_version"]
        number = int(made["version"])
        if version.promoted:
            self._tag(name, number, DUE, "true")
        kept = dataclasses.asdict(dataclasses.replace(version, number=number))
        self._tag(name, number, WHOLE, json.dumps(kept))
        if version.promoted:
            self._put_to_use(name, number, in_use)

    def use(self, name: str, number: int) -> None:
        """See :class:`.Registry`."""
        self._put_to_use(name, number, self.state(name).champion)

    def _put_to_use(self, name: str, number: int, before: int | None) -> None:
        if before is not None and before != number:
            self._alias(name, PREVIOUS, before)
        self._alias(name, CHAMPION, number)
        self._tag(name, number, DUE, "false")

    def _tag(self, name: str, number: int, key: str, value: str) -> None:
        given = {"name": name, "version": str(number), "key": key, "value": value}
        self._ask("POST", "model-versions/set-tag", **given)

    def _alias(self, name: str, alias: str, number: int) -> None:
        self._ask("POST", "registered-models/alias", name=name, alias=alias, version=str(number))

    def _ask(self, method: str, what: str, **values: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
        """Send a request to the server.

        Raises:
            InputProblemError: the server rejects it, as for an unknown name.
            InfrastructureError: the server does not answer.
        """
        given = {key: value for key, value in values.items() if value != ""}
        try:
            answer = requests.request(
                method,
                f"{self.where}/api/2.0/mlflow/{what}",
                params=given if method == "GET" else None,
                json=given if method == "POST" else None,
                timeout=_TIMEOUT_SECONDS,
            )
        except requests.RequestException as error:
            message = (
                f"MLflow at {self.where} (CELRAY_MLFLOW_TRACKING_URI) does not answer"
                f" ({type(error).__name__}): start it, or correct the address."
            )
            raise InfrastructureError("mlflow_away", message) from None
        if answer.status_code >= requests.codes.internal_server_error:
            message = f"MLflow at {self.where} answers {what} with HTTP {answer.status_code}."
            raise InfrastructureError("mlflow_away", message)
        if not answer.ok:
            text = " ".join(answer.text.split())[:300]
            raise InputProblemError(
                "mlflow_refuses",
                f"MLflow at {self.where} refuses {what} with HTTP {answer.status_code}: {text}.",
                "Check CELRAY_MLFLOW_TRACKING_URI and the model's tags.",
            )
        found: dict[str, Any] = answer.json() if answer.text.strip() else {}
        return found
