"""`submit`, to a real Ray with its dashboard: logs and exit codes come back, and Ctrl-C leaves the job running."""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import ray
from conftest import HANGS, PACKAGE, run_cli
from ray.job_submission import JobStatus, JobSubmissionClient

from {{ cookiecutter.__package_name }}.runtime import DASHBOARD_PORTS
from {{ cookiecutter.__package_name }}.submit import DASHBOARD


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The dashboard of a Ray on two CPUs."""
    # The job's Python is the first on the path, as on a cluster, where the environment is active.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        with ray.init(address="local", num_cpus=2, include_dashboard=True, logging_level=logging.ERROR) as context:
            yield f"http://{context.address_info['webui_url']}"


def test_logs_and_exit_codes_are_the_jobs(address: str, tmp_path: Path) -> None:
    well = run_cli("submit", "--address", address, "--", "data", "--output", tmp_path / "raw")
    assert well.returncode == 0, well.stderr
    assert f"Raw data: {tmp_path / 'raw'}" in well.stdout
    assert any((tmp_path / "raw").iterdir())
    nothing = ["--input", tmp_path / "raw", "--checkpoint", tmp_path / "none", "--output", tmp_path / "out"]
    ill = run_cli("submit", "--address", address, "--", "predict", *nothing)
    assert ill.returncode == 2, ill.stdout + ill.stderr
    assert "error: " in ill.stdout


class Tunnel:
    """Stands between `submit` and the dashboard as SSH does, and can break."""

    def __init__(self, address: str) -> None:
        host, _, port = address.removeprefix("http://").rpartition(":")
        self.beyond = (host, int(port))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.ends: list[socket.socket] = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with suppress(OSError):  # the listener is closed: the end
            while True:
                near, far = self.listener.accept()[0], socket.create_connection(self.beyond)
                self.ends += [near, far]
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self.pump, args=ends, daemon=True).start()

    @staticmethod
    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        for each in self.ends:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self.ends.clear()


def test_a_tunnel_that_breaks_ends_nothing_and_repeats_nothing(address: str) -> None:
    tunnel = Tunnel(address)
    command = [sys.executable, "-m", PACKAGE, "submit", "--address", tunnel.address, "--", "doctor"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout
        lines = [following.stdout.readline()]
        tunnel.cut()
        lines += following.stdout.readlines()
    tunnel.listener.shutdown(socket.SHUT_RDWR)
    tunnel.listener.close()
    tunnel.cut()
    assert following.returncode == 0, lines
    assert len(lines) == len(set(lines)) > 3
    assert any("python" in line.lower() for line in lines)


def test_ctrl_c_leaves_the_job_running(address: str) -> None:
    command = [sys.executable, "-m", PACKAGE, "submit", "--address", address, "--", "doctor"]
    following = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert following.stderr
    job = following.stderr.readline().split()[1]
    following.stderr.readline()
    os.kill(following.pid, signal.SIGINT)
    _, said = following.communicate(timeout=HANGS)
    assert following.returncode == 0, said
    assert f"--follow {job}" in said
    assert f"ray job stop --address {address} {job}" in said
    client = JobSubmissionClient(address)
    assert client.get_job_status(job) in (JobStatus.PENDING, JobStatus.RUNNING)
    client.stop_job(job)


def test_a_dashboard_of_this_machine_leaves_the_port_of_a_clusters() -> None:
    """`ray dashboard` would say nothing, and a job for the cluster run here."""
    assert int(DASHBOARD.rpartition(":")[2]) not in DASHBOARD_PORTS


def test_what_can_not_be_sent_is_refused(address: str) -> None:
    relative = run_cli("submit", "--address", address, "--", "data", "--output", "raw")
    assert relative.returncode == 2
    assert "raw: the cluster does not see this folder" in relative.stderr
    wrong = run_cli("submit", "--address", address, "--", "predict", "--inptu", "/images")
    assert wrong.returncode == 2
    assert run_cli("submit", "--address", address, "--").returncode == 2
    nobody = run_cli("submit", "--address", DASHBOARD.replace("8265", "1"), "--", "doctor")
    assert nobody.returncode == 2
    assert "See cluster/README.md" in nobody.stderr
