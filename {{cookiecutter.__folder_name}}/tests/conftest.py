"""What the tests share: Ray with two CPUs, the least that a laptop has, and the example's data and model."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from {{ cookiecutter.__package_name }}.model import CHECKPOINT_FILE
from {{ cookiecutter.__package_name }}.runtime import ray_session

PACKAGE = ray_session.__module__.partition(".")[0]
NO_GPU = ("--num-gpus", "0")  # with it, `predict` has its first try before Ray starts, whatever settings.py asks for
HANGS = 600  # seconds: what takes so long does not come any more, however busy the machine is


@dataclass(frozen=True)
class Example:
    """The example's raw data, its manifest, and a model trained on it."""

    raw: Path
    manifest: Path
    checkpoint: Path
    accuracy: float


@pytest.fixture(scope="session", autouse=True)
def own_token(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Ray's token of these tests, apart from the person's own."""
    token = tmp_path_factory.mktemp("ray") / "auth_token"
    token.write_text("a-token-for-the-tests-of-this-project-only")
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(token)
    os.environ.pop("RAY_ADDRESS", None)


@pytest.fixture(scope="class")
def two_cpus() -> Iterator[None]:
    """Ray on two CPUs, whatever the machine has."""
    with ray_session(num_cpus=2):
        yield


def run_cli(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the project in a process of its own."""
    command = [sys.executable, "-m", PACKAGE, *map(str, arguments)]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


def wait_for(condition: Callable[[], Any], process: "subprocess.Popen[str]") -> Any:
    """What `condition` returns, once that is not nothing, while the process runs."""
    deadline = time.monotonic() + HANGS
    while not (found := condition()):
        assert process.poll() is None, f"it ended too early:\n{process.communicate()[0]}"
        assert time.monotonic() < deadline, "it hangs"
        time.sleep(0.05)
    return found


def descendants(pid: int, name: str) -> list[psutil.Process]:
    """Those of a process's descendants that have this in their command's line."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.Error):  # it ended meanwhile
            found += [process] if name in " ".join(process.cmdline()) else []
    return found


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Example:
    """Make the data, and train on it for real."""
    folder = tmp_path_factory.mktemp("example")
    raw, manifest, training = folder / "raw", folder / "manifest.parquet", folder / "training"
    for arguments in (
        ("data", "--output", raw),
        ("preprocess", "--engine", "pandas", "--input", raw, "--output", manifest),
        ("train", "--num-workers", "0", "--input", manifest, "--output", training),
    ):
        finished = run_cli(*arguments, OMP_NUM_THREADS="1")  # so that training is repeatable
        assert finished.returncode == 0, finished.stderr
    accuracy = json.loads((training / "metrics.json").read_text())["best"]["test_accuracy"]
    return Example(raw, manifest, training / CHECKPOINT_FILE, accuracy)
