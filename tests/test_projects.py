"""Made projects, one for each example, for CPU or GPU: their own nox sessions, their pre-commit, and uv and pip.

With EVERY_PAIR in the environment, as at night, fifteen of them, in which each answer meets each other one.
"""

import re
import sys
from pathlib import Path

import pytest
from conftest import CHOICES, EVERY_PAIR, PAIRS, PYTHON, bake, run

# The images project runs all of its tests. Of the others, the rest is the same, byte for byte, and knows of no example.
TESTS = {
    "images": [],
    "tables": ["tables", "training", "docs", "inference", "cluster"],
    "text": ["text", "docs"],
}
LEAST_ACCURACY = {"images": 97, "tables": 95, "text": 85}  # per cent
QUICK = [f"tests/test_{name}.py" for name in ("cli", "cluster", "image", "preflight")]


@pytest.mark.parametrize("session", ["lint", "tests"])
def test_its_own_nox_session_passes(project: Path, session: str) -> None:
    files = [f"tests/test_{name}.py" for name in TESTS[project.parent.name]] if session == "tests" else []
    result = run(sys.executable, "-m", "nox", "--session", session, "--", *files, folder=project)
    print(result.stdout)
    assert result.returncode == 0
    assert " skipped" not in result.stdout


def test_its_demo_passes(project: Path) -> None:
    if project.parent.name == "images" and not EVERY_PAIR:
        pytest.skip("test_readme.py runs it: it is the demo of README.md")
    result = run(sys.executable, "-m", "nox", "--session", "demo", folder=project)
    print(result.stdout)
    assert result.returncode == 0
    accuracy = re.search(r"^Accuracy on \d+ held-out rows: ([\d.]+)%$", result.stdout, re.MULTILINE)
    assert accuracy
    assert float(accuracy[1]) >= LEAST_ACCURACY[project.parent.name]


@pytest.mark.skipif(EVERY_PAIR, reason="they are all tested whole")
def test_projects_for_other_clusters_pass_what_needs_no_ray(project: Path, tmp_path: Path) -> None:
    """Their types, and the tests that take seconds, in this project's environment: dependencies are the example's."""
    others = [answers for answers in PAIRS if answers["example"] == project.parent.name]
    for answers in others:
        other = bake(tmp_path / answers["cluster"], **answers, python_version=PYTHON)
        environment = {"PYTHONPATH": "src", "MYPYPATH": "src"}
        for command in (["mypy", f"--cache-dir={tmp_path}/mypy"], ["pytest", "-q", *QUICK]):
            result = run(project / ".nox/lint/bin" / command[0], *command[1:], folder=other, **environment)
            assert result.returncode == 0, result.stdout
        assert " skipped" not in result.stdout
    assert len(others) == len(CHOICES["cluster"])


@pytest.mark.parametrize("version", CHOICES["python_version"])
def test_the_types_hold_for_every_python(project: Path, version: str) -> None:
    result = run(project / ".nox/lint/bin/mypy", "--python-version", version, folder=project)
    assert result.returncode == 0, result.stdout


def test_pip_installs_it_too(project: Path) -> None:
    resolved = run(sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--report", "-", ".", folder=project)
    assert resolved.returncode == 0, resolved.stdout
    assert '"name": "my-ray-project"' in resolved.stdout


def test_pre_commit_changes_nothing(project: Path) -> None:
    run("git", "init", folder=project)
    run("git", "add", "--all", folder=project)
    path = f"{project / '.nox/lint/bin'}:{Path(sys.executable).parent}:/usr/bin:/bin"
    result = run("pre-commit", "run", "--all-files", folder=project, PATH=path)
    assert result.returncode == 0, result.stdout
    assert result.stdout.count("Passed") == 3
    assert run("git", "diff", "--exit-code", folder=project).returncode == 0


FULL_DISK = """
set -e
mkdir full && mount -t tmpfs -o size=1m tmpfs full
head -c 1000k /dev/zero > full/filler
if $PREDICT > first.log 2>&1; then exit 9; else echo $? > first.code; fi
rm full/filler
$PREDICT
cat first.log >&2
"""


@pytest.mark.parametrize("project", PAIRS[:1], indirect=True)
def test_a_full_disk_is_said_and_loses_nothing(project: Path, tmp_path: Path) -> None:
    """A small file system of its own, in a mount namespace, which every user may have."""
    command = project / ".nox/tests/bin/my-ray-project"
    for step in (["data"], ["preprocess", "--engine", "pandas"], ["train", "--num-workers", "0"]):
        assert run(command, *step, folder=tmp_path).returncode == 0
    predict = f"{command} predict --input data/manifest.parquet --checkpoint outputs/training/model.safetensors"
    namespace = ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c", FULL_DISK]
    result = run(*namespace, folder=tmp_path, PREDICT=f"{predict} --output full/run")
    assert result.returncode == 0, result.stdout
    assert "1797 rows, 0 failed" in result.stdout
    assert (tmp_path / "first.code").read_text() == "3\n"
    assert "No space left on device" in (tmp_path / "first.log").read_text()
