"""Step 4, batch inference on Ray Data: every input row comes out exactly once, with its prediction or its error.

    read Parquet -> leave out what an earlier run finished -> small blocks -> decode -> predict -> write Parquet

The folder of predictions is its own checkpoint (`run_folder.py`): a run that was killed goes on from the ids in it.
"""

import hashlib
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
import torch

from . import settings
from .errors import UserError
from .inputs import absolute, find_input
from .predictor import Predictor
from .preflight import Plan, cluster_nodes, make_plan
from .run_folder import RunFolder, file_digest
from .stages import measure


def predict(
    source: str,
    checkpoint: str,
    output: str,
    *,
    batch_size: int = settings.BATCH_SIZE,
    concurrency: tuple[int, int] | None = None,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
) -> dict[str, Any]:
    """Predict every row of `source` with the Predictor, on the Ray that is running.

    Args:
        source: what `inputs.find_input` takes.
        checkpoint: path of the file that the Predictor loads.
        output: folder for predictions/*.parquet (id, the Predictor's columns, error) and, when all is done,
            summary.json. Given again after a kill, the run goes on; given again after the end, nothing is done.
        batch_size: rows that the Predictor gets in one call.
        concurrency, num_cpus, num_gpus: of the predictors, see `preflight.make_plan`.

    Returns:
        The content of summary.json.

    Raises:
        UserError: the input, the plan or the output folder does not allow the run.
    """
    started = time.monotonic()
    checkpoint, output = absolute(checkpoint), absolute(output)  # a worker's folder may be another
    rows = find_input(source)
    try:
        digest = file_digest(checkpoint)
    except OSError as problem:
        raise UserError(f"--checkpoint {checkpoint}: {problem.strerror or problem}. `train` writes one") from None
    claim = {
        "input": source,
        "content of the input": rows.digest,
        "checkpoint": digest,
        "Predictor (its code or its precision)": _predictor_digest(),
        "batch size": batch_size,
    }
    folder = RunFolder(output, claim)
    if finished := folder.summary():
        print(f"{output} holds this run, finished: nothing to do.")
        return finished
    plan = make_plan(cluster_nodes(), concurrency, num_cpus, num_gpus, settings.GPUS_PER_PREDICTOR)
    print(f"Plan: {plan}.", flush=True)
    device = _device(plan)
    if device == "cpu" and (plan.num_gpus or settings.GPUS_PER_PREDICTOR):
        print(("Ray has GPUs, but torch sees none" if plan.num_gpus else "No GPU here") + ": predicting on the CPU.")

    done = folder.open()
    files = rows.files if rows.listing is None else [folder.write_listing(rows.listing)]
    dataset = ray.data.read_parquet(files)
    if len(done):
        print(f"Going on: {len(done)} of {len(rows.ids)} rows are done.", flush=True)
        dataset = dataset.map_batches(partial(leave_out, done=ray.put(done)), batch_size=None, batch_format="pyarrow")
    # With as many CPUs as a predictor the decoder would be fused with it, and nothing decoded while the model runs.
    decoder_cpus = settings.CPUS_PER_DECODER + (0.01 if plan.num_cpus == settings.CPUS_PER_DECODER else 0)
    predictions = (
        # Blocks are the unit of writing. A manifest of millions of rows is a few megabytes, one block if left alone:
        # nothing would be written before the end.
        dataset.repartition(target_num_rows_per_block=settings.ROWS_PER_BLOCK)
        .map(partial(decode_row, folder=rows.folder), num_cpus=decoder_cpus)
        .map_batches(
            PredictBatch,
            fn_constructor_kwargs={"checkpoint": checkpoint, "device": device, "precision": settings.PRECISION},
            compute=ray.data.ActorPoolStrategy(min_size=plan.smallest, max_size=plan.largest),
            batch_size=batch_size,
            num_cpus=plan.num_cpus,
            num_gpus=plan.num_gpus,
        )
    )
    if len(done) < len(rows.ids):
        predictions.write_parquet(str(folder.predictions), mode=ray.data.SaveMode.APPEND)
    summary = {
        "rows_before": len(done),
        **measure(predictions.get_stats_summary(), plan, len(rows.ids) - len(done), time.monotonic() - started),
        "plan": str(plan),
        "device": device,
        "versions": {name: version(name) for name in ("ray", "torch", "pyarrow")},
    }
    return folder.close(rows.ids, summary)


def _device(plan: Plan) -> str:
    """Where the predictors compute: "cuda" if the plan gives them GPUs, and torch sees those, else "cpu"."""
    if not plan.num_gpus:
        return "cpu"
    sees_cuda = ray.remote(torch.cuda.is_available).options(num_gpus=plan.num_gpus)
    return "cuda" if ray.get(sees_cuda.remote()) else "cpu"


def _predictor_digest() -> str:
    files = [Path(__file__).with_name(name) for name in ("model.py", "predictor.py", "preprocessing.py")]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files) + settings.PRECISION.encode()).hexdigest()


def leave_out(table: pa.Table, done: ray.ObjectRef[pa.ChunkedArray]) -> pa.Table:
    """The rows of `table` whose id is not in `done`, which each machine fetches once."""
    return table.filter(pc.invert(pc.is_in(table["id"], ray.get(done))))


def decode_row(row: dict[str, Any], folder: str) -> dict[str, Any]:
    """Decode one row; a row that can't be decoded becomes a blank one with its error."""
    try:
        if "path" in row and not row["path"].startswith("/") and "://" not in row["path"]:
            row = {**row, "path": f"{folder}/{row['path']}"}
        decoded = Predictor.decode(row)
        for name, blank in Predictor.blank.items():
            if (decoded[name].shape, decoded[name].dtype) != (blank.shape, blank.dtype):
                raise ValueError(f"{name} is {decoded[name].dtype} {decoded[name].shape}, not as in Predictor.blank")
        return {"id": row["id"], "error": "", **decoded}
    except Exception as problem:  # whatever is wrong with one row must not end the run
        return {"id": row["id"], "error": f"decode: {_describe(problem)}", **Predictor.blank}


class PredictBatch:
    """What each actor of the pool runs: a Predictor, made once, and what it can't predict put down as an error."""

    def __init__(self, checkpoint: str, **arguments: Any) -> None:
        self.refusal: UserError | None = None
        try:
            self.predictor = Predictor(checkpoint, **arguments)
            # One call warms the model up and tells the columns' types, which a batch of errors alone could not.
            one_row = {name: value[np.newaxis].copy() for name, value in Predictor.blank.items()}
            outputs = {name: np.asarray(value) for name, value in self.predictor(one_row).items()}
        except Exception as problem:
            # Raised at the first call: of an actor that dies while it is made, Ray prints pages.
            self.refusal = UserError(f"the Predictor can't use --checkpoint {checkpoint}: {_describe(problem)}")
            return
        # Strings become objects: NumPy's own are only as long as the first one.
        self.columns = {name: one.astype(object) if one.dtype.kind == "U" else one for name, one in outputs.items()}

    def __call__(self, batch: dict[str, np.ndarray]) -> pa.Table:
        """Predict the rows without an error; a batch that fails is tried again row by row."""
        if self.refusal:
            raise self.refusal
        ids, errors = batch.pop("id"), batch.pop("error").astype(object)
        good = np.flatnonzero(errors == "")
        outputs = {name: np.zeros((len(ids), *one.shape[1:]), one.dtype) for name, one in self.columns.items()}
        try:
            self._predict(batch, good, outputs)
        except Exception:
            for row in good:
                try:
                    self._predict(batch, np.array([row]), outputs)
                except Exception as problem:
                    errors[row] = f"predict: {_describe(problem)}"
        failed = errors != ""
        columns = {name: _to_arrow(values, failed) for name, values in outputs.items()}
        return pa.table({"id": ids, **columns, "error": pa.array(errors, pa.string(), mask=~failed)})

    def _predict(self, batch: dict[str, np.ndarray], rows: np.ndarray, outputs: dict[str, np.ndarray]) -> None:
        if len(rows) == 0:
            return
        # Indexing copies: the arrays that Ray hands over are read-only, and torch warns of those.
        for name, values in self.predictor({name: values[rows] for name, values in batch.items()}).items():
            if len(values) != len(rows):
                raise ValueError(f"the Predictor returned {len(values)} values of {name} for {len(rows)} rows")
            outputs[name][rows] = values


def _describe(problem: Exception) -> str:
    return f"{type(problem).__name__}: {' '.join(str(problem).split())}"[:500]


def _to_arrow(values: np.ndarray, failed: np.ndarray) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values, mask=failed)
    width = int(np.prod(values.shape[1:]))
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), width, mask=pa.array(failed))
