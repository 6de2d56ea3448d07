"""The commands in README.md, run word for word in a fresh copy, and without a network, as docs/teacher.md says."""

import os
import re
import tempfile
import urllib.request
from pathlib import Path

from conftest import PYTHON, TEMPLATE, WITHOUT_NETWORK, copy_template, run

COMMANDS = re.findall(r"^    (python3 -m venv .*)$", (TEMPLATE / "README.md").read_text(), re.MULTILINE)


def test_there_are_two_commands() -> None:
    assert [command.rpartition(" ")[2] for command in COMMANDS] == ["demo", "tests"]


def test_ci_runs_the_command_for_the_tests() -> None:
    assert "README.md" in (TEMPLATE / ".ci/run").read_text()


def test_the_command_for_the_demo(tmp_path: Path) -> None:
    copy = tmp_path / "ray-template"
    copy_template(copy)
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


def test_the_command_for_the_demo_without_a_network() -> None:
    """docs/teacher.md: wheels collected on one machine are all that another needs. Two minutes, half a gigabyte."""
    page = (TEMPLATE / "docs/teacher.md").read_text()
    collect, settings = re.findall(r"^```bash\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert "cookiecutter --no-input" in collect
    assert "PIP_NO_INDEX" in settings
    # The copy stands in for `git clone`, and this Python for the laptops' one.
    collect = re.sub("^git clone .*\n", "", collect, flags=re.MULTILINE)
    collect = re.sub(r"python_version=[\d.]+", f"python_version={PYTHON}", collect)
    with tempfile.TemporaryDirectory() as folder:
        workshop = Path(folder) / "workshop"
        copy = workshop / "ray-template"
        copy_template(copy)
        # No index of PyTorch's may be in reach, and it is asked for each package: asked once is enough.
        collected = run("bash", "-e", "-c", collect, folder=workshop, PIP_RETRIES="0")
        assert collected.returncode == 0, collected.stdout
        assert {path.name for path in workshop.iterdir()} == {"ray-template", "wheelhouse"}
        assert all(path.suffix == ".whl" for path in (workshop / "wheelhouse").iterdir())

        settings = f"ip link set lo up\n{settings}\ncd ray-template\n{COMMANDS[0]}"
        demo = run(*WITHOUT_NETWORK, "bash", "-e", "-c", settings, folder=workshop, UV_CACHE_DIR=f"{folder}/cache")
        print(demo.stdout)
        assert demo.returncode == 0
        assert "Accuracy on 360 held-out rows: " in demo.stdout
        assert (copy / "my-ray-project/outputs/demo/predictions").is_dir()


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
