"""Made projects without Ray: their linters, pre-commit and pip, and the types of the projects for other clusters."""

import sys
from pathlib import Path

import pytest
from conftest import CHOICES, PAIRS, PYTHON, bake, run

QUICK = [f"tests/test_{name}.py" for name in ("cli", "cluster", "image", "preflight")]


def test_its_linters_find_nothing(project: Path) -> None:
    result = run(sys.executable, "-m", "nox", "--session", "lint", folder=project)
    assert result.returncode == 0, result.stdout


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
