"""Batch inference on a real Ray: every row once, its prediction or its error, and nothing done twice."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from conftest import NO_GPU, Example, run_cli

from {{ cookiecutter.__package_name }} import inputs, pipeline, predictor, settings, watch
from {{ cookiecutter.__package_name }}.errors import UserError
from {{ cookiecutter.__package_name }}.folders import lock
from {{ cookiecutter.__package_name }}.inference import predict
from {{ cookiecutter.__package_name }}.preflight import Plan
from {{ cookiecutter.__package_name }}.run_folder import RunFolder
from {{ cookiecutter.__package_name }}.runtime import ray_session
from {{ cookiecutter.__package_name }}.workers import Batch, PredictBatch, Trial, decode_labelled_row, decode_row, decode_rows


def read_predictions(output: Path) -> pd.DataFrame:
    return pd.read_parquet(output / "predictions").sort_values("id", ignore_index=True)


@pytest.mark.usefixtures("two_cpus")
class TestPredict:
    """In one Ray with two CPUs, where the textbook's plan of an actor for every CPU never starts."""

    def test_every_row_once(self, example: Example, tmp_path: Path) -> None:
        summary = predict(str(example.manifest), str(example.checkpoint), str(tmp_path / "run"))
        rows = read_predictions(tmp_path / "run")
        assert sorted(rows["id"]) == sorted(pd.read_parquet(example.manifest)["id"])
        assert rows["error"].isna().all()
        assert (summary["rows"], summary["failed"]) == (len(rows), 0)

    def test_so_few_rows_that_the_first_try_does_them_all(self, example: Example, tmp_path: Path) -> None:
        few = example.manifest.with_name("eight.parquet")
        pq.write_table(pq.read_table(example.manifest)[:8], few)
        summary = predict(str(few), str(example.checkpoint), str(tmp_path / "run"), batch_size=3)
        assert (summary["rows"], summary["failed"]) == (8, 0)
        assert len(list((tmp_path / "run" / "predictions").iterdir())) == 1
        rows = read_predictions(tmp_path / "run")
        predict(str(example.manifest), str(example.checkpoint), str(tmp_path / "whole"))
        whole = read_predictions(tmp_path / "whole").set_index("id")
        pd.testing.assert_frame_equal(rows.set_index("id"), whole.loc[rows["id"]])

    @pytest.mark.parametrize("cpus", [0.5, 1])
    def test_decoding_is_a_stage_of_its_own(
        self, example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpus: float
    ) -> None:
        """Ray Data would fuse it with predictors of as many CPUs, and nothing would be decoded while the model runs."""
        monkeypatch.setattr(settings, "CPUS_PER_DECODER", cpus)
        summary = predict(str(example.manifest), str(example.checkpoint), str(tmp_path / "run"), num_cpus=cpus)
        assert summary["busy_seconds"]["predict"] > 0
        assert (summary["busy_seconds"]["decode"] > 0) == hasattr(predictor.Predictor, "decode")

    def test_a_finished_run_is_left_alone(self, example: Example, tmp_path: Path) -> None:
        first = predict(str(example.manifest), str(example.checkpoint), str(tmp_path / "run"))
        files = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
        assert predict(str(example.manifest), str(example.checkpoint), str(tmp_path / "run")) == first
        assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == files

    def test_another_run_on_the_same_folder_is_refused(self, example: Example, tmp_path: Path) -> None:
        run = str(tmp_path / "run")
        predict(str(example.manifest), str(example.checkpoint), run)
        with pytest.raises(UserError, match="another batch size"):
            predict(str(example.manifest), str(example.checkpoint), run, batch_size=7)
        (tmp_path / "other.checkpoint").write_bytes(example.checkpoint.read_bytes() + b" ")
        with pytest.raises(UserError, match="another checkpoint"):
            predict(str(example.manifest), str(tmp_path / "other.checkpoint"), run)
        with pytest.raises(UserError, match="holds other things"):
            predict(str(example.manifest), str(example.checkpoint), str(tmp_path))

    @pytest.mark.parametrize("largest_table", [inputs.LARGEST_TABLE, 0])  # bytes that the driver holds itself
    def test_it_goes_on_from_what_is_written(
        self, example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, largest_table: int
    ) -> None:
        monkeypatch.setattr(inputs, "LARGEST_TABLE", largest_table)
        run = tmp_path / "run"
        predict(str(example.manifest), str(example.checkpoint), str(run))
        whole = read_predictions(run)
        (run / "summary.json").unlink()
        files = sorted((run / "predictions").iterdir())
        kept = set(pd.read_parquet(files[0])["id"])
        files[1].write_bytes(files[1].read_bytes()[:-100])  # as a kill in the middle of writing leaves it
        for file in files[2:]:
            file.unlink()
        summary = predict(str(example.manifest), str(example.checkpoint), str(run))
        assert summary["rows_before"] == len(kept)
        assert sorted(read_predictions(run)["id"]) == sorted(whole["id"])
        assert files[0].exists()

    def test_what_it_waits_for_is_said(
        self, example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(pipeline, "PATIENCE", 0.5)
        monkeypatch.setattr(watch, "PATIENCE", 0.0)
        monkeypatch.setattr(watch, "LOOK_EVERY", 0.0)
        occupied = ray.remote(lambda: time.sleep(3)).options(num_cpus=2).remote()  # another job
        predict(str(example.manifest), str(example.checkpoint), str(tmp_path / "run"))
        ray.get(occupied)
        printed = capsys.readouterr().out
        assert "Waiting for the first predictor, with 1 CPU and 0 GPU. Free: 0 of 2 CPUs." in printed
        assert "No progress for 0 s. " in printed
        assert "predict waits for 1 predictor(s) to start" in printed


@pytest.mark.parametrize("cpus", [1, 4, 64])
def test_the_default_plan_runs_whatever_the_machine_has(example: Example, tmp_path: Path, cpus: int) -> None:
    few = example.manifest.with_name("few.parquet")
    pq.write_table(pq.read_table(example.manifest)[:30], few)
    with ray_session(num_cpus=cpus):
        # On 64 logical CPUs, the default would be dozens of processes with a model.
        for number, concurrency in enumerate([None, (1, 1), (1, 1000)] if cpus < 64 else [(1, 2)]):
            run = tmp_path / f"{number}"
            assert predict(str(few), str(example.checkpoint), str(run), concurrency=concurrency)["failed"] == 0
            assert len(read_predictions(run)) == 30


def test_every_predictor_gets_as_many_blocks_as_another() -> None:
    trial = Trial("cpu", None, {}, "numpy", 16, 0.003, 2 / 272, 150_528, 0)  # 272 rows take two seconds
    plan = Plan(2, 2, 1, 0, 3)
    assert pipeline._rows_per_block(trial, plan, 4096) == 256  # 8 blocks each, where 272 would leave 16 rows over
    assert pipeline._rows_per_block(trial, plan, 100) == 13  # so few that a batch is not filled
    assert pipeline._rows_per_block(trial, plan, 1) == 1


class FailsOnOdd:
    """A predictor that can't take some rows, nor any batch that they are in."""

    batch_format = "numpy"
    blank: ClassVar[dict[str, np.ndarray]] = {"number": np.zeros(1, np.int64)}

    def __init__(self, checkpoint: str) -> None:
        pass

    @staticmethod
    def decode(row: Mapping[str, Any]) -> dict[str, np.ndarray]:
        return {"number": np.array(int(Path(row["path"]).read_text()))}

    def __call__(self, batch: Batch) -> dict[str, np.ndarray]:
        numbers = np.asarray(batch["number"])
        if (numbers % 2).any():
            raise ValueError("odd")
        return {"label": numbers}


def make_batch(numbers: list[int], errors: list[str]) -> dict[str, np.ndarray]:
    ids = np.array([f"row {number}" for number in numbers])
    return {"id": ids, "error": np.array(errors), "number": np.array(numbers)}


@pytest.mark.parametrize("batch_format", [dict, pd.DataFrame, pa.table])
def test_a_row_that_fails_does_not_take_its_batch_with_it(
    monkeypatch: pytest.MonkeyPatch, batch_format: Callable[[Any], Batch]
) -> None:
    monkeypatch.setattr(predictor, "Predictor", FailsOnOdd)
    batch = batch_format(make_batch([2, 3, 4, 6], ["", "", "decode: OSError: truncated", ""]))
    table = PredictBatch("none")(batch).to_pylist()
    assert [row["id"] for row in table] == ["row 2", "row 3", "row 4", "row 6"]
    assert [row["label"] for row in table] == [2, None, None, 6]
    assert [row["error"] for row in table] == [None, "predict: ValueError: odd", "decode: OSError: truncated", None]


class WritesIntoItsBatch(FailsOnOdd):
    def __call__(self, batch: Batch) -> dict[str, np.ndarray]:
        numbers = np.asarray(batch["number"])  # the same memory
        numbers += 1
        return {"label": numbers}


def test_a_predictor_may_write_into_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictor, "Predictor", WritesIntoItsBatch)
    batch = make_batch([2, 3], ["", ""])
    batch["number"].flags.writeable = False  # as Ray hands it over
    assert PredictBatch("none")(batch)["label"].to_pylist() == [3, 4]


def test_the_decoders_load_no_torch() -> None:
    """Nor Ray, for which the first try does not wait."""
    names = {function.__module__ for function in (decode_rows, decode_labelled_row)}
    check = f"import sys, {', '.join(names)}; sys.exit('ray' in sys.modules or 'torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)


@pytest.mark.parametrize("row", [{"id": "null", "path": None}, {"id": "number", "path": 3}, {"id": "no path"}])
def test_a_row_without_a_path_is_an_error_like_any_other(row: dict[str, Any]) -> None:
    assert decode_row(row, "/folder", FailsOnOdd.decode, FailsOnOdd.blank)["error"].startswith("decode: ")


def test_a_row_of_another_shape_is_an_error_like_any_other() -> None:
    decoded = decode_row({"id": "large"}, "/folder", lambda _: {"number": np.zeros(2, np.int64)}, FailsOnOdd.blank)
    assert "not as in Predictor.blank" in decoded["error"]
    assert decoded["number"].shape == ()


def test_what_was_decoded_is_put_together_by_the_blank_and_keeps_large_ids() -> None:
    rows = pa.table({"id": pa.array([5, 2**63 + 1], pa.uint64()), "number": [2, None]})
    more = {"decode": lambda row: {"number": np.int64(row["number"]), "more": np.int64(1)}, "blank": FailsOnOdd.blank}
    decoded = decode_rows(rows, folder="/folder", **more)
    assert decoded["id"].tolist() == [5, 2**63 + 1]
    assert decoded["number"].tolist() == [2, 0]
    assert [bool(error) for error in decoded["error"]] == [False, True]
    assert decoded.keys() == {"id", "error", "number"}


def test_a_batch_of_failures_keeps_the_columns_types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictor, "Predictor", FailsOnOdd)
    good, bad = PredictBatch("none")(make_batch([2], [""])), PredictBatch("none")(make_batch([3], [""]))
    assert good.schema == bad.schema


def test_a_row_that_was_written_twice_stays_once(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path / "run"), {})
    folder.predictions.mkdir(parents=True)
    for name, ids in (("a", ["1", "2"]), ("b", ["2", "3"]), ("c", ["1", "3"])):
        pd.DataFrame({"id": ids, "label": name}).to_parquet(tmp_path / "run" / "predictions" / f"{name}.parquet")
    assert sorted(folder.open().to_pylist()) == ["1", "2", "3"]
    assert read_predictions(tmp_path / "run")["label"].tolist() == ["a", "a", "b"]


def test_a_model_that_can_do_nothing_any_more_breaks_the_run_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictor, "Predictor", FailsOnOdd)
    worker = PredictBatch("none")
    monkeypatch.setattr(FailsOnOdd, "__call__", lambda *_: 1 / 0)  # as a GPU after a fault
    with pytest.raises(ZeroDivisionError):
        worker(make_batch([2], [""]))


def test_a_second_process_on_the_same_folder_is_refused(example: Example, tmp_path: Path) -> None:
    arguments = ["predict", "--input", example.manifest, "--checkpoint", example.checkpoint]
    with lock(tmp_path / "run"):
        second = run_cli(*arguments, "--output", tmp_path / "run")
    assert second.returncode == 2
    assert "another process is at work in it" in second.stderr


def test_a_folder_that_can_not_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--output .*/file/run: Not a directory"):
        lock(tmp_path / "file" / "run")


def test_a_first_try_that_runs_out_of_memory_ends_the_run(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The share of the machine's memory from which on Ray ends workers: less than is taken in any case.
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.001")
    with ray_session(num_cpus=2), pytest.raises(UserError, match="first predictor ran out of memory, and Ray ended it"):
        predict(str(example.manifest), str(example.checkpoint), str(tmp_path / "run"))


def test_a_predictor_too_large_for_any_machine_leaves_the_folder_free(example: Example, tmp_path: Path) -> None:
    ray.init(address="local", num_cpus=2, _memory=100 * 2**20, include_dashboard=False, log_to_driver=False)
    try:
        for batch_size in (8, 4):  # which the message names; another run's folder would be refused
            with pytest.raises(UserError, match=r"the largest has 0\.1 GiB for work\. Lower --batch-size"):
                predict(str(example.manifest), str(example.checkpoint), str(tmp_path / "run"), batch_size=batch_size)
    finally:
        ray.shutdown()


@pytest.mark.parametrize("batch_size", [[], ["--batch-size", "3"]])
def test_the_first_predictions_come_before_ray_starts(example: Example, tmp_path: Path, batch_size: list[str]) -> None:
    few = example.manifest.with_name("eight.parquet")
    pq.write_table(pq.read_table(example.manifest)[:8], few)
    arguments = ["predict", "--input", few, "--checkpoint", example.checkpoint, "--output", tmp_path / "run"]
    finished = run_cli(*arguments, *batch_size, *NO_GPU, RAY_TMPDIR=str(tmp_path / "ray"))
    assert finished.returncode == 0, finished.stderr
    assert "8 rows, 0 failed" in finished.stdout
    assert len(read_predictions(tmp_path / "run")) == 8
    assert not (tmp_path / "ray").exists()


def test_gpus_that_are_not_there_are_refused_at_once(example: Example, tmp_path: Path) -> None:
    arguments = ["predict", "--input", example.manifest, "--checkpoint", example.checkpoint]
    refused = run_cli(*arguments, "--output", tmp_path / "run", "--num-gpus", "1", CUDA_VISIBLE_DEVICES="")
    assert refused.returncode == 2
    assert "no machine can hold a predictor of --num-cpus 1 --num-gpus 1" in refused.stderr


def test_gpus_are_scheduled(example: Example, tmp_path: Path) -> None:
    """With a logical GPU, which Ray hands out although the machine may have none."""
    free_gpus = []
    ray.init(address="local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.2):
            free_gpus.append(ray.available_resources().get("GPU", 0))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        summary = predict(str(example.manifest), str(example.checkpoint), str(tmp_path / "run"), num_gpus=1)
    finally:
        ended.set()
        watcher.join()
        ray.shutdown()
    assert min(free_gpus) == 0  # while it ran, the predictor held it
    assert "1 GPU each" in summary["plan"]
    assert summary["failed"] == 0


def test_a_checkpoint_that_is_none_is_refused_in_one_line(example: Example, tmp_path: Path) -> None:
    (tmp_path / "broken").write_bytes(example.checkpoint.read_bytes()[:50])
    arguments = ["predict", "--input", example.manifest, "--checkpoint", tmp_path / "broken"]
    refused = run_cli(*arguments, "--output", tmp_path / "run")
    assert refused.returncode == 2
    assert f"error: the Predictor can't use --checkpoint {tmp_path / 'broken'}" in refused.stderr
    assert "Traceback" not in refused.stdout + refused.stderr
    # Nothing is predicted yet, so the folder is still free.
    arguments[-1] = example.checkpoint
    assert run_cli(*arguments, "--output", tmp_path / "run").returncode == 0
