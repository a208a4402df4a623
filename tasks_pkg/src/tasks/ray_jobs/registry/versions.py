"""What a registry keeps of a model's name, whatever keeps it. Standard library only."""

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol


@dataclasses.dataclass(frozen=True)
class Version:
    """One trained model of a name.

    Attributes:
        number: 1, 2, 3, ...
        model_path: its folder.
        inputs: digests of the dataset's files.
        parameters: what it was trained with.
        metric: that decided.
        score: on the frozen hold-out, when it was trained.
        compared_with: the score of the model then in use on the same rows, if there was one.
        promoted: whether it passed the gate.
        reason: why, or why not.
        created_at: seconds since the epoch.
        holdout: name of the file of held-out rows; it was trained on none of them. Empty in a
            version from before files were named after their content.
        run: the task that made it, the same in all its attempts (``JobRequest.run``).
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
    """What a registry knows of one name."""

    champion: int | None = None
    previous: int | None = None
    versions: tuple[Version, ...] = ()

    def version(self, number: int | None) -> Version | None:
        """Return the version of a number."""
        return next((version for version in self.versions if version.number == number), None)


class Registry(Protocol):
    """Where versions are kept."""

    where: str

    def retraining(self, waiting: Callable[[], None]) -> AbstractContextManager[None]:
        """Keep other retrainings waiting, which is as long as a training takes.

        Args:
            waiting: called when another one goes on.
        """

    def lock(self, waiting: Callable[[], None] = lambda: None) -> AbstractContextManager[None]:
        """Keep others from changing the registry, for a moment; ``waiting`` as above."""

    def state(self, name: str) -> State:
        """Return all that is known of a name."""

    def record(self, name: str, version: Version) -> None:
        """Add a version and, when it is promoted, put it to use; the one before is kept."""

    def use(self, name: str, number: int) -> None:
        """Put a version to use; the one before becomes the previous one."""
