"""The data of a model registry, independent of its storage. Standard library only."""

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol


@dataclasses.dataclass(frozen=True)
class Version:
    """One trained version of a model.

    Attributes:
        number: 1, 2, 3, ...
        model_path: the model's folder.
        inputs: digests of the dataset's files.
        parameters: the parameters of its training.
        metric: the deciding metric.
        score: its score on the frozen hold-out, after its training.
        compared_with: the score of the model then in use on the same rows, if there was one.
        promoted: whether it passed the gate.
        reason: why it passed, or did not.
        created_at: seconds since the epoch.
        holdout: the name of the file of held-out rows, none of which it was trained on. Empty in a
            version from before these files were named after their content.
        run: the task that made it, the same for all its attempts (``JobRequest.run``).
    """

    number: int
    model_path: str
    inputs: list[str]
    parameters: dict[str, Any]
    metric: str
    score: float | None
    compared_with: float | None
    promoted: bool
    reason: str
    created_at: float
    holdout: str = ""
    run: str = ""


@dataclasses.dataclass(frozen=True)
class State:
    """The state of one model's name in the registry."""

    champion: int | None = None
    previous: int | None = None
    versions: tuple[Version, ...] = ()

    def version(self, number: int | None) -> Version | None:
        """Return the version with a number."""
        return next((version for version in self.versions if version.number == number), None)


class Registry(Protocol):
    """A registry, the storage of versions."""

    where: str

    def retraining(self, waiting: Callable[[], None]) -> AbstractContextManager[None]:
        """Hold a lock against other retrainings, which lasts as long as a training.

        Args:
            waiting: called while another retraining runs.
        """

    def lock(self, waiting: Callable[[], None] = lambda: None) -> AbstractContextManager[None]:
        """Hold a short lock against changes of the registry; ``waiting`` as above."""

    def state(self, name: str) -> State:
        """Return the state of a name."""

    def record(self, name: str, version: Version) -> None:
        """Add a version and, if it is promoted, use it; the previous one is kept."""

    def use(self, name: str, number: int) -> None:
        """Use a version; the one in use before becomes the previous one."""
