"""What runs on Ray's workers: a first try that says how fast the Predictor is, decoding, and predicting.

The Predictor is imported where it is used: torch takes seconds to load, and the driver has no use for it. Ray and
pandas as well: a first try before Ray has started needs neither.
"""

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc

from .errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    import ray

Decode: TypeAlias = Callable[[Mapping[str, Any]], dict[str, np.ndarray]]
# By Predictor.batch_format: "numpy", "pandas" or "pyarrow".
Batch: TypeAlias = "dict[str, np.ndarray] | pd.DataFrame | pa.Table"

ENOUGH = 0.1  # seconds of one call, with which what a call costs in itself no longer counts
LARGEST_BATCH_BYTES = 64 * 2**20  # of what the Predictor gets in one call


@dataclass(frozen=True)
class Trial:
    """What a first try showed: how to call the Predictor, seconds and bytes a row, and the bytes that it holds."""

    device: str
    decode: Decode | None
    blank: Batch
    batch_format: str
    batch_size: int
    decode_seconds: float
    predict_seconds: float
    row_bytes: float
    memory: int


def try_predictor(
    rows: pa.Table, folder: str, batch_size: int | None, checkpoint: str, precision: str, on_gpu: bool = False
) -> Iterator[Any]:
    """Decode and predict `rows`; then batches that grow from one row up to `batch_size`, or until they are no faster.

    Yields:
        the predictions of `rows`, as `PredictBatch` returns them, and then the Trial.

    Raises:
        UserError: the Predictor can't be made, or the rows lack what it needs.
    """
    predictor, device = predictor_class(), _device(on_gpu)
    worker = PredictBatch(checkpoint, device=device, precision=precision)
    if worker.refusal:
        raise worker.refusal
    decode_seconds = 0.0
    decode, blank = getattr(predictor, "decode", None), predictor.blank
    sample: Batch
    tried: Batch
    if decode:
        each = rows.to_pylist()
        decode_row(each[0], folder, decode, blank)  # the first loads what it needs
        times, decoded = zip(*(_timed(decode_row, row, folder, decode, blank) for row in each), strict=True)
        good = [number for number, row in enumerate(decoded) if not row["error"]] or range(len(each))
        decode_seconds = statistics.median(times[number] for number in good)
        tried = _columns(rows, decoded)
        sample = {name: np.asarray(value)[np.newaxis] for name, value in {**decoded[good[0]], "error": ""}.items()}
        row_bytes = float(sum(values.nbytes for values in sample.values()))
    else:
        if missing := sorted(set(column_names(blank)) - set(rows.column_names)):
            raise UserError(
                f"--input has no column {missing[0]}, which the Predictor needs: give it what it was made for"
            )
        sample, row_bytes = _from_arrow(rows, predictor.batch_format), rows.nbytes / len(rows)
        tried = sample
    starts = range(0, len(rows), batch_size or len(rows))
    batches = (_take(tried, np.arange(start, min(start + starts.step, len(rows)))) for start in starts)
    yield pa.concat_tables(map(worker, batches))
    size, best = 1, (1, float("inf"))
    while True:
        batch = _take(sample, np.arange(size) % _length(sample))
        predict_seconds = min(_timed(worker, batch)[0] for _ in range(3))
        if predict_seconds / size < 1.05 * best[1]:
            best = size, predict_seconds / size
        if size == batch_size or predict_seconds > ENOUGH or 4 * size * row_bytes > LARGEST_BATCH_BYTES:
            break
        size = min(4 * size, batch_size or 4 * size)
    memory = psutil.Process().memory_info().rss
    size, form = batch_size or best[0], predictor.batch_format
    yield Trial(device, decode, blank, form, size, decode_seconds, best[1], row_bytes, memory)


def predictor_class() -> Any:
    """The Predictor, whatever its batches are."""
    from .predictor import Predictor

    return Predictor


def _timed(function: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """The seconds that a call takes, and what it returns."""
    started = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - started, result


def _device(on_gpu: bool) -> str:
    """Where a predictor computes: "cuda" if the plan gives it a GPU, and torch sees that, else "cpu"."""
    if not on_gpu:
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def leave_out(table: pa.Table, done: "ray.ObjectRef[pa.ChunkedArray]") -> pa.Table:
    """The rows of `table` whose id is not in `done`, which each machine fetches once."""
    import ray

    return table.filter(pc.invert(pc.is_in(table["id"], ray.get(done))))


def decode_row(row: dict[str, Any], folder: str, decode: Decode, blank: Batch) -> dict[str, Any]:
    """Decode one row; a row that can't be decoded becomes a blank one with its error.

    `decode` and `blank` are the Predictor's, which is not imported for them: where `decode` lies in a module without
    torch, the decoders start in half the time.
    """
    blank = {name: np.asarray(blank[name])[0] for name in column_names(blank)}
    try:
        if "path" in row and not row["path"].startswith("/") and "://" not in row["path"]:
            row = {**row, "path": f"{folder}/{row['path']}"}
        decoded = decode(row)
        for name, value in blank.items():
            if (decoded[name].shape, decoded[name].dtype) != (value.shape, value.dtype):
                raise ValueError(f"{name} is {decoded[name].dtype} {decoded[name].shape}, not as in Predictor.blank")
        return {"id": row["id"], "error": "", **{name: decoded[name] for name in blank}}
    except Exception as problem:  # whatever is wrong with one row must not end the run
        return {"id": row["id"], "error": f"decode: {_describe(problem)}", **blank}


def decode_rows(rows: pa.Table, **decoding: Any) -> dict[str, np.ndarray]:
    """Decode the rows of a block, one by one. Ray Data's own `map` would take longer to put them together again."""
    return _columns(rows, [decode_row(row, **decoding) for row in rows.to_pylist()])


def _columns(rows: pa.Table, decoded: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    """What was decoded of `rows`, by column. The ids are as they were: of large numbers, NumPy might make floats."""
    names = [name for name in decoded[0] if name != "id"]
    return {"id": rows["id"].to_numpy(), **{name: np.stack([row[name] for row in decoded]) for name in names}}


def decode_labelled_row(row: dict[str, Any], **decoding: Any) -> dict[str, Any]:
    """The same for a row to train on. It is not in `training.py`, with which the decoders would load torch."""
    return {**decode_row(row, **decoding), "label": row["label"]}


class PredictBatch:
    """What each actor of the pool runs: a Predictor, made once, and what it can't predict put down as an error."""

    def __init__(self, checkpoint: str, **arguments: Any) -> None:
        self.refusal: UserError | None = None
        try:
            predictor = predictor_class()
            self.predictor, self.blank = predictor(checkpoint, **arguments), predictor.blank
            # One call warms the model up and tells the columns' types, which a batch of errors alone could not.
            outputs = {name: np.asarray(value) for name, value in self._predict_blank().items()}
        except Exception as problem:
            # Raised at the first call: of an actor that dies while it is made, Ray prints pages.
            self.refusal = UserError(f"the Predictor can't use --checkpoint {checkpoint}: {_describe(problem)}")
            return
        # Strings become objects: NumPy's own are only as long as the first one.
        self.columns = {name: one.astype(object) if one.dtype.kind == "U" else one for name, one in outputs.items()}
        self.decodes = hasattr(predictor, "decode")

    def __call__(self, batch: Batch) -> pa.Table:
        """Predict the rows without an error; a batch that fails is tried again row by row."""
        if self.refusal:
            raise self.refusal
        ids = batch["id"]
        errors = np.asarray(batch["error"]).astype(object) if self.decodes else np.full(len(ids), "", object)
        if isinstance(batch, dict):
            batch = {name: values for name, values in batch.items() if name not in ("id", "error")}
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
                self._predict_blank()
        failed = errors != ""
        columns = {name: _to_arrow(values, failed) for name, values in outputs.items()}
        return pa.table({"id": ids, **columns, "error": pa.array(errors, pa.string(), mask=~failed)})

    def _predict_blank(self) -> dict[str, np.ndarray]:
        """Predict the blank row, a copy of it: a Predictor may write into its batch."""
        outputs: dict[str, np.ndarray] = self.predictor(copy.deepcopy(self.blank))
        return outputs

    def _predict(self, batch: Batch, rows: np.ndarray, outputs: dict[str, np.ndarray]) -> None:
        if len(rows) == 0:
            return
        for name, values in self.predictor(_take(batch, rows)).items():
            if len(values) != len(rows):
                raise ValueError(f"the Predictor returned {len(values)} values of {name} for {len(rows)} rows")
            outputs[name][rows] = values


def _take(batch: Batch, rows: np.ndarray) -> Batch:
    """Some rows of a batch."""
    if isinstance(batch, dict):
        # Indexing copies: the arrays that Ray hands over are read-only, and torch warns of those.
        return {name: values[rows] for name, values in batch.items()}
    return batch if len(rows) == len(batch) else batch.take(rows)


def column_names(batch: Batch) -> list[str]:
    """The names of a batch's columns."""
    return list(batch.column_names if isinstance(batch, pa.Table) else batch)


def _length(batch: Batch) -> int:
    return len(next(iter(batch.values()))) if isinstance(batch, dict) else len(batch)


def _from_arrow(table: pa.Table, batch_format: str) -> Batch:
    """As Ray Data hands a block to a function."""
    import ray.data

    accessor = ray.data.block.BlockAccessor.for_block(table)
    batch: Batch = accessor.to_batch_format(batch_format)
    return batch


def _describe(problem: Exception) -> str:
    return f"{type(problem).__name__}: {' '.join(str(problem).split())}"[:500]


def _to_arrow(values: np.ndarray, failed: np.ndarray) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values, mask=failed)
    width = int(np.prod(values.shape[1:]))
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), width, mask=pa.array(failed))
