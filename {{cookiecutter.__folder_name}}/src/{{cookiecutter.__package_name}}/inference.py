"""Step 5, batch inference on Ray Data: every input row comes out exactly once, with its prediction or its error.

    rows that no earlier run finished -> a first try -> blocks of two seconds' work -> decode -> predict -> Parquet

The first try is of eight rows, whose predictions are written at once: the first ones are there in seconds.
The folder of predictions is its own checkpoint (`run_folder.py`): a run that was killed goes on from the ids in it.
"""

import hashlib
import math
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ray
import ray.data

from . import settings
from .errors import UserError, reason
from .folders import lock
from .inputs import Input, absolute, find_input, where_files_are
from .preflight import Plan, cluster_nodes, plan_for_cluster
from .run_folder import RunFolder, file_digest
from .stages import measure
from .watch import PATIENCE, Watch, free_resources
from .workers import PredictBatch, Trial, decode_row, leave_out, try_predictor

SECONDS_PER_BLOCK = 2.0  # of the slowest stage's work: what a killed run loses, for every task that was running
BYTES_PER_BLOCK = 64 * 2**20  # of decoded rows
BLOCKS_AHEAD = 4  # of rows that wait between the stages, for every task that can run: decoding goes no further
LEAST_AHEAD = 256 * 2**20  # bytes of these: Ray Data starts few tasks where it has less
MOST_BLOCKS = 10_000  # that the driver cuts a table into: it handles each; Ray Data cuts larger ones further


def predict(
    source: str,
    checkpoint: str,
    output: str,
    *,
    batch_size: int | None = None,
    concurrency: tuple[int, int] | None = None,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    started: float | None = None,
) -> dict[str, Any]:
    """Predict every row of `source` with the Predictor, on the Ray that is running.

    Args:
        source: what `inputs.find_input` takes.
        checkpoint: path of the file that the Predictor loads.
        output: folder for predictions/*.parquet (id, the Predictor's columns, error) and, when all is done,
            summary.json. Given again after a kill, the run goes on; given again after the end, nothing is done.
        batch_size: rows that the Predictor gets in one call; by default, as many as make it fast in a first try.
        concurrency, num_cpus, num_gpus: of the predictors, see `preflight.make_plan`.
        started: since when the seconds of the run count, as `time.time()` has it; since now by default.

    Returns:
        The content of summary.json.

    Raises:
        UserError: the input, the plan or the output folder does not allow the run.
    """
    started, Watch.peak_memory = started or time.time(), 0
    checkpoint, output = absolute(checkpoint), absolute(output)  # a worker's folder may be another
    plan = plan_for_cluster(concurrency, num_cpus=num_cpus, num_gpus=num_gpus)
    rows = find_input(source)
    try:
        digest = file_digest(checkpoint)
    except OSError as problem:
        raise UserError(f"--checkpoint {checkpoint}: {reason(problem)}. `train` writes one") from None
    claim = {
        "input": source,
        "digest of the input": rows.digest,
        "checkpoint (its digest)": digest,
        "Predictor (digest of its code and precision)": _predictor_digest(),
        "batch size": batch_size or "chosen",
    }
    folder = RunFolder(output, claim)
    if finished := folder.summary():
        print(f"{output} holds this run, finished: nothing to do.")
        return finished
    with lock(folder.path):
        done = folder.open()
        left = rows.without(done)
        predicted = len(left.ids)
        if len(done):
            print(f"Going on: {len(done)} of {len(rows.ids)} rows are done.", flush=True)
        summary: dict[str, Any] = {"rows_before": len(done)}
        if len(left.ids):
            trial = _try_first(plan, left, batch_size, checkpoint)
            share = trial.predict_seconds / (trial.predict_seconds + trial.decode_seconds)
            plan = plan_for_cluster(
                concurrency,
                num_cpus=plan.num_cpus,
                num_gpus=plan.num_gpus,
                predict_share=share,
                memory=trial.memory,
            )
            print(f"Plan: {plan}.", flush=True)
            if trial.device == "cpu" and (plan.num_gpus or settings.GPUS_PER_PREDICTOR):
                why = "Ray has GPUs, but torch sees none" if plan.num_gpus else "No GPU here"
                print(f"{why}: predicting on the CPU.")
            summary |= {"plan": str(plan), "device": trial.device, "predictor_memory_bytes": trial.memory}
            done = folder.add(trial.predictions, done)
            left = left.without(trial.predictions["id"])
        if len(left.ids):
            rows_per_block = _rows_per_block(trial, plan, len(left.ids))
            predictions = _pipeline(left, done, plan, trial, rows_per_block, checkpoint)
            # Writing asks for no CPU: where decoders hold every free one, nothing would be written before the end.
            predictions.write_parquet(
                folder.predictions.path,
                filesystem=None if isinstance(folder.path, Path) else folder.path.fs,  # as in `where_files_are`
                mode=ray.data.SaveMode.APPEND,
                ray_remote_args={"num_cpus": 0},
            )
            summary |= {
                **measure(predictions.get_stats_summary(), plan, len(left.ids)),
                "rows_per_block": rows_per_block,
                "batch_size": min(trial.batch_size, rows_per_block),
                "peak_memory_bytes": Watch.peak_memory,
            }
        seconds = time.time() - started
        summary |= {"seconds": round(seconds, 3), "rows_per_second": round(predicted / seconds, 3)}
        versions = {name: version(name) for name in ("ray", "torch", "pyarrow")}
        return folder.close(rows.ids, {**summary, "versions": versions})


def _pipeline(
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
        decode = partial(decode_row, folder=rows.folder, decode=trial.decode, blank=trial.blank)
        dataset = dataset.map(decode, num_cpus=decoder_cpus)
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


def _try_first(plan: Plan, rows: Input, batch_size: int | None, checkpoint: str) -> Trial:
    """Try the Predictor on a worker that has what a predictor will have, and say what that worker is waited for."""
    needs = f"{plan.num_cpus:g} CPU and {plan.num_gpus:g} GPU"
    if not any(node.cpus >= plan.num_cpus and node.gpus >= plan.num_gpus for node in cluster_nodes()):
        print(f"Waiting for the cluster to grow: a predictor needs a machine with {needs}.", flush=True)
    # On a GPU, which it would keep, Ray ends the process after its one call; on CPUs it is left, and decodes.
    # Tried again, it would only die again: without end, where memory is too little.
    worker = ray.remote(num_cpus=plan.num_cpus, num_gpus=plan.num_gpus, max_retries=0)(try_predictor)
    trial = worker.remote(rows.some_rows(), rows.folder, batch_size, checkpoint, settings.PRECISION)
    while not ray.wait([trial], timeout=PATIENCE)[0]:
        print(f"Waiting for the first predictor, with {needs}. {free_resources()}.", flush=True)
    try:
        result: Trial = ray.get(trial)
    except ray.exceptions.OutOfMemoryError:
        raise UserError(
            "the first predictor ran out of memory, and Ray ended it. Lower --batch-size, or take a smaller model, "
            "machines with more memory, or end what else runs there"
        ) from None
    return result


def _rows_per_block(trial: Trial, plan: Plan, rows: int) -> int:
    """So many that a block is a short piece of work; whole batches, and, as near as these allow, as many blocks for one
    predictor as for another."""
    in_time = SECONDS_PER_BLOCK / max(trial.decode_seconds, trial.predict_seconds)
    most = max(1, int(min(in_time, BYTES_PER_BLOCK / trial.row_bytes, math.ceil(rows / plan.largest / 4))))
    unit = trial.batch_size if most >= trial.batch_size else 1
    # With a block more for one of them the others would stand idle at the end.
    blocks = plan.largest * math.ceil(rows / (most - most % unit) / plan.largest)
    return math.ceil(rows / blocks / unit) * unit


def _predictor_digest() -> str:
    files = [Path(__file__).with_name(name) for name in ("model.py", "predictor.py", "preprocessing.py")]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files) + settings.PRECISION.encode()).hexdigest()
