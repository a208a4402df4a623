"""A search without Ray: one trial after another, in this process."""

import dataclasses
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna

from ..job import Reporter
from ..requests import SearchRequest
from . import trials
from .trials import Problem, Trial

#: One JSON line per ended trial; a resumed search continues after them.
JOURNAL = "trials.jsonl"


def search(
    problem: Problem, asked: SearchRequest, folder: Path, reporter: Reporter
) -> tuple[list[Trial], bool]:
    """Try every combination, or as many draws from the space as allowed.

    Args:
        problem: what all trials share.
        asked: the job's request.
        folder: the folder for the search's state.
        reporter: receives the progress of every trial.

    Returns:
        The trials, and whether some of them were there already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    journal = folder / JOURNAL
    ended = _read(journal)
    before = len(ended)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize" if problem.direction == "max" else "minimize",
        # A resumed search takes another seed: the same one would repeat the trials that exist.
        sampler=optuna.samplers.TPESampler(seed=asked.model.seed + before),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
    )
    combinations = asked.combinations
    for trial in ended:
        _remember(study, trial, asked)
    total = len(combinations) if combinations is not None else asked.max_trials
    began, limit = time.monotonic(), asked.max_seconds
    for number in range(before, total):
        if limit is not None and time.monotonic() - began >= limit:
            break
        drawn: Any = None
        if combinations is None:
            drawn = study.ask(distributions(asked.space or {}))
        params = dict(drawn.params) if combinations is None else dict(combinations[number])
        trial = trials.run(problem, number, params, _judge(drawn, asked, began))
        if drawn is not None:
            state = optuna.trial.TrialState
            if trial.status == "stopped early":
                study.tell(drawn, state=state.PRUNED)
            elif trial.score is None or trial.status == "failed":
                study.tell(drawn, state=state.FAIL)
            else:
                study.tell(drawn, trial.score)
        ended.append(trial)
        with journal.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(dataclasses.asdict(trial)) + "\n")
        reporter.progress("searching", len(ended), total, "trials")
    return ended, before > 0


def distributions(space: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return a search space as Optuna's distributions."""
    return {name: _distribution(value) for name, value in space.items()}


def _distribution(value: Mapping[str, Any]) -> Any:  # noqa: ANN401 - one of three classes
    if "choice" in value:
        return optuna.distributions.CategoricalDistribution(value["choice"])
    low, high, log, step = (value[name] for name in ("low", "high", "log", "step"))
    if value["whole"]:
        return optuna.distributions.IntDistribution(low, high, log=log, step=step or 1)
    return optuna.distributions.FloatDistribution(low, high, log=log, step=step)


def _judge(drawn: Any, asked: SearchRequest, began: float) -> Any:  # noqa: ANN401 - a function
    """Return a function that decides after each report whether a trial continues."""
    limit = asked.max_seconds

    def go_on(rounds: int, score: float) -> bool:
        if limit is not None and time.monotonic() - began >= limit:
            return False
        if drawn is None or not asked.early_stopping:
            return True
        drawn.report(score, rounds)
        return not drawn.should_prune()

    return go_on


def _read(journal: Path) -> list[Trial]:
    """Return the trials that have ended; remove an incomplete line that a killed search left."""
    if not journal.is_file():
        return []
    ended, whole = [], 0
    for line in journal.read_bytes().splitlines(keepends=True):
        try:
            found = Trial(**json.loads(line))
        except (ValueError, TypeError):
            break
        if not line.endswith(b"\n"):
            break
        ended.append(found)
        whole += len(line)
    os.truncate(journal, whole)
    return ended


def _remember(study: Any, trial: Trial, asked: SearchRequest) -> None:  # noqa: ANN401
    if asked.combinations is None and trial.score is not None:
        study.add_trial(
            optuna.trial.create_trial(
                params=trial.params,
                distributions=distributions(asked.space or {}),
                value=trial.score,
            )
        )
