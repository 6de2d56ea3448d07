"""Made projects, one for each example, for CPU or GPU, with Ray: their own tests, their demos, and a full disk.

With EVERY_PAIR in the environment, as at night, fifteen of them, in which each answer meets each other one, and all of
their tests.
"""

import re
import sys
from pathlib import Path

import pytest
from conftest import EVERY_PAIR, PAIRS, PROJECTS, PYTHON, TEMPLATE, WITHOUT_NETWORK, make_model, name_of, run

# The images project runs all of its tests. Of the others, the rest is the same, byte for byte, and knows of no example.
RESUMED = "training.py::test_a_training_goes_on_after_its_worker_and_its_driver_were_killed"
OWN_MODEL = "docs.py::test_another_model_needs_another_predictor_and_nothing_else"
FIRST_TRY = [  # where settings.py asks for a GPU
    "inference.py::test_the_first_predictions_come_before_ray_starts",
    "kills.py::test_why_the_first_try_ended_is_said",
    "kills.py::test_the_first_try_says_that_it_takes_long_and_can_be_stopped",
]
TESTS = {
    "images": [],
    "tables": ["tables.py", RESUMED, OWN_MODEL, "cluster.py", *FIRST_TRY],
    "text": ["text.py", RESUMED, OWN_MODEL],
}
LEAST_ACCURACY = {"images": 97, "tables": 95, "text": 85}  # per cent


@pytest.mark.skipif(EVERY_PAIR, reason="they are all tested whole")
def test_the_commands_that_are_said_at_the_end_run_the_demo(tmp_path: Path) -> None:
    """Of the tables example, and in a folder with a space in its name."""
    folder = tmp_path / "with a space"
    folder.mkdir()
    made = run("cookiecutter", "--no-input", TEMPLATE, "example=tables", f"python_version={PYTHON}", folder=folder)
    commands = [line.strip() for line in made.stdout.splitlines() if line.startswith("    ")]
    assert commands[0].startswith("cd " + "'" + str(folder))
    assert made.stdout.rstrip().endswith(commands[-1])
    finished = run("bash", "-ec", "\n".join(commands), folder=tmp_path)
    print(finished.stdout)
    assert finished.returncode == 0
    assert accuracy(finished.stdout) >= LEAST_ACCURACY["tables"]


def test_their_own_tests_pass(project: Path) -> None:
    files = [] if EVERY_PAIR else [f"tests/test_{name}" for name in TESTS[project.parent.name]]
    result = run(sys.executable, "-m", "nox", "--session", "tests", "--", *files, folder=project)
    print(result.stdout)
    assert result.returncode == 0
    assert EVERY_PAIR or " skipped" not in result.stdout  # some tests are of what not every example has


# That of images is run in test_readme.py.
@pytest.mark.parametrize("project", PROJECTS if EVERY_PAIR else PROJECTS[1:], ids=name_of, indirect=True)
def test_their_demos_pass_without_a_network(project: Path) -> None:
    demo = (sys.executable, "-m", "nox", "--session", "demo")
    installed = run(*demo, "--install-only", folder=project)
    assert installed.returncode == 0, installed.stdout
    offline = (*WITHOUT_NETWORK, "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
    result = run(*offline, *demo, "--no-install", folder=project)
    print(result.stdout)
    assert result.returncode == 0
    assert accuracy(result.stdout) >= LEAST_ACCURACY[project.parent.name]
    assert not re.search("Warning|WARNING|│", result.stdout)  # nothing that a reader can do nothing about


def accuracy(printed: str) -> float:
    found = re.search(r"^Accuracy on \d+ held-out rows: ([\d.]+)%$", printed, re.MULTILINE)
    assert found
    return float(found[1])


FULL_DISK = """
set -e
mkdir full && mount -t tmpfs -o size=1m tmpfs full
head -c 1000k /dev/zero > full/filler
if $PREDICT > first.log 2>&1; then exit 9; else echo $? > first.code; fi
rm full/filler
$PREDICT
cat first.log >&2
"""


@pytest.mark.parametrize("project", PAIRS[:1], ids=name_of, indirect=True)
def test_a_full_disk_is_said_and_loses_nothing(project: Path, tmp_path: Path) -> None:
    """A small file system of its own, in a mount namespace, which every user may have."""
    commands = project / ".nox/tests/bin"
    make_model(commands, tmp_path)
    arguments = "--input data/manifest.parquet --checkpoint outputs/training/model.safetensors --output full/run"
    namespace = ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c", FULL_DISK]
    result = run(*namespace, folder=tmp_path, PREDICT=f"{commands}/my-ray-project predict {arguments}")
    assert result.returncode == 0, result.stdout
    assert "1797 rows, 0 failed" in result.stdout
    assert (tmp_path / "first.code").read_text() == "3\n"
    assert "No space left on device" in (tmp_path / "first.log").read_text()
