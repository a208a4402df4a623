"""A search without Ray: one trial after another, in this process."""

import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Any

import optuna

from ..job import Reporter
from . import trials
from .trials import Problem, Trial

#: One JSON line per trial that has ended; a search that is begun again goes on after them.
JOURNAL = "trials.jsonl"


def search(
    problem: Problem, parameters: dict[str, Any], folder: Path, reporter: Reporter
) -> tuple[list[Trial], bool]:
    """Try every combination, or as many of the space as the budget allows.

    Args:
        problem: what all trials share.
        parameters: the job's.
        folder: where the search keeps its state.
        reporter: told of every trial.

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
        # Another seed where it goes on: the same would give the trials that are there.
        sampler=optuna.samplers.TPESampler(seed=parameters["seed"] + before),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
    )
    combinations = parameters["combinations"]
    for trial in ended:
        _remember(study, trial, parameters)
    total = len(combinations) if combinations is not None else parameters["max_trials"]
    began, limit = time.monotonic(), parameters["max_seconds"]
    for number in range(before, total):
        if limit is not None and time.monotonic() - began >= limit:
            break
        asked: Any = None
        if combinations is None:
            asked = study.ask(distributions(parameters["space"]))
        params = dict(asked.params) if asked is not None else combinations[number]
        trial = trials.run(problem, number, params, _judge(asked, parameters, began))
        if asked is not None:
            state = optuna.trial.TrialState
            if trial.status == "stopped early":
                study.tell(asked, state=state.PRUNED)
            elif trial.score is None or trial.status == "failed":
                study.tell(asked, state=state.FAIL)
            else:
                study.tell(asked, trial.score)
        ended.append(trial)
        with journal.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(dataclasses.asdict(trial)) + "\n")
        reporter.progress("searching", len(ended), total, "trials")
    return ended, before > 0


def distributions(space: dict[str, Any]) -> dict[str, Any]:
    """Give Optuna's words for a search space."""
    return {name: _distribution(value) for name, value in space.items()}


def _distribution(value: dict[str, Any]) -> Any:  # noqa: ANN401 - one of three classes
    if "choice" in value:
        return optuna.distributions.CategoricalDistribution(value["choice"])
    low, high, log, step = (value[name] for name in ("low", "high", "log", "step"))
    if value["whole"]:
        return optuna.distributions.IntDistribution(low, high, log=log, step=step or 1)
    return optuna.distributions.FloatDistribution(low, high, log=log, step=step)


def _judge(asked: Any, parameters: dict[str, Any], began: float) -> Any:  # noqa: ANN401 - a function
    """Give what decides after each report whether a trial goes on."""
    limit = parameters["max_seconds"]

    def go_on(rounds: int, score: float) -> bool:
        if limit is not None and time.monotonic() - began >= limit:
            return False
        if asked is None or not parameters["early_stopping"]:
            return True
        asked.report(score, rounds)
        return not asked.should_prune()

    return go_on


def _read(journal: Path) -> list[Trial]:
    """Give the trials that have ended, and cut off the line that a killed search left half."""
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


def _remember(study: Any, trial: Trial, parameters: dict[str, Any]) -> None:  # noqa: ANN401
    if parameters["combinations"] is None and trial.score is not None:
        study.add_trial(
            optuna.trial.create_trial(
                params=trial.params,
                distributions=distributions(parameters["space"]),
                value=trial.score,
            )
        )
