"""A search on Ray Tune: parallel trials on the whole cluster."""

import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray import tune

from .. import cluster
from ..job import Reporter
from ..requests import SearchRequest
from . import trials
from .local import distributions
from .trials import Problem, Trial

# Ray's annotations do not cover all of Tune.
_tune: Any = tune

NAME = "tune"

#: The longest interval between Ray Tune's state writes, in seconds: what a killed head may lose.
ENVIRONMENT = {
    "TUNE_GLOBAL_CHECKPOINT_S": "2",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


def search(
    problem: Problem, asked: SearchRequest, folder: Path, reporter: Reporter
) -> tuple[list[Trial], bool]:
    """Try every combination, or as many draws from the space as allowed.

    Ray Tune keeps its state in ``folder``, which every node sees. An interrupted search in it is
    resumed without repeating ended trials.
    """
    os.environ.update(ENVIRONMENT)
    cluster.connect()
    combinations = asked.combinations
    total = len(combinations) if combinations is not None else asked.max_trials
    reporter.progress("searching", 0, total, "trials")
    trainable = _tune.with_resources(
        _tune.with_parameters(_trial, problem=problem, combinations=combinations), {"cpu": 1}
    )
    told = _TrialsReported(reporter, total)
    path = folder / NAME
    resumed = bool(_tune.Tuner.can_restore(str(path))) and _is_whole(path)
    if not resumed:
        shutil.rmtree(path, ignore_errors=True)
    if resumed:
        tuner = _tune.Tuner.restore(str(path), trainable, restart_errored=True)
        # A restored tuner still has the callbacks of the lost job.
        tuner._local_tuner._run_config.callbacks = [told]
    else:
        tuner = _new(trainable, problem, asked, folder, told)
    # Tune looks for the logs that ENVIRONMENT turns off, and warns once per search that they are
    # missing.
    logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)
    grid = tuner.fit()
    return [_read(number, result, problem, asked) for number, result in enumerate(grid)], resumed


def _is_whole(path: Path) -> bool:
    """Return whether Ray Tune's state is readable: Tune overwrites the file in place."""
    states = sorted(path.glob("experiment_state-*.json"), key=lambda file: file.stat().st_mtime_ns)
    try:
        json.loads(states[-1].read_text(encoding="utf-8"))
    except (IndexError, ValueError):
        return False
    return True


def _new(
    trainable: Any,  # noqa: ANN401 - Tune has no name for it
    problem: Problem,
    asked: SearchRequest,
    folder: Path,
    told: "_TrialsReported",
) -> Any:  # noqa: ANN401 - a Tuner
    from ray.tune.schedulers import ASHAScheduler  # noqa: PLC0415 - with optuna

    combinations, at_once = asked.combinations, asked.max_concurrent
    space: dict[str, Any] | None = None
    algorithm: Any = None
    most = problem.rounds
    if combinations is not None:
        space = {"number": _tune.grid_search(list(range(len(combinations))))}
        most = max(trials.rounds_of(problem, params) for params in combinations)
    else:
        import optuna  # noqa: PLC0415 - a list needs none of it
        from ray.tune.search.optuna import OptunaSearch  # noqa: PLC0415

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        space_asked = asked.space or {}
        searched = distributions(space_asked)
        algorithm = OptunaSearch(
            space=searched, metric="score", mode=problem.direction, seed=asked.model.seed
        )
        rounds = space_asked.get("n_estimators")
        most = max(rounds.get("choice") or [rounds["high"]]) if rounds else most
    scheduler: Any = None
    if asked.early_stopping:
        scheduler = ASHAScheduler(
            time_attr="rounds", max_t=most, grace_period=max(1, most // 9), reduction_factor=3
        )
    return _tune.Tuner(
        trainable,
        param_space=space,
        tune_config=_tune.TuneConfig(
            metric="score",
            mode=problem.direction,
            num_samples=1 if combinations is not None else asked.max_trials,
            search_alg=algorithm,
            scheduler=scheduler,
            max_concurrent_trials=min(at_once or cluster.cpus(), cluster.cpus()),
            time_budget_s=asked.max_seconds,
            trial_dirname_creator=_folder_of,
        ),
        run_config=_tune.RunConfig(
            name=NAME,
            storage_path=str(folder),
            verbose=0,
            callbacks=[told],
            # A trial whose node was lost is restarted.
            failure_config=_tune.FailureConfig(max_failures=2),
        ),
    )


def _folder_of(trial: Any) -> str:  # noqa: ANN401 - Tune's Trial
    return f"trial-{trial.trial_id}"


def _trial(
    config: dict[str, Any], problem: Problem, combinations: Sequence[Mapping[str, Any]] | None
) -> None:
    """Run one trial in a Ray actor, with a report at every point where it may be stopped."""
    params = dict(combinations[config["number"]]) if combinations is not None else config
    for rounds, score in trials.scores(problem, params):
        _tune.report({"score": score, "rounds": rounds})


class _TrialsReported(tune.Callback):
    """Reports how many trials have ended."""

    def __init__(self, reporter: Reporter, total: int) -> None:
        self.reporter = reporter
        self.total = total

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:  # noqa: ANN401, ARG002
        """Report a trial that has ended."""
        ended = sum(each.status in {"TERMINATED", "ERROR"} for each in trials)
        self.reporter.progress("searching", ended, self.total, "trials")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:  # noqa: ANN401
        """Report a trial that has failed."""
        self.on_trial_complete(iteration, trials, trial)


def _read(
    number: int,
    result: "tune.Result",
    problem: Problem,
    asked: SearchRequest,
) -> Trial:
    combinations = asked.combinations
    config, last = result.config or {}, result.metrics or {}
    params = dict(combinations[config["number"]]) if combinations is not None else config
    rounds, score = int(last.get("rounds", 0)), last.get("score")
    error = None
    status: trials.Status = "complete"
    if result.error is not None:
        status, error = "failed", str(result.error).strip().splitlines()[-1][:300]
    elif score is None:
        status = "not finished"
    elif rounds < trials.rounds_of(problem, params):
        status = "stopped early"
    seconds = float(last.get("time_total_s", 0.0))
    return Trial(number, params, status, score, rounds, seconds, error)
