"""Step 3, training on Ray Train: Ray Data feeds the workers, and the best checkpoint becomes one file."""

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
from .inference import decode_row
from .inputs import Input, find_input
from .preflight import check_training, cluster_nodes


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
        output: folder for the best model (`model.CHECKPOINT_FILE`), metrics.json and Ray Train's own files. One that
            holds a finished training is left alone.
        config: what differs from `model.DEFAULTS`.
        num_workers: Ray Train workers with a CPU each, and a GPU each if `settings.TRAIN_ON_GPU` and there are GPUs;
            0 trains in this process.

    Returns:
        The content of metrics.json: the configuration, the metrics by epoch, and the best of them.

    Raises:
        UserError: the manifest has no such rows, the workers do not fit on the cluster, or the folder holds a training
            with another configuration.
    """
    settings_used = {**model.DEFAULTS, **(config or {})}
    metrics_file = output / "metrics.json"
    if metrics_file.exists():
        finished: dict[str, Any] = json.loads(metrics_file.read_text())
        if finished["config"] != settings_used:
            raise UserError(f"--output {output} holds a training with another configuration. Choose another folder")
        return finished
    use_gpu = check_training(cluster_nodes(), num_workers, settings.TRAIN_ON_GPU)
    if settings.TRAIN_ON_GPU and not use_gpu:
        print("No GPU here: training on the CPU.")
    rows = find_input(manifest)
    datasets: dict[str, ray.data.Dataset | Callable[[], ray.data.Dataset]] = {
        split: _read_split(rows, split) for split in ("train", "test")
    }
    result = TorchTrainer(
        model.train_on_worker,
        train_loop_config=settings_used,
        datasets=datasets,
        # Ray's default for the options uses one that it has deprecated.
        dataset_config=ray.train.DataConfig(execution_options=ray.data.ExecutionOptions()),
        scaling_config=ray.train.ScalingConfig(num_workers=num_workers, use_gpu=use_gpu),
        run_config=ray.train.RunConfig(
            name="ray_train",
            storage_path=str(output.absolute()),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2, checkpoint_score_attribute="accuracy"),
            failure_config=ray.train.FailureConfig(max_failures=2),
        ),
    ).fit()
    # Without workers Ray Train keeps no list of checkpoints: there is the last one, in a temporary folder.
    kept: Any = result.best_checkpoints or [(result.checkpoint, result.metrics or {})]
    checkpoint, best = max(kept, key=lambda pair: pair[1]["accuracy"])
    output.mkdir(parents=True, exist_ok=True)
    with checkpoint.as_directory() as folder:
        shutil.copy(Path(folder) / model.CHECKPOINT_FILE, output / model.CHECKPOINT_FILE)
    if num_workers == 0:
        shutil.rmtree(checkpoint.path)
    metrics = {"config": settings_used, "best": best}
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
