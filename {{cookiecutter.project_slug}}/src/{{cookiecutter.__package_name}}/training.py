"""Step 3, training on Ray Train: Ray Data feeds the workers, and the last checkpoint becomes one file."""

import json
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import ray.data
import ray.train
from ray.data.expressions import col
from ray.train.torch import TorchTrainer

from . import model, settings
from .errors import UserError
from .inputs import Input, find_input
from .preflight import check_training, cluster_nodes
from .workers import decode_row


def train(
    manifest: str,
    output: Path,
    *,
    config: Mapping[str, Any] | None = None,
    num_workers: int = 1,
) -> dict[str, Any]:
    """Train `model.train_on_worker` on the rows whose split is "train", and measure it on those of "test".

    Args:
        manifest: Parquet with the columns id, label, split and what `Predictor.decode` reads.
        output: folder for the model (`model.CHECKPOINT_FILE`), metrics.json, written last, and Ray Train's own files. A
            finished training in it is left alone, and one that was killed begins anew.
        config: what differs from `model.DEFAULTS`.
        num_workers: Ray Train workers with a CPU each, and a GPU each if `settings.TRAIN_ON_GPU` and there are GPUs;
            0 trains in this process.

    Returns:
        The content of metrics.json: the configuration, the input's digest, and the metrics of the last epoch.

    Raises:
        UserError: the manifest has no such rows, the workers do not fit on the cluster, or the folder holds another
            training, or something else.
    """
    rows = find_input(manifest)
    configuration = {**model.DEFAULTS, **(config or {})}
    claim = {"configuration": configuration, "input": rows.digest}
    metrics_file = output / "metrics.json"
    if metrics_file.exists():
        finished: dict[str, Any] = json.loads(metrics_file.read_text())
        for name, value in claim.items():
            if finished[name] != value:
                raise UserError(f"--output {output} holds a training with another {name}. Choose another folder")
        print(f"{output} holds this training, finished: nothing to do.")
        return finished
    if output.exists() and {path.name for path in output.iterdir()} - {"ray_train", model.CHECKPOINT_FILE}:
        raise UserError(f"--output {output} holds other things than a training. Choose another folder")
    shutil.rmtree(output / "ray_train", ignore_errors=True)  # of a training that was killed: Ray would go on from it
    use_gpu = check_training(cluster_nodes(), num_workers, settings.TRAIN_ON_GPU)
    if settings.TRAIN_ON_GPU and not use_gpu:
        print("No GPU here: training on the CPU.")
    datasets: dict[str, ray.data.Dataset | Callable[[], ray.data.Dataset]] = {
        split: _read_split(rows, split) for split in ("train", "test")
    }
    result = TorchTrainer(
        model.train_on_worker,
        train_loop_config=configuration,
        datasets=datasets,
        # Ray's default for the options uses one that it has deprecated.
        dataset_config=ray.train.DataConfig(execution_options=ray.data.ExecutionOptions()),
        scaling_config=ray.train.ScalingConfig(num_workers=num_workers, use_gpu=use_gpu),
        run_config=ray.train.RunConfig(
            name="ray_train",
            storage_path=str(output.absolute()),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
            failure_config=ray.train.FailureConfig(max_failures=2),
        ),
    ).fit()
    # The last epoch's, not the best one's: the test split must not choose what it then measures.
    assert result.checkpoint
    output.mkdir(parents=True, exist_ok=True)
    with result.checkpoint.as_directory() as folder:
        shutil.copy(Path(folder) / model.CHECKPOINT_FILE, output / model.CHECKPOINT_FILE)
    if num_workers == 0:  # then the checkpoint lies in a temporary folder
        shutil.rmtree(result.checkpoint.path)
    metrics = {**claim, "last": result.metrics}
    metrics_file.write_text(json.dumps(metrics, indent=2) + "\n")
    return metrics


def _read_split(rows: Input, split: str) -> ray.data.Dataset:
    """The decoded rows of one split. They stay in Ray's object store: an epoch then costs no decoding."""
    dataset: ray.data.Dataset = (
        ray.data.read_parquet(rows.files)
        .filter(expr=col("split") == split)
        .map(partial(_decode_labelled, folder=rows.folder))
        .filter(expr=col("error") == "")
        .drop_columns(["id", "error"])
        .materialize()
    )
    if dataset.count() == 0:
        raise UserError(f'the manifest has no row with the split "{split}" that can be decoded')
    return dataset


def _decode_labelled(row: dict[str, Any], folder: str) -> dict[str, Any]:
    return {**decode_row(row, folder), "label": row["label"]}
