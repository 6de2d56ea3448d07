"""Step 4, training on Ray Train: Ray Data feeds the workers, and the best epoch's model becomes one file."""

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import ray.data
import ray.train
from ray.data.expressions import col

from . import plots, settings
from .errors import UserError
from .folders import check_claim, lock, write_whole
from .inputs import Input, find_input, where_files_are
from .model import CHECKPOINT_FILE
from .preflight import check_training, cluster_nodes, nodes_to_come
from .progress import follow
from .train_loop import DEFAULTS, Trainer, train_loop
from .training_state import BEST, HISTORY, TrainingState, loss
from .workers import column_names, decode_labelled_row, predictor_class

Datasets = dict[str, ray.data.Dataset | Callable[[], ray.data.Dataset]]

SPLITS = ("train", "validation", "test")
OWN_FILES = {"ray_train", CHECKPOINT_FILE, f"last-{CHECKPOINT_FILE}", "curve.png"}


def train(
    manifest: str,
    output: Path,
    *,
    parameters: Mapping[str, Any] | None = None,
    num_workers: int = 1,
    start_ray: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> dict[str, Any]:
    """Train on the rows whose split is "train"; "validation" chooses the epoch, and "test" measures it.

    Args:
        manifest: Parquet with the columns id, label, split and what the Predictor takes.
        output: folder for the best epoch's model (`model.CHECKPOINT_FILE`), the last one's beside it, a plot of the
            epochs, metrics.json, written last, and Ray Train's own files. The same training again goes on where a kill
            left it; after the end, nothing is done.
        parameters: what differs from `train_loop.DEFAULTS`.
        num_workers: Ray Train workers with a CPU each, and a GPU each if `settings.TRAIN_ON_GPU` and there are GPUs;
            0 trains in this process, for tests. All workers see as many rows: of a split that does not divide, Ray
            Train leaves some out, fewer than there are workers.
        start_ray: starts Ray when there is something to do, such as `runtime.ray_session`; by default, it is running.

    Returns:
        The content of metrics.json: what was asked, the metrics of every epoch, and those of the best one.

    Raises:
        UserError: the manifest has no such rows, the workers do not fit on the cluster, or the folder holds another
            training, or something else.
    """
    rows = find_input(manifest)
    configuration = configure(parameters)
    claim = {"parameters": configuration, "digest of the input": rows.digest}
    output = output.absolute()
    check_claim(output, "training.json", claim, kind="a training", own_files=OWN_FILES)
    if (output / "metrics.json").exists():
        print(f"{output} holds this training, finished: nothing to do.")
        finished: dict[str, Any] = json.loads((output / "metrics.json").read_text())
        return finished
    with start_ray():
        use_gpu = check_training(cluster_nodes(), nodes_to_come(), num_workers, settings.TRAIN_ON_GPU)
        if settings.TRAIN_ON_GPU and not use_gpu:
            print("No GPU here: training on the CPU.")
        with lock(output):
            datasets = read_splits(rows)
            write_whole(output / "training.json", claim)
            run_config = ray.train.RunConfig(
                name="ray_train",  # Ray Train goes on from the last checkpoint that it finds under this name
                storage_path=str(output),
                checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
                failure_config=ray.train.FailureConfig(max_failures=2),  # of a worker, each of which is made again
            )
            with follow(output / "ray_train"):
                result = make_trainer(configuration, datasets, num_workers, use_gpu, run_config).fit()
            assert result.checkpoint
            with result.checkpoint.as_directory() as folder:
                epochs = json.loads((Path(folder) / HISTORY).read_text())
                shutil.copy(Path(folder) / BEST / CHECKPOINT_FILE, output / CHECKPOINT_FILE)
                shutil.copy(Path(folder) / CHECKPOINT_FILE, output / f"last-{CHECKPOINT_FILE}")
            plots.draw_epochs(epochs, output / "curve.png")
            metrics = {**claim, "best": min(epochs, key=loss), "epochs": epochs}
            write_whole(output / "metrics.json", metrics)
            return metrics


def configure(parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    """The parameters of a training: `DEFAULTS`, but for those that are given.

    Raises:
        UserError: one that is given does not exist.
    """
    if unknown := sorted(set(parameters or {}) - set(DEFAULTS)):
        raise UserError(f"there is no parameter {unknown[0]}: they are {', '.join(DEFAULTS)}")
    return {**DEFAULTS, **(parameters or {})}


def make_trainer(
    configuration: dict[str, Any], datasets: Datasets, num_workers: int, use_gpu: bool, run_config: ray.train.RunConfig
) -> Any:
    """Ray Train's trainer of the example, for `train` and for each of Ray Tune's trials."""
    kept = None if num_workers else Path(f"{run_config.storage_path}/{run_config.name}")
    return Trainer(
        partial(_train_on_worker, kept=kept),
        train_loop_config=configuration,
        datasets=datasets,
        # Ray's default for the options uses one that it has deprecated.
        dataset_config=ray.train.DataConfig(execution_options=ray.data.ExecutionOptions(preserve_order=True)),
        scaling_config=ray.train.ScalingConfig(num_workers=num_workers, use_gpu=use_gpu),
        run_config=run_config,
    )


def _train_on_worker(configuration: dict[str, Any], *, kept: Path | None) -> None:
    state = TrainingState(kept)
    try:
        train_loop(configuration, state)
    finally:
        shutil.rmtree(state.folder)


def read_splits(rows: Input) -> Datasets:
    """The rows of each split, decoded. They stay in Ray's object store: an epoch then costs no decoding."""
    return {split: _read_split(rows, split) for split in SPLITS}


def _read_split(rows: Input, split: str) -> ray.data.Dataset:
    paths, filesystem = where_files_are(rows.files)
    dataset: ray.data.Dataset = ray.data.read_parquet(paths, filesystem=filesystem)
    dataset.context.execution_options.preserve_order = True  # or a seed would shuffle other rows each time
    dataset = dataset.filter(expr=col("split") == split)
    given = rows.count("split", split)
    predictor = predictor_class()
    if decode := getattr(predictor, "decode", None):
        labelled = partial(decode_labelled_row, folder=rows.folder, decode=decode, blank=predictor.blank)
        dataset = dataset.map(labelled).filter(expr=col("error") == "")
    dataset = dataset.select_columns([*column_names(predictor.blank), "label"]).materialize()
    usable = dataset.count()
    if usable == 0:
        raise UserError(f'the manifest has no row with the split "{split}" that can be used')
    if usable < given:
        print(f"{given - usable} of {given} rows of the split {split} can't be decoded: training goes without them.")
    return dataset
