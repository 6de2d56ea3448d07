"""The pipeline of `predict`, on the Ray that is running: from rows to predictions in Parquet, streamed by Ray Data."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import ray
import ray.data

from . import settings
from .errors import UserError
from .inputs import Input, where_files_are
from .preflight import Plan, cluster_nodes
from .run_folder import RunFolder
from .stages import measure
from .watch import AGAIN, PATIENCE, Watch, free_resources
from .workers import PredictBatch, Trial, decode_rows, leave_out, try_predictor

SECONDS_PER_BLOCK = 2.0  # of the slowest stage's work: what a killed run loses, for every task that was running
BYTES_PER_BLOCK = 64 * 2**20  # of decoded rows
BLOCKS_AHEAD = 4  # of rows that wait between the stages, for every task that can run: decoding goes no further
LEAST_AHEAD = 256 * 2**20  # bytes of these: Ray Data starts few tasks where it has less
MOST_LOST = 3  # machines, in a first try
MOST_BLOCKS = 10_000  # that the driver cuts a table into: it handles each; Ray Data cuts larger ones further


def try_on_worker(plan: Plan, *tried: Any) -> list[Any]:
    """What `try_predictor` yields on a worker that has what a predictor will have; what that waits for is said.

    Raises:
        UserError: it ran out of memory, its machine was lost again and again, or what `try_predictor` raises.
    """
    # On a GPU, which it would keep, Ray ends the process after its one call; on CPUs it is left, and decodes.
    # Ray's own retries have no end where memory is too little.
    worker = ray.remote(num_cpus=plan.num_cpus, num_gpus=plan.num_gpus, max_retries=0)(_try)
    needs = f"{plan.num_cpus:g} CPU and {plan.num_gpus:g} GPU"
    for lost in range(MOST_LOST):
        if lost:
            print("The first predictor's machine was lost: it is tried again.", flush=True)
        if not any(node.cpus >= plan.num_cpus and node.gpus >= plan.num_gpus for node in cluster_nodes()):
            print(f"Waiting for the cluster to grow: a predictor needs a machine with {needs}.", flush=True)
        results = worker.remote(*tried, plan.num_gpus > 0)
        while not ray.wait([results], timeout=PATIENCE)[0]:
            print(f"Waiting for the first predictor, with {needs}. {free_resources()}.", flush=True)
        try:
            yielded: list[Any] = ray.get(results)
        except ray.exceptions.OutOfMemoryError:
            raise UserError(
                "the first predictor ran out of memory, and Ray ended it. Lower --batch-size, or take a smaller model, "
                "machines with more memory, or end what else runs there"
            ) from None
        except ray.exceptions.NodeDiedError:
            continue
        return yielded
    raise UserError(f"the first predictor's machine was lost {MOST_LOST} times. {AGAIN}")


def _try(*tried: Any) -> list[Any]:
    return list(try_predictor(*tried))


def run(rows: Input, done: Any, plan: Plan, trial: Trial, checkpoint: str, folder: RunFolder) -> dict[str, Any]:
    """Predict `rows` into the folder, and say where the time went and how much memory it took, for the summary.

    Args:
        done: the ids that are in the folder, and may be in the files of `rows`.
    """
    Watch.peak_memory = 0
    rows_per_block = _rows_per_block(trial, plan, len(rows.ids))
    predictions = _dataset(rows, done, plan, trial, rows_per_block, checkpoint)
    # Writing asks for no CPU: where decoders hold every free one, nothing would be written before the end.
    predictions.write_parquet(
        folder.predictions.path,
        filesystem=None if isinstance(folder.path, Path) else folder.path.fs,  # as in `where_files_are`
        mode=ray.data.SaveMode.APPEND,
        ray_remote_args={"num_cpus": 0},
    )
    return {
        **measure(predictions.get_stats_summary(), plan, len(rows.ids)),
        "rows_per_block": rows_per_block,
        "batch_size": min(trial.batch_size, rows_per_block),
        "peak_memory_bytes": Watch.peak_memory,
    }


def _dataset(
    rows: Input, done: Any, plan: Plan, trial: Trial, rows_per_block: int, checkpoint: str
) -> ray.data.Dataset:
    """From the input's rows to predictions, as Ray Data will stream them."""
    # Blocks are the unit of writing. A manifest of millions of rows is a few megabytes, one block if left alone:
    # nothing would be written before the end.
    dataset: ray.data.Dataset
    if rows.table:
        at_once = max(rows_per_block, math.ceil(len(rows.table) / MOST_BLOCKS))
        starts = range(0, len(rows.table), at_once)
        dataset = ray.data.from_blocks([rows.table.slice(start, at_once) for start in starts])
    else:
        at_once = 0
        paths, filesystem = where_files_are(rows.files)
        dataset = ray.data.read_parquet(paths, filesystem=filesystem)
        if len(done):
            leave_done_out = partial(leave_out, done=ray.put(done))
            dataset = dataset.map_batches(leave_done_out, batch_size=None, batch_format="pyarrow")
    if at_once != rows_per_block:
        dataset = dataset.repartition(target_num_rows_per_block=rows_per_block)
    dataset.context.custom_execution_callback_classes = [Watch]
    ahead = max(BLOCKS_AHEAD * (plan.largest + plan.free_cpus) * rows_per_block * trial.row_bytes, LEAST_AHEAD)
    dataset.context.execution_options.resource_limits = ray.data.ExecutionResources(object_store_memory=ahead)
    if trial.decode:
        # With as many CPUs as a predictor the decoder would be fused with it: nothing decoded while the model runs.
        decoder_cpus = settings.CPUS_PER_DECODER - (0.01 if plan.num_cpus == settings.CPUS_PER_DECODER else 0)
        decode = partial(decode_rows, folder=rows.folder, decode=trial.decode, blank=trial.blank)
        dataset = dataset.map_batches(decode, batch_size=None, batch_format="pyarrow", num_cpus=decoder_cpus)
    blocks = math.ceil(len(rows.ids) / rows_per_block)  # a predictor more than that would have nothing to do
    smallest, largest = min(plan.smallest, blocks), min(plan.largest, blocks)
    return dataset.map_batches(
        PredictBatch,
        fn_constructor_kwargs={"checkpoint": checkpoint, "device": trial.device, "precision": settings.PRECISION},
        compute=ray.data.ActorPoolStrategy(min_size=smallest, max_size=largest),
        batch_size=min(trial.batch_size, rows_per_block),
        batch_format=trial.batch_format,
        num_cpus=plan.num_cpus,
        num_gpus=plan.num_gpus,
    )


def _rows_per_block(trial: Trial, plan: Plan, rows: int) -> int:
    """So many that a block is a short piece of work; whole batches, and, as near as these allow, as many blocks for one
    predictor as for another."""
    in_time = SECONDS_PER_BLOCK / max(trial.decode_seconds, trial.predict_seconds)
    most = max(1, int(min(in_time, BYTES_PER_BLOCK / trial.row_bytes, math.ceil(rows / plan.largest / 4))))
    unit = trial.batch_size if most >= trial.batch_size else 1
    # With a block more for one of them the others would stand idle at the end.
    blocks = plan.largest * math.ceil(rows / (most - most % unit) / plan.largest)
    return math.ceil(rows / blocks / unit) * unit
