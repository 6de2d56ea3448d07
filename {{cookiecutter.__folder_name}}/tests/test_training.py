"""Training and tuning on a real Ray: what they leave, and how they go on after real kills."""

import itertools
import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
from conftest import HANGS, PACKAGE, Example, descendants, run_cli, wait_for
from ray import tune

from {{ cookiecutter.__package_name }} import watch
from {{ cookiecutter.__package_name }}.errors import UserError
from {{ cookiecutter.__package_name }}.evaluation import evaluate
from {{ cookiecutter.__package_name }}.folders import lock
from {{ cookiecutter.__package_name }}.model import CHECKPOINT_FILE
from {{ cookiecutter.__package_name }}.predictor import Predictor
from {{ cookiecutter.__package_name }}.runtime import ray_session
from {{ cookiecutter.__package_name }}.train_loop import DEFAULTS, SEARCH_SPACE
from {{ cookiecutter.__package_name }}.training import configure, train
from {{ cookiecutter.__package_name }}.training_state import loss, read_epochs
from {{ cookiecutter.__package_name }}.tuning import tune_parameters

EPOCHS = 30
MARK = 0.123  # no accuracy that a model has


def start(*arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", PACKAGE, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def noted(checkpoints: Path) -> int:
    """How many epochs Ray Train goes on from: it notes each a moment after its checkpoint is there."""
    with suppress(OSError, ValueError):  # there is none yet, or it is being written
        snapshot = json.loads((checkpoints / "checkpoint_manager_snapshot.json").read_text())
        return int(snapshot["latest_checkpoint_result"]["metrics"]["epoch"])
    return 0


def test_what_a_training_leaves(example: Example) -> None:
    folder = example.checkpoint.parent
    metrics = json.loads((folder / "metrics.json").read_text())
    assert [epoch["epoch"] for epoch in metrics["epochs"]] == list(range(1, DEFAULTS["epochs"] + 1))
    assert metrics["best"]["validation_loss"] == min(epoch["validation_loss"] for epoch in metrics["epochs"])
    last = Predictor(str(folder / f"last-{CHECKPOINT_FILE}"))
    assert len(last(Predictor.blank)["label"]) == 1
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_finished_training_is_left_alone_and_another_refused(example: Example, tmp_path: Path) -> None:
    before = example.checkpoint.stat().st_mtime_ns
    arguments = ["train", "--num-workers", "0", "--input", example.manifest, "--output", example.checkpoint.parent]
    again = run_cli(*arguments)
    assert again.returncode == 0, again.stderr
    assert "finished: nothing to do" in again.stdout
    (tmp_path / "other.json").write_text(json.dumps({"epochs": 1}))
    refused = run_cli(*arguments, "--parameters", tmp_path / "other.json")
    assert refused.returncode == 2
    assert "holds a training with another parameters" in refused.stderr
    assert example.checkpoint.stat().st_mtime_ns == before


def test_an_epoch_that_diverged_is_not_the_best() -> None:
    epochs = [{"epoch": 1, "validation_loss": math.nan}, {"epoch": 2, "validation_loss": 0.5}]
    assert min(epochs, key=loss)["epoch"] == 2


def test_a_checkpoint_that_a_kill_left_half_written_is_passed_over(tmp_path: Path) -> None:
    for name, text in (("checkpoint_1", '[{"epoch": 1}]'), ("checkpoint_2", '[{"epoch": 1}, {"ep')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "epochs.json").write_text(text)
    (tmp_path / "checkpoint_3").mkdir()
    assert read_epochs(tmp_path) == [{"epoch": 1}]


def test_a_parameter_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UserError, match="there is no parameter learning_speed: they are "):
        configure({"learning_speed": 1})


def test_a_manifest_without_splits_is_refused(example: Example, tmp_path: Path) -> None:
    pd.read_parquet(example.manifest).drop(columns="split").to_parquet(tmp_path / "manifest.parquet")
    arguments = ["train", "--num-workers", "0", "--input", tmp_path / "manifest.parquet", "--output", tmp_path / "run"]
    refused = run_cli(*arguments)
    assert refused.returncode == 2
    assert "error: --input is not what `preprocess` writes: it has no column split" in refused.stderr


@pytest.mark.parametrize("command", ["train", "tune"])
def test_more_workers_than_fit_are_refused_at_once(example: Example, tmp_path: Path, command: str) -> None:
    refused = run_cli(command, "--input", example.manifest, "--output", tmp_path / "run", "--num-workers", 1000)
    assert refused.returncode == 2
    assert "--num-workers 1000 can't run: there is room for" in refused.stderr


@pytest.mark.parametrize("command", ["train", "tune"])
def test_a_second_process_on_the_same_folder_is_refused(example: Example, tmp_path: Path, command: str) -> None:
    with lock(tmp_path / "run"):
        second = run_cli(command, "--input", example.manifest, "--output", tmp_path / "run")
    assert second.returncode == 2
    assert "another process is at work in it" in second.stderr
    assert [each.name for each in (tmp_path / "run").iterdir()] == [".lock"]


def test_a_training_goes_on_after_its_worker_and_its_driver_were_killed(example: Example, tmp_path: Path) -> None:
    (tmp_path / "parameters.json").write_text(json.dumps({"epochs": EPOCHS}))
    arguments = ["train", "--input", example.manifest, "--parameters", tmp_path / "parameters.json"]
    arguments += ["--output", tmp_path / "run"]
    checkpoints = tmp_path / "run" / "ray_train"
    with start(*arguments) as process:
        wait_for(lambda: noted(checkpoints), process)
        (worker,) = wait_for(lambda: descendants(process.pid, "RayTrainWorker"), process)
        worker.kill()
        at_kill = len(read_epochs(checkpoints))
        wait_for(lambda: noted(checkpoints) > at_kill, process)  # another worker goes on
        kill_driver(process)
    check_that_it_goes_on(arguments, tmp_path / "run")


def test_a_training_without_workers_goes_on_after_a_kill(example: Example, tmp_path: Path) -> None:
    (tmp_path / "parameters.json").write_text(json.dumps({"epochs": EPOCHS}))
    arguments = ["train", "--input", example.manifest, "--parameters", tmp_path / "parameters.json"]
    arguments += ["--output", tmp_path / "run", "--num-workers", "0"]
    with start(*arguments) as process:
        wait_for(lambda: len(read_epochs(tmp_path / "run" / "ray_train")) > 1, process)
        process.kill()
    check_that_it_goes_on(arguments, tmp_path / "run")
    finished = (tmp_path / "run" / "metrics.json").read_text()
    (tmp_path / "run" / "metrics.json").unlink()  # as if killed after the last epoch
    assert run_cli(*arguments).returncode == 0
    assert (tmp_path / "run" / "metrics.json").read_text() == finished


def check_that_it_goes_on(arguments: list[Any], run: Path) -> None:
    """Give the command of a training that was killed again: no epoch of before is trained again."""
    mark(run / "ray_train")
    before = read_epochs(run / "ray_train")
    assert 1 < len(before) < EPOCHS
    again = run_cli(*arguments)
    assert again.returncode == 0, again.stderr
    epochs = json.loads((run / "metrics.json").read_text())["epochs"]
    assert [epoch["epoch"] for epoch in epochs] == list(range(1, EPOCHS + 1))
    assert epochs[: len(before)] == before
    assert epochs[0]["test_accuracy"] == MARK
    assert table_in(again.stdout, "epoch") == [str(epoch["epoch"]) for epoch in epochs]


def table_in(printed: str, column: str) -> list[str]:
    """The cells of a column of the table that was printed."""
    lines = [line.split() for line in printed.splitlines()]
    lines = [cells for cells in lines if cells[:1] != ["Progress:"]]  # which is said on the way
    (head,) = (number for number, cells in enumerate(lines) if {column, "validation_loss"} <= set(cells))
    rows = itertools.takewhile(lambda cells: len(cells) == len(lines[head]), lines[head + 1 :])
    return [cells[lines[head].index(column)] for cells in rows]


def kill_driver(driver: "subprocess.Popen[str]") -> None:
    """Kill it, and wait for Ray Train's processes, which end by themselves, and may write for a moment longer."""
    writing = descendants(driver.pid, "Train")
    driver.kill()
    assert writing
    assert not psutil.wait_procs(writing, timeout=HANGS)[1]


def mark(checkpoints: Path) -> None:
    """Mark the first epoch of what a killed training left: one that begins anew would come to the same metrics."""
    for history in checkpoints.glob("checkpoint_*/epochs.json"):
        with suppress(ValueError):  # it was being written
            first, *others = json.loads(history.read_text())
            history.write_text(json.dumps([{**first, "test_accuracy": MARK}, *others]))


def test_two_workers_train_and_say_how_they_come_along(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watch, "PATIENCE", 0.2)
    with ray_session(num_cpus=3):
        metrics = train(str(example.manifest), tmp_path / "run", parameters={"epochs": 4}, num_workers=2)
    assert [epoch["epoch"] for epoch in metrics["epochs"]] == [1, 2, 3, 4]
    assert metrics["epochs"][-1]["validation_loss"] < metrics["epochs"][0]["validation_loss"]
    printed = capsys.readouterr().out
    # While Ray Train starts, and then.
    assert re.search(r"^No epoch ended for 0 s\. Free: \d of 3 CPUs\.$", printed, re.MULTILINE)
    assert re.search(r"^Progress: epoch \d+, .*validation_loss [\d.e-]+", printed, re.MULTILINE)


def test_a_tuning_goes_on_after_a_kill_and_train_takes_its_best(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning = tmp_path / "outputs" / "tuning"
    arguments = ["tune", "--input", example.manifest, "--output", tuning, "--trials", 2, "--epochs", 6]
    trials = tuning / "ray_train"
    with start(*arguments) as process:
        wait_for((tuning / "ray_tune" / "tuner.pkl").exists, process)
        process.kill()  # before Ray Tune noted any trial
    with start(*arguments) as process:
        wait_for(lambda: any(noted(each) > 1 for each in trials.glob("*")), process)
        kill_driver(process)
    for each in trials.glob("*"):
        mark(each)
    assert not (tuning / "best_parameters.json").exists()
    again = run_cli(*arguments)
    assert again.returncode == 0, again.stderr
    assert not re.search("WARNING|│", again.stdout + again.stderr)  # Ray's, of what a reader can do nothing about
    assert len(list(trials.iterdir())) == 2  # those of before the kill
    assert MARK in [read_epochs(each)[0]["test_accuracy"] for each in trials.iterdir()]  # and gone on with
    table = json.loads((tuning / "trials.json").read_text())["table"]
    assert table_in(again.stdout, "epochs") == [str(row["epochs"]) for row in table]
    drawn = [{name: row[name] for name in SEARCH_SPACE} for row in table]
    assert {name: DEFAULTS[name] for name in SEARCH_SPACE} in drawn
    assert table[0]["validation_loss"] == min(row["validation_loss"] for row in table)
    assert (tuning / "trials.png").read_bytes().startswith(b"\x89PNG")
    best = json.loads((tuning / "best_parameters.json").read_text())
    assert best == {name: table[0][name] for name in SEARCH_SPACE}
    arguments = ["train", "--num-workers", "0", "--input", example.manifest, "--output", "run"]
    monkeypatch.chdir(tmp_path)
    trained = run_cli(*arguments)  # `tune` wrote them where `train` looks
    assert trained.returncode == 0, trained.stderr
    assert "Parameters: those in outputs/tuning/best_parameters.json." in trained.stdout
    taken = json.loads((tmp_path / "run" / "metrics.json").read_text())["parameters"]
    assert taken == {**DEFAULTS, **best}


@pytest.fixture
def another_ray() -> Iterator[None]:
    """Somebody else's, on this machine."""
    start = "import ray; ray.init(address='local', num_cpus=1, include_dashboard=False); print(); input()"
    command = [sys.executable, "-c", start]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "\n"
        yield
        other.communicate("\n")


def test_the_workers_of_a_trial_may_hold_every_cpu(example: Example, tmp_path: Path) -> None:
    with ray_session(num_cpus=2, dashboard=True):
        arguments: dict[str, Any] = {"trials": 1, "parameters": {"epochs": 1}, "num_workers": 2}
        tuned = tune_parameters(str(example.manifest), tmp_path / "tuning", **arguments)
    assert [row["epochs"] for row in tuned["table"]] == [1]


@pytest.mark.usefixtures("another_ray")
def test_a_tuning_on_one_cpu_stops_a_bad_trial_and_a_seed_makes_it_repeatable(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial's worker holds the only CPU: the trial itself asks for none, and the next one waits."""
    monkeypatch.setitem(SEARCH_SPACE, "learning_rate", tune.loguniform(1e-9, 1e-8))  # with which nothing is learned
    tables = []
    with ray_session(num_cpus=1, dashboard=True):
        for name in ("first", "second"):
            tuned = tune_parameters(str(example.manifest), tmp_path / name, trials=2, parameters={"epochs": 8})
            tables.append(tuned["table"])
    (best, bad), (best_again, bad_again) = tables
    assert best["epochs"] == 8
    assert max(bad["epochs"], bad_again["epochs"]) < 8  # how many it has when it is stopped is not by seed
    assert best == best_again
    assert [bad[name] for name in SEARCH_SPACE] == [bad_again[name] for name in SEARCH_SPACE]


def test_a_seed_makes_a_training_repeatable(example: Example, tmp_path: Path) -> None:
    arguments = ["train", "--num-workers", "0", "--input", example.manifest, "--output", tmp_path / "run"]
    finished = run_cli(*arguments, OMP_NUM_THREADS="1")
    assert finished.returncode == 0, finished.stderr
    folders = example.checkpoint.parent, tmp_path / "run"
    first, again = (json.loads((folder / "metrics.json").read_text())["epochs"] for folder in folders)
    assert first == again


def test_the_accuracy_is_that_of_the_held_out_rows(example: Example, tmp_path: Path) -> None:
    """Predictions made of the labels themselves, but for some rows: one wrong, and one that failed."""
    manifest = pd.read_parquet(example.manifest, columns=["id", "label", "split"])
    held_out = manifest.index[manifest["split"] == "test"]
    wrong = next(label for label in manifest["label"] if label != manifest.loc[held_out[0], "label"])
    predictions = manifest[["id", "label"]].astype({"label": "object"})
    predictions.loc[held_out[0], "label"] = wrong
    predictions.loc[held_out[1], "label"] = None
    (tmp_path / "run" / "predictions").mkdir(parents=True)
    predictions.to_parquet(tmp_path / "run" / "predictions" / "part.parquet")
    accuracy, rows = evaluate(example.manifest, tmp_path / "run", tmp_path / "pictures" / "confusion.png")
    assert accuracy == pytest.approx(1 - 2 / len(held_out))
    assert rows == len(held_out)
    assert (tmp_path / "pictures" / "confusion.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("there", "reason"), [("manifest", "`predict` writes"), ("nothing", "`preprocess` writes")])
def test_what_is_not_there_is_not_evaluated(example: Example, tmp_path: Path, there: str, reason: str) -> None:
    manifest = example.manifest if there == "manifest" else tmp_path / "none"
    with pytest.raises(UserError, match=reason):
        evaluate(manifest, tmp_path / "run")
