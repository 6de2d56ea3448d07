"""Whatever is killed, every row comes out once, and what was finished is not done again. A slow model gives time."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import HANGS, NO_GPU, PACKAGE, Example, descendants, wait_for
from ray.cluster_utils import Cluster

from {{ cookiecutter.__package_name }}.predictor import Predictor

PROJECT = Path(__file__).parents[1]
# Put under a copy of predictor.py: the same Predictor, slowed down, that notes when it predicted how many rows.
SLOW = """

import os
import time

import ray

class SlowPredictor(Predictor):
    if hasattr(Predictor, "decode"):
        @staticmethod
        def decode(row):
            time.sleep(DECODE_SECONDS)
            return Predictor_.decode(row)

    def __call__(self, batch):
        outputs = super().__call__(batch)
        rows = len(next(iter(outputs.values())))
        time.sleep(PREDICT_SECONDS * rows)
        if ray.get_runtime_context().get_actor_id():  # not the first try
            if CRASHES and rows > 1:  # not the call that warms up
                os.abort()
            with open(LOG, "a") as log:
                print(time.time(), rows, file=log)
        return outputs

Predictor_, Predictor = Predictor, SlowPredictor
"""


class SlowRun:
    """`predict` with a slow Predictor, in a process of its own that can be killed."""

    def __init__(
        self,
        folder: Path,
        example: Example,
        rows: int,
        predict_seconds: float = 0.02,
        decode_seconds: float = 0,
        crashes: bool = False,
    ) -> None:
        package = shutil.copytree(PROJECT / "src" / PACKAGE, folder / PACKAGE)
        self.folder, self.log, self.predictions = folder, folder / "log", folder / "run" / "predictions"
        with (package / "predictor.py").open("a") as file:
            file.write(SLOW)
            file.write(f"PREDICT_SECONDS, DECODE_SECONDS, CRASHES = {predict_seconds}, {decode_seconds}, {crashes}\n")
            file.write(f"LOG = {str(self.log)!r}\n")
        if crashes:
            with (package / "watch.py").open("a") as file:
                file.write("\nMOST_DEATHS = 2\n")  # each takes half a minute
        # Paths in a manifest are relative to its folder.
        manifest = example.manifest.with_name(f"{rows}.parquet")
        table = pq.read_table(example.manifest)
        table = pa.concat_tables([table] * (rows // len(table) + 1))[:rows]
        self.ids = [f"row {number}" for number in range(rows)]
        pq.write_table(table.set_column(table.column_names.index("id"), "id", [self.ids]), manifest)
        self.arguments = ["--input", str(manifest), "--checkpoint", str(example.checkpoint), "--output", "run"]

    @contextmanager
    def process(self, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
        """Start it. Python finds the package that lies in the folder it starts in first."""
        command = [sys.executable, "-m", PACKAGE, "predict", *self.arguments, *arguments]
        with subprocess.Popen(
            command,
            cwd=self.folder,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # a process group of its own, to press Ctrl-C in
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def predicted(self, until: float = float("inf")) -> int:
        """How many rows were predicted before a time, counting the blank one that each predictor begins with."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        entries = [(float(at), int(rows)) for at, rows in (line.split() for line in lines)]
        return sum(rows for at, rows in entries if at < until)

    def written(self) -> int:
        return len(list(self.predictions.glob("*.parquet")))

    def killed(self) -> int:
        """Let it work for ten seconds and more, kill the driver, and say how much was done five seconds before.

        What is promised is ten seconds.
        """
        with self.process() as process:
            wait_for(lambda: self.predicted(time.time() - 10) > 100, process)
            killed = time.time()
            process.kill()
        return self.predicted(killed - 5)

    def check(self) -> None:
        """Every row is there, once."""
        assert sorted(pd.read_parquet(self.predictions)["id"]) == sorted(self.ids)


def test_the_driver_is_killed_three_times(example: Example, tmp_path: Path) -> None:
    run = SlowRun(tmp_path, example, rows=1400)
    finished_before = run.killed()

    for signal_, kill in ((signal.SIGTERM, os.kill), (signal.SIGINT, os.killpg)):  # Ctrl-C reaches Ray's processes, too
        with run.process() as process:
            before = run.written()
            wait_for(lambda before=before: run.written() > before + 1, process)  # type: ignore[misc]
            kill(process.pid, signal_)
            output, _ = process.communicate(timeout=HANGS)
            assert process.returncode == 130, output
            assert "Stopped. Give the same command again" in output
            assert "Traceback" not in output
        assert not (tmp_path / "run" / "summary.json").exists()
        if signal_ == signal.SIGTERM:
            kept = int(output.partition("Going on: ")[2].split()[0])
            assert kept >= 0.9 * finished_before

    predicted = run.predicted()
    with run.process("--concurrency", "1") as process:
        output, _ = process.communicate(timeout=HANGS)
        assert process.returncode == 0, output
    run.check()
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert 0 < summary["rows_before"] < len(run.ids)
    # Without the eight of the first try, which are not in the log, and with a blank one.
    assert run.predicted() - predicted == len(run.ids) - summary["rows_before"] - 8 + 1


def test_a_first_try_that_loses_its_node_is_made_on_another(example: Example, tmp_path: Path, cluster: Cluster) -> None:
    worker = cluster.add_node(num_cpus=3)
    run = SlowRun(tmp_path, example, rows=60, predict_seconds=0.2)
    with run.process() as process:
        wait_for(lambda: descendants(os.getpid(), "ray::_try"), process)
        cluster.remove_node(worker, allow_graceful=False)
        cluster.add_node(num_cpus=3)
        output, _ = process.communicate(timeout=HANGS)
        assert process.returncode == 0, output
    assert "The first predictor's machine was lost: it is tried again.\n" in output
    run.check()


def test_a_first_try_that_loses_each_node_ends_the_run(example: Example, tmp_path: Path, cluster: Cluster) -> None:
    worker = cluster.add_node(num_cpus=3)
    run = SlowRun(tmp_path, example, rows=60, predict_seconds=0.2)
    with (tmp_path / PACKAGE / "pipeline.py").open("a") as file:
        file.write("\nMOST_LOST = 1\n")
    with run.process() as process:
        wait_for(lambda: descendants(os.getpid(), "ray::_try"), process)
        cluster.remove_node(worker, allow_graceful=False)
        output, _ = process.communicate(timeout=HANGS)
        assert process.returncode == 2, output
    assert "error: the first predictor's machine was lost 1 times. Give the same command again" in output
    assert "it is tried again" not in output


@pytest.mark.skipif(not hasattr(Predictor, "decode"), reason="nothing is decoded in this example")
def test_what_costly_decoding_and_a_model_of_moderate_speed_did_is_kept(example: Example, tmp_path: Path) -> None:
    """Decoders that take every CPU there is must not keep what is predicted from being written."""
    run = SlowRun(tmp_path, example, rows=900, predict_seconds=0.01, decode_seconds=0.05)
    finished_before = run.killed()
    with run.process() as process:
        output, _ = process.communicate(timeout=HANGS)
        assert process.returncode == 0, output
    assert int(output.partition("Going on: ")[2].split()[0]) >= 0.9 * finished_before
    run.check()


def test_a_row_that_ends_the_predictors_process_ends_the_run(example: Example, tmp_path: Path) -> None:
    run = SlowRun(tmp_path, example, rows=60, crashes=True)
    with run.process() as process:
        output, _ = process.communicate(timeout=HANGS)
        assert process.returncode == 3, output
        assert "error: RuntimeError: the predictor's process died 2 times on the same rows" in output
        assert "Traceback" not in output


@pytest.mark.parametrize(
    ("death", "code", "said"),
    [
        ("os.kill(os.getpid(), 9)", 2, "error: the first predictor was killed, as the system does where memory runs"),
        ("os.abort()", 3, "error: RuntimeError: the first predictor's process ended with exit code -6"),
        ("1 / 0", 3, "error: ZeroDivisionError: division by zero"),
    ],
)
def test_why_the_first_try_ended_is_said(example: Example, tmp_path: Path, death: str, code: int, said: str) -> None:
    run = SlowRun(tmp_path, example, rows=60)
    with (tmp_path / PACKAGE / "predictor.py").open("a") as file:
        file.write(f"\n{death}\n")
    with run.process(*NO_GPU) as process:
        output, _ = process.communicate(timeout=HANGS)
        assert process.returncode == code, output
        assert said in output
        assert "Traceback" not in output


@pytest.mark.parametrize(("signal_", "kill"), [(signal.SIGTERM, os.kill), (signal.SIGINT, os.killpg)])
def test_the_first_try_says_that_it_takes_long_and_can_be_stopped(
    example: Example, tmp_path: Path, signal_: int, kill: Callable[[int, int], None]
) -> None:
    run = SlowRun(tmp_path, example, rows=60, predict_seconds=HANGS)
    with (tmp_path / PACKAGE / "watch.py").open("a") as file:
        file.write("\nPATIENCE = 0.5\n")
    with run.process(*NO_GPU) as process:
        assert process.stdout
        assert process.stdout.readline() == "Waiting for the first predictor, on this machine.\n"
        first_try = descendants(process.pid, "spawn_main")
        kill(process.pid, signal_)
        output, _ = process.communicate(timeout=HANGS)
        assert process.returncode == 130, output
        assert output.endswith("Stopped. Give the same command again: what is finished is kept.\n")
        assert "Traceback" not in output
    assert len(first_try) == 1
    assert not first_try[0].is_running()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head without work and two workers: three nodes on this machine, each with Ray's own processes."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    yield cluster
    cluster.shutdown()


def test_a_predictor_and_a_node_are_killed(example: Example, tmp_path: Path, cluster: Cluster) -> None:
    workers = [cluster.add_node(num_cpus=3) for _ in range(2)]  # one alone can go on with both predictors
    run = SlowRun(tmp_path, example, rows=1400)
    with run.process("--concurrency", "2") as process:
        wait_for(lambda: run.written() >= 2, process)
        predictors = descendants(os.getpid(), "PredictBatch")  # of the cluster that this process started
        assert len(predictors) == 2
        predictors[0].kill()
        written = run.written()
        wait_for(lambda: run.written() > written + 1, process)
        cluster.remove_node(workers[0], allow_graceful=False)
        output, _ = process.communicate(timeout=HANGS)
        assert process.returncode == 0, output
    run.check()


@pytest.mark.skipif(not hasattr(Predictor, "decode"), reason="nothing is decoded in this example")
def test_a_run_that_lost_a_node_never_stands_still(example: Example, tmp_path: Path, cluster: Cluster) -> None:
    """Predictors may hold both CPUs that are left, and none remains to decode with. It is for Ray to say which."""
    workers = [cluster.add_node(num_cpus=2) for _ in range(2)]
    run = SlowRun(tmp_path, example, rows=700, predict_seconds=0.06, decode_seconds=0.015)
    with (tmp_path / PACKAGE / "watch.py").open("a") as file:
        file.write("\nPATIENCE = 5.0\n")
    with run.process() as process:
        wait_for(lambda: run.written() >= 2, process)
        cluster.remove_node(workers[1], allow_graceful=False)
        output, _ = process.communicate(timeout=HANGS)
        assert "Plan: 3 predictor(s)" in output
        assert process.returncode in (0, 2), output
    if process.returncode == 2:
        assert "error: the cluster lost 2 CPUs, and what is left may not do for this plan. Give the same" in output
        with run.process() as process:
            output, _ = process.communicate(timeout=HANGS)
            assert process.returncode == 0, output
            assert "Plan: 1 predictor(s) with 1 CPU each; 1 of 2 CPUs read, decode and write." in output
    run.check()


def test_it_waits_for_a_node_that_may_come_and_says_so(example: Example, tmp_path: Path, cluster: Cluster) -> None:
    """The file that `ray up` leaves on the head says that a machine with a GPU may come; the test is the autoscaler."""
    run = SlowRun(tmp_path, example, rows=100)
    cluster.add_node(num_cpus=1)
    with run.process("--num-gpus", "1", HOME=str(tmp_path)) as process:
        output, _ = process.communicate(timeout=HANGS)
        assert process.returncode == 2
        assert "0 GPUs" in output  # nothing that could bring one

    types = {"head": {"resources": {}}, "gpu": {"resources": {"CPU": 2, "GPU": 1}, "max_workers": 1}}
    config = {"max_workers": 2, "head_node_type": "head", "available_node_types": types}
    (tmp_path / "ray_bootstrap_config.yaml").write_text(json.dumps(config))  # JSON is YAML
    with run.process("--num-gpus", "1", HOME=str(tmp_path)) as process:
        assert process.stdout
        while "network_util.cc" in (line := process.stdout.readline()):
            pass  # Ray says that there is no network
        assert line == "Waiting for the cluster to grow: a predictor needs a machine with 1 CPU and 1 GPU.\n"
        cluster.add_node(num_cpus=2, num_gpus=1)
        output, _ = process.communicate(timeout=HANGS)
        assert process.returncode == 0, output
    run.check()
