"""The doctor, on a real Ray: what is well is ok, and what is not is named with its remedy."""

import json
from pathlib import Path

from conftest import run_cli


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
