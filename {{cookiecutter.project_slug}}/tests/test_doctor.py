"""The doctor, on a real Ray: what is well is ok, and what is not is named with its remedy."""

import json
import socket
from pathlib import Path

from conftest import run_cli

from {{ cookiecutter.__package_name }}.doctor import _look


def test_a_healthy_machine(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_text("")
    healthy = run_cli("doctor", "--checkpoint", tmp_path / "checkpoint", "--output", tmp_path / "new" / "output")
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
        seen = _look(None, str(tmp_path / "output"), str(tmp_path / "not-here"), ports)
    assert seen["closed"] == ["127.0.0.1:1"]
    assert seen["problems"] == {str(tmp_path / "output"): f"{tmp_path / 'output'} is another folder there"}
