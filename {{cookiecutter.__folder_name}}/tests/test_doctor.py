"""The doctor, on a real Ray: what is well is ok, and what is not is named with its remedy."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import HANGS, run_cli
from upath import UPath

from {{ cookiecutter.__package_name }}.doctor import _look


def own_temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """For Ray's own files, with a short path: sockets are among them."""
    return tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)


def test_a_healthy_machine(tmp_path: Path) -> None:
    """Although a Ray was there that was killed, and left its address: `ray.init` without one would wait for it."""
    (tmp_path / "checkpoint").write_text("")
    paths = ["--checkpoint", tmp_path / "checkpoint", "--output", tmp_path / "new" / "output"]
    with own_temporary_folder() as temporary:
        left = Path(temporary) / "ray" / "ray_current_cluster"
        left.parent.mkdir()
        left.write_text("127.0.0.1:1")
        healthy = run_cli("doctor", *paths, RAY_TMPDIR=temporary)
    assert healthy.returncode == 0, healthy.stdout + healthy.stderr
    assert {line.split()[0] for line in healthy.stdout.splitlines()} == {"ok"}
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]  # nothing is left behind


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    arguments = ["--checkpoint", tmp_path / "missing", "--output", tmp_path / "file" / "output", "--num-cpus", "1000"]
    ill = run_cli("doctor", *arguments, "--json", RAY_ADDRESS="")
    assert ill.returncode == 2
    failed = {check["name"].split()[-1]: check for check in json.loads(ill.stdout) if not check["ok"]}
    assert set(failed) == {"plan", "path"}
    assert "--num-cpus 1000" in failed["plan"]["seen"]
    assert failed["path"]["remedy"]


def test_a_closed_port_and_a_folder_of_the_same_name_are_seen(tmp_path: Path) -> None:
    """What a machine would say that reaches one port of another and not the next, and has a folder of its own there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ports = [server.getsockname(), ("127.0.0.1", 1)]
        seen = _look(None, str(tmp_path / "output"), UPath(tmp_path / "not-here"), ports)
    assert seen["closed"] == ["127.0.0.1:1"]
    assert seen["problems"] == {str(tmp_path / "output"): f"{tmp_path / 'output'} is another folder there"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a Ray of two machines that asks for the token; on the second, Python says it is another."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1"]
    head = [*start, "--head", f"--port={address.partition(':')[2]}", "--node-ip-address=127.0.0.1"]
    machines = []
    with own_temporary_folder() as folder:
        (Path(folder) / "sitecustomize.py").write_text('import platform\nplatform.python_version = lambda: "3.0.99"\n')
        for command, path in (
            ([*head, "--include-dashboard=false"], ""),
            ([*start, f"--address={address}"], folder),
        ):
            environment = {**os.environ, "RAY_AUTH_MODE": "token", "PYTHONPATH": path, "RAY_TMPDIR": folder}
            machines.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
            said = machines[-1].stdout
            assert said
            assert any("Ray runtime started." in line for line in said), "Ray did not start"
        yield address
        for machine in reversed(machines):
            machine.terminate()
            machine.communicate(timeout=HANGS)


def test_a_machine_with_another_python_is_named(cluster: str) -> None:
    seen = run_cli("doctor", "--json", RAY_ADDRESS=cluster, RAY_AUTH_MODE="token")
    assert seen.returncode == 2, seen.stderr
    (failed,) = [check for check in json.loads(seen.stdout) if not check["ok"]]
    assert failed["name"].endswith(" versions")
    assert failed["seen"].startswith("Python 3.0.99, ray ")
    assert "make them the same" in failed["remedy"]


def test_without_its_token_a_cluster_lets_nobody_in(cluster: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("not-the-token-of-this-cluster")
    shown = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    refused = run_cli("doctor", RAY_ADDRESS=cluster, **shown)
    assert refused.returncode == 2
    line = refused.stderr.splitlines()[-1]  # after Ray's own, one for each time that it tried
    assert line.startswith(f"error: the cluster at {cluster} does not let this machine in")
    assert str(tmp_path / "token") in line
