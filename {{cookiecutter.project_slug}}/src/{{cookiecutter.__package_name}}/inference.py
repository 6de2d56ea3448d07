"""Step 4, batch inference on Ray Data: every input row comes out exactly once, with its prediction or its error.

    read Parquet -> leave out what an earlier run finished -> small blocks -> decode -> predict -> write Parquet

The folder of predictions is its own checkpoint: its Parquet files are complete or unreadable, so a run that was killed
goes on from the ids that can be read.
"""

import hashlib
import json
import time
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
import ray.data
from upath import UPath

from . import settings
from .errors import UserError
from .inputs import find_input, read_ids
from .predictor import Predictor
from .preflight import cluster_nodes, make_plan


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
    rows = find_input(source)
    target = UPath(output)
    claim = {
        "input": source,
        "content of the input": rows.digest,
        "checkpoint": _file_digest(checkpoint),
        "batch size": batch_size,
    }
    if finished := _open_output(target, claim):
        return finished
    plan = make_plan(cluster_nodes(), concurrency, num_cpus, num_gpus, settings.GPUS_PER_PREDICTOR)
    print(f"Plan: {plan}.")
    if settings.GPUS_PER_PREDICTOR and not plan.num_gpus:
        print("No GPU here: predicting on the CPU.")

    done = finished_ids(target)
    files = rows.files
    if rows.listing is not None:
        files = [str(target / "listing.parquet")]
        with UPath(files[0]).open("wb") as file:
            pq.write_table(rows.listing, file)
    if len(done):
        print(f"Going on: {len(done)} of {len(rows.ids)} rows are done.")

    dataset = ray.data.read_parquet(files)
    if len(done):
        dataset = dataset.map_batches(partial(leave_out, done=ray.put(done)), batch_size=None, batch_format="pyarrow")
    (
        # Blocks are the unit of writing. A manifest of millions of rows is a few megabytes, one block if left alone:
        # nothing would be written before the end.
        dataset.repartition(target_num_rows_per_block=settings.ROWS_PER_BLOCK)
        # With as many CPUs as a predictor it would be fused with it: then nothing is decoded while the model runs.
        .map(partial(decode_row, folder=rows.folder), num_cpus=settings.CPUS_PER_DECODER)
        .map_batches(
            PredictBatch,
            fn_constructor_kwargs={"checkpoint": checkpoint, "precision": settings.PRECISION},
            compute=ray.data.ActorPoolStrategy(min_size=plan.smallest, max_size=plan.largest),
            batch_size=batch_size,
            num_cpus=plan.num_cpus,
            num_gpus=plan.num_gpus,
        )
        .write_parquet(str(target / "predictions"), mode=ray.data.SaveMode.APPEND)
    )
    return _close_output(target, rows.ids, plan=str(plan), rows_before=len(done), started=started)


def leave_out(table: pa.Table, done: ray.ObjectRef[pa.ChunkedArray]) -> pa.Table:
    """The rows of `table` whose id is not in `done`, which each machine fetches once."""
    return table.filter(pc.invert(pc.is_in(table["id"], ray.get(done))))


def decode_row(row: dict[str, Any], folder: str) -> dict[str, Any]:
    """Decode one row; a row that can't be decoded becomes a blank one with its error."""
    if "path" in row and not row["path"].startswith("/") and "://" not in row["path"]:
        row = {**row, "path": f"{folder}/{row['path']}"}
    try:
        return {"id": row["id"], "error": "", **Predictor.decode(row)}
    except Exception as problem:  # whatever is wrong with one row must not end the run
        return {"id": row["id"], "error": _describe("decode", problem), **Predictor.blank}


class PredictBatch:
    """What each actor of the pool runs: a Predictor, made once, and what it can't predict put down as an error."""

    def __init__(self, **arguments: Any) -> None:
        self.predictor = Predictor(**arguments)
        # One call warms the model up and tells the columns' types, which a batch of errors alone could not.
        one_row = {name: value[np.newaxis].copy() for name, value in Predictor.blank.items()}
        outputs = {name: np.asarray(value) for name, value in self.predictor(one_row).items()}
        # Strings become objects: NumPy's own are only as long as the first one.
        self.columns = {name: one.astype(object) if one.dtype.kind == "U" else one for name, one in outputs.items()}

    def __call__(self, batch: dict[str, np.ndarray]) -> pa.Table:
        """Predict the rows without an error; a batch that fails is tried again row by row."""
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
                    errors[row] = _describe("predict", problem)
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


def finished_ids(output: UPath) -> pa.ChunkedArray:
    """The ids in `output`/predictions. A file that a killed run left half-written has no footer: it is removed."""
    files = []
    for file in sorted((output / "predictions").glob("*.parquet")):
        try:
            with file.open("rb") as stream:
                pq.read_metadata(stream)
            files.append(str(file))
        except pa.ArrowInvalid:
            file.unlink()
    return read_ids(files) if files else pa.chunked_array([], pa.string())


def _open_output(output: UPath, claim: dict[str, Any]) -> dict[str, Any] | None:
    """Claim the folder for this run, or return the summary of the same run if it is finished."""
    run, summary = output / "run.json", output / "summary.json"
    if run.exists():
        for name, earlier in json.loads(run.read_text()).items():
            if claim[name] != earlier:
                change = f": {earlier}, now {claim[name]}" if name in ("input", "batch size") else ""
                raise UserError(f"--output {output} holds a run with another {name}{change}. Choose another folder")
        return json.loads(summary.read_text()) if summary.exists() else None
    if output.exists() and any(output.iterdir()):
        raise UserError(f"--output {output} holds other things than a run of `predict`. Choose another folder")
    output.mkdir(parents=True, exist_ok=True)
    _write_whole(run, claim)
    return None


def _close_output(output: UPath, ids: pa.ChunkedArray, plan: str, rows_before: int, started: float) -> dict[str, Any]:
    """Check that every row came out exactly once, and write the summary: its presence says that the run is finished."""
    predictions = [str(file) for file in (output / "predictions").glob("*.parquet")]
    written = read_ids(predictions)
    missing = pc.invert(pc.is_in(ids, written))
    if len(written) != len(ids) or pc.any(missing).as_py():
        raise RuntimeError(f"{output} has {len(written)} rows for {len(ids)}: please report this")
    failed = sum(pq.read_table(file, columns=["error"])["error"].drop_null().length() for file in predictions)
    seconds = time.monotonic() - started
    summary = {
        "rows": len(ids),
        "failed": failed,
        "rows_before": rows_before,
        "seconds": round(seconds, 3),
        "rows_per_second": round((len(ids) - rows_before) / seconds, 3),
        "plan": plan,
        "versions": {name: version(name) for name in ("ray", "torch", "pyarrow")},
    }
    _write_whole(output / "summary.json", summary)
    return summary


def _write_whole(path: UPath, content: dict[str, Any]) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    partial.rename(path)


def _file_digest(path: str) -> str:
    try:
        with UPath(path).open("rb") as file:
            digest = hashlib.sha256()
            while chunk := file.read(1 << 20):
                digest.update(chunk)
            return digest.hexdigest()
    except OSError as problem:
        raise UserError(f"--checkpoint {path}: {problem.strerror}. `train` writes one") from None


def _describe(stage: str, problem: Exception) -> str:
    return f"{stage}: {type(problem).__name__}: {problem}"


def _to_arrow(values: np.ndarray, failed: np.ndarray) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values, mask=failed)
    width = int(np.prod(values.shape[1:]))
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), width, mask=pa.array(failed))
