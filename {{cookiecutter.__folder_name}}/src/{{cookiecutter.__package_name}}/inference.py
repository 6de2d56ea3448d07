"""Step 5, batch inference: every input row comes out exactly once, with its prediction or its error.

    rows that no earlier run finished -> a first try -> blocks of two seconds' work -> decode -> predict -> Parquet

The first try is of eight rows, whose predictions are written at once; from there on it is Ray Data's (`pipeline.py`).
The folder of predictions is its own checkpoint (`run_folder.py`): a run that was killed goes on from the ids in it.
Ray and torch take seconds to load: what is wrong with the input or the folder is said before.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

from . import settings
from .errors import UserError, reason
from .first_try import FirstTry
from .folders import lock
from .inputs import absolute, find_input
from .preflight import Node, make_plan, plan_for_cluster
from .run_folder import RunFolder, file_digest
from .runtime import cpus_here


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
    start_ray: Callable[[], AbstractContextManager[None]] | None = None,
) -> dict[str, Any]:
    """Predict every row of `source` with the Predictor.

    Args:
        source: what `inputs.find_input` takes.
        checkpoint: path of the file that the Predictor loads.
        output: folder for predictions/*.parquet (id, the Predictor's columns, error) and, when all is done,
            summary.json. Given again after a kill, the run goes on; given again after the end, nothing is done.
        batch_size: rows that the Predictor gets in one call; by default, as many as make it fast in a first try.
        concurrency, num_cpus, num_gpus: of the predictors, see `preflight.make_plan`.
        started: since when the seconds of the run count, as `time.time()` has it; since now by default.
        start_ray: starts Ray, such as `runtime.ray_session`; without, it is running. Ray that is to start on this
            machine, without GPUs, starts after the first try, and not at all where that does all rows.

    Returns:
        The content of summary.json.

    Raises:
        UserError: the input, the plan or the output folder does not allow the run.
    """
    started = started or time.time()
    checkpoint, output = absolute(checkpoint), absolute(output)  # a worker's folder may be another
    gpus = settings.GPUS_PER_PREDICTOR if num_gpus is None else num_gpus
    with ExitStack() as stack:
        first_try = None
        if start_ray and not gpus and not os.environ.get("RAY_ADDRESS"):
            first_try = stack.enter_context(FirstTry(num_cpus))
        rows = find_input(source)
        folder = RunFolder(output, _claim(source, rows.digest, checkpoint, batch_size))
        if finished := folder.summary():
            print(f"{output} holds this run, finished: nothing to do.")
            return finished
        if first_try:
            plan = make_plan([Node(cpus_here(), 0)], concurrency, num_cpus)
        else:
            stack.enter_context(start_ray() if start_ray else nullcontext())
            plan = plan_for_cluster(concurrency, num_cpus=num_cpus, num_gpus=num_gpus)
        stack.enter_context(lock(folder.path))
        done = folder.open()
        left = rows.without(done)
        predicted = len(left.ids)
        if len(done):
            print(f"Going on: {len(done)} of {len(rows.ids)} rows are done.", flush=True)
        summary: dict[str, Any] = {"rows_before": len(done)}
        if len(left.ids):
            tried = left.some_rows(), left.folder, batch_size, checkpoint, settings.PRECISION
            if first_try:
                first_try.begin(*tried)
            from . import pipeline  # meanwhile

            results: Iterator[Any] = iter(first_try or pipeline.try_on_worker(plan, *tried))
            first = next(results)
            done = folder.add(first, done)
            left = left.without(first["id"])
            trial = next(results)
            summary |= {"plan": str(plan), "device": trial.device, "predictor_memory_bytes": trial.memory}
        if len(left.ids):
            if first_try and start_ray:
                stack.enter_context(start_ray())
            share = trial.predict_seconds / (trial.predict_seconds + trial.decode_seconds)
            asked = {"num_cpus": plan.num_cpus, "num_gpus": plan.num_gpus}
            try:
                plan = plan_for_cluster(concurrency, **asked, predict_share=share, memory=trial.memory)
            except UserError:
                folder.take_back()  # another --batch-size, which the message may name, makes another run
                raise
            print(f"Plan: {plan}.", flush=True)
            if trial.device == "cpu" and gpus:
                why = "Ray has GPUs, but torch sees none" if plan.num_gpus else "No GPU here"
                print(f"{why}: predicting on the CPU.")
            summary |= {"plan": str(plan), **pipeline.run(left, done, plan, trial, checkpoint, folder)}
        seconds = time.time() - started
        summary |= {"seconds": round(seconds, 3), "rows_per_second": round(predicted / seconds, 3)}
        versions = {name: version(name) for name in ("ray", "torch", "pyarrow")}
        return folder.close(rows.ids, {**summary, "versions": versions})


def _claim(source: str, digest: str, checkpoint: str, batch_size: int | None) -> dict[str, Any]:
    """What makes a run another one, by name."""
    try:
        checkpoint_digest = file_digest(checkpoint)
    except OSError as problem:
        raise UserError(f"--checkpoint {checkpoint}: {reason(problem)}. `train` writes one") from None
    return {
        "input": source,
        "digest of the input": digest,
        "checkpoint (its digest)": checkpoint_digest,
        "Predictor (digest of its code and precision)": _predictor_digest(),
        "batch size": batch_size or "chosen",
    }


def _predictor_digest() -> str:
    files = [Path(__file__).with_name(name) for name in ("model.py", "predictor.py", "preprocessing.py")]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files) + settings.PRECISION.encode()).hexdigest()
