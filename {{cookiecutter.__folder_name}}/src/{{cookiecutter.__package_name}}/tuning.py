"""Step 3, tuning on Ray Tune: trials with other parameters, each a training of its own, the bad ones stopped early."""

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import ray.train
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import BasicVariantGenerator

from . import plots, settings
from .folders import check_claim, lock, write_whole
from .inputs import find_input
from .preflight import check_training, cluster_nodes, nodes_to_come, trials_at_once
from .progress import follow
from .train_loop import SEARCH_SPACE
from .training import configure, make_trainer, read_splits
from .training_state import METRIC, loss, read_epochs

BEST_PARAMETERS = "best_parameters.json"
METRICS = (METRIC, "validation_accuracy", "test_accuracy")
OWN_FILES = {"ray_tune", "ray_train", "trials.json", "trials.png"}


def tune_parameters(
    manifest: str,
    output: Path,
    *,
    trials: int = 8,
    parameters: Mapping[str, Any] | None = None,
    num_workers: int = 1,
    start_ray: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> dict[str, Any]:
    """Try `train_loop.SEARCH_SPACE`: the defaults first, then parameters drawn at random from a seed.

    Args:
        manifest: what `train` takes.
        output: folder for the best parameters, which `train` takes, a table of the trials, their plot, and the files of
            Ray Tune and Ray Train. The same tuning again goes on where a kill left it; after the end, nothing is done.
        trials: how many.
        parameters: what differs from `train_loop.DEFAULTS` in every trial, such as `epochs` and `seed`.
        num_workers: Ray Train workers of a trial, from 1 up, see `training.train`.
        start_ray: see `training.train`.

    Returns:
        The content of trials.json: what was asked, and of each trial its parameters, epochs, and the metrics of its
        best epoch; the best trial comes first.

    Raises:
        UserError: the workers of one trial do not fit on the cluster, or what `training.train` raises.
    """
    rows = find_input(manifest)
    configuration = configure(parameters)
    space = {name: f"{type(domain).__name__} {domain.domain_str}" for name, domain in SEARCH_SPACE.items()}
    claim = {"parameters": configuration, "search space": space, "trials": trials, "digest of the input": rows.digest}
    output = output.absolute()
    check_claim(output, "tuning.json", claim, kind="a tuning", own_files=OWN_FILES | {BEST_PARAMETERS})
    if (output / BEST_PARAMETERS).exists():
        print(f"{output} holds this tuning, finished: nothing to do.")
        finished: dict[str, Any] = json.loads((output / "trials.json").read_text())
        return finished
    with start_ray():
        live, to_come = cluster_nodes(), nodes_to_come()
        use_gpu = check_training(live, to_come, num_workers, settings.TRAIN_ON_GPU)
        at_once = trials_at_once([*live, *to_come], num_workers, use_gpu)
        with lock(output):
            datasets = read_splits(rows)
            write_whole(output / "tuning.json", claim)
            train_with = partial(make_trainer, datasets=datasets, num_workers=num_workers, use_gpu=use_gpu)
            with follow(output / "ray_train"):
                grid = _run_trials(train_with, configuration, output, trials, at_once)
            return {**claim, "table": _write_results(grid, output, claim)}


def _run_trials(
    train_with: Callable[..., Any], configuration: dict[str, Any], output: Path, trials: int, at_once: int
) -> tune.ResultGrid:
    def trial(drawn: dict[str, Any]) -> None:
        """Run by Ray Tune for each trial: it trains with Ray Train, whose workers report here."""
        run_config = ray.train.RunConfig(
            name=tune.get_context().get_trial_id(),  # so a trial that was killed goes on
            storage_path=str(output / "ray_train"),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
            failure_config=ray.train.FailureConfig(max_failures=2),
            callbacks=[TuneReportCallback()],  # type: ignore[list-item]
        )
        result = train_with({**configuration, **drawn}, run_config=run_config).fit()
        assert result.metrics
        tune.report(result.metrics)  # once more: a trial that was killed after its last epoch reports no other

    # It only waits. The workers that it starts ask for what they need, which may be all CPUs, and Ray Tune asks for
    # something.
    trainable = tune.with_resources(trial, {"memory": 2**20})
    experiment = output / "ray_tune"
    if any(experiment.glob("experiment_state-*.json")):  # before there is one, Ray Tune could not go on
        tuner = tune.Tuner.restore(str(experiment), trainable, resume_errored=True)
    else:
        tuner = tune.Tuner(
            trainable,
            param_space=SEARCH_SPACE,
            tune_config=tune.TuneConfig(
                metric=METRIC,
                mode="min",
                num_samples=trials,
                search_alg=BasicVariantGenerator(
                    points_to_evaluate=[{name: configuration[name] for name in SEARCH_SPACE}],
                    random_state=configuration["seed"],
                    max_concurrent=at_once,
                ),
                scheduler=ASHAScheduler(
                    time_attr="epoch",
                    max_t=configuration["epochs"] + 1,
                    grace_period=max(1, configuration["epochs"] // 4),
                ),
            ),
            run_config=tune.RunConfig(name="ray_tune", storage_path=str(output), verbose=0),
        )
    grid = tuner.fit()
    if grid.errors:
        raise grid.errors[0]
    return grid


def _write_results(grid: tune.ResultGrid, output: Path, claim: dict[str, Any]) -> list[dict[str, Any]]:
    """Write what `tune_parameters` promises, the best parameters last, and return the table of the trials."""
    table, curves = [], []
    for number in range(len(grid)):
        result: Any = grid[number]
        epochs = read_epochs(output / "ray_train" / result.metrics["trial_id"])
        curves.append([epoch[METRIC] for epoch in epochs])
        best = min(epochs, key=loss)
        drawn = {name: result.config[name] for name in SEARCH_SPACE}
        table.append({**drawn, "epochs": len(epochs), **{name: best[name] for name in METRICS}})
    table.sort(key=loss)
    plots.draw_trials(curves, output / "trials.png")
    write_whole(output / "trials.json", {**claim, "table": table})
    write_whole(output / BEST_PARAMETERS, {name: table[0][name] for name in SEARCH_SPACE})
    return table
