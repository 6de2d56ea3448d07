"""The commands in README.md, run word for word in a fresh copy of the repository."""

import os
import re
import shutil
import subprocess
import urllib.request
from pathlib import Path

from conftest import TEMPLATE, run

COMMANDS = re.findall(r"^    (python3 -m venv .*)$", (TEMPLATE / "README.md").read_text(), re.MULTILINE)


def test_there_are_two_commands() -> None:
    assert [command.rpartition(" ")[2] for command in COMMANDS] == ["demo", "tests"]


def test_ci_runs_the_command_for_the_tests() -> None:
    assert "README.md" in (TEMPLATE / ".ci/run").read_text()


def test_the_command_for_the_demo(tmp_path: Path) -> None:
    copy = tmp_path / "ray-template"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=TEMPLATE,
        stdout=subprocess.PIPE,
        check=True,
    )
    for name in listed.stdout.decode().split("\0")[:-1]:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(TEMPLATE / name, copy / name)
    first = run("bash", "-c", COMMANDS[0], folder=copy)
    print(first.stdout)
    assert first.returncode == 0
    accuracy = re.search(r"Accuracy on 360 held-out rows: ([\d.]+)%", first.stdout)
    assert accuracy
    assert float(accuracy[1]) >= 97
    assert str(copy / "my-ray-project") in first.stdout
    predictions = read_all(copy / "my-ray-project/outputs/demo/predictions")
    assert predictions

    torch = run(".nox/demo/bin/python", "-c", "import torch; print(torch.version.cuda)", folder=copy / "my-ray-project")
    assert torch.stdout.strip() == "None" or not cpu_build_can_be_had()

    project = copy / "my-ray-project"
    theirs = re.findall(r"^    (.*)$", (project / "README.md").read_text(), re.MULTILINE)
    assert theirs[:2] == COMMANDS  # the made project's two commands are the same
    shown = ""
    # What is for a cluster is sent to one in test_onprem.py.
    for command in [each for each in theirs if re.match("my-ray-project (?!submit)", each)]:
        result = run("bash", "-c", f". .nox/demo/bin/activate && {command}", folder=project)
        assert result.returncode == 0, result.stdout
        shown += result.stdout
    assert "1797 rows, 0 failed" in shown
    assert "Best parameters: outputs/tuning-again/best_parameters.json" in shown
    assert accuracy[0] in shown  # `evaluate` says what `demo` said

    again = run("bash", "-c", COMMANDS[0], folder=copy)  # a second run says the same and writes nothing twice
    assert again.returncode == 0, again.stdout
    assert accuracy[0] in again.stdout
    assert read_all(copy / "my-ray-project/outputs/demo/predictions") == predictions


def cpu_build_can_be_had() -> bool:
    if os.environ.get("PIP_FIND_LINKS"):
        return True
    try:
        urllib.request.urlopen("https://download.pytorch.org/whl/cpu/torch/", timeout=10).close()
    except OSError:
        return False
    return True


def read_all(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
