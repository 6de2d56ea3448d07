"""What `predict` runs on Ray's workers: a first try that says how fast the Predictor is, decoding, and predicting.

The Predictor is imported where it is used: torch takes seconds to load, and the driver has no use for it.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import ray

from .errors import UserError


@dataclass(frozen=True)
class Trial:
    """What a first try showed: seconds a row, the bytes of a decoded row, and those that a predictor holds."""

    device: str
    decode_seconds: float
    predict_seconds: float
    row_bytes: int
    memory: int


def try_predictor(rows: list[dict[str, Any]], folder: str, batch_size: int, checkpoint: str, precision: str) -> Trial:
    """Decode `rows`, and predict batches of one that grow until one takes a tenth of a second or is of `batch_size`.

    Raises:
        UserError: the Predictor can't be made.
    """
    device = _device()
    worker = PredictBatch(checkpoint, device=device, precision=precision)
    if worker.refusal:
        raise worker.refusal
    decode_row(rows[0], folder)  # the first loads what it needs
    times, decoded = zip(*(_timed(decode_row, row, folder) for row in rows), strict=True)
    good = [number for number, row in enumerate(decoded) if not row["error"]] or range(len(rows))
    decode_seconds = statistics.median(times[number] for number in good)
    arrays = {name: value for name, value in decoded[good[0]].items() if name not in ("id", "error")}
    size = 1
    while True:
        # A row that can't be predicted is found out again in the run, and written down there.
        batch = {"id": np.array(["try"] * size), "error": np.array([""] * size)} | _repeat(arrays, size)
        predict_seconds = min(_timed(worker, {**batch})[0] for _ in range(3))
        if predict_seconds > 0.1 or size == batch_size:
            break
        size = min(4 * size, batch_size)
    row_bytes = sum(value.nbytes for value in arrays.values())
    return Trial(device, decode_seconds, predict_seconds / size, row_bytes, psutil.Process().memory_info().rss)


def _timed(function: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """The seconds that a call takes, and what it returns."""
    started = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - started, result


def _device() -> str:
    """Where a predictor computes: "cuda" if the plan gives it a GPU, and torch sees that, else "cpu"."""
    if not ray.get_gpu_ids():
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _repeat(arrays: dict[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
    return {name: np.repeat(value[np.newaxis], rows, axis=0) for name, value in arrays.items()}


def leave_out(table: pa.Table, done: ray.ObjectRef[pa.ChunkedArray]) -> pa.Table:
    """The rows of `table` whose id is not in `done`, which each machine fetches once."""
    return table.filter(pc.invert(pc.is_in(table["id"], ray.get(done))))


def decode_row(row: dict[str, Any], folder: str) -> dict[str, Any]:
    """Decode one row; a row that can't be decoded becomes a blank one with its error."""
    from .predictor import Predictor

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
        from .predictor import Predictor

        self.refusal: UserError | None = None
        try:
            self.predictor, self.blank = Predictor(checkpoint, **arguments), Predictor.blank
            # One call warms the model up and tells the columns' types, which a batch of errors alone could not.
            outputs = {name: np.asarray(value) for name, value in self.predictor(_repeat(Predictor.blank, 1)).items()}
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
            if (errors[good] != "").all():
                # Is it the rows, or is it the model, or its GPU? Then this raises, and the run breaks off.
                self.predictor(_repeat(self.blank, 1))
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
