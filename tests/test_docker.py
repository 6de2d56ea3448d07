"""The Dockerfile without Docker: hadolint reads it, and what it copies and runs is done in a fresh environment."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CHOICES, PYTHON, bake, package_sources, run


@pytest.mark.parametrize("accelerator", CHOICES["accelerator"])
def test_hadolint_finds_nothing(tmp_path: Path, accelerator: str) -> None:
    linted = run("hadolint", "Dockerfile", folder=bake(tmp_path, accelerator=accelerator))
    assert linted.returncode == 0, linted.stdout


def test_its_steps_make_an_environment_that_works(tmp_path: Path) -> None:
    """For a CPU: the other image's torch is the CUDA build, of several gigabytes."""
    project = bake(tmp_path, python_version=PYTHON)
    image, environment = tmp_path / "image", tmp_path / "environment"
    image.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    sources = package_sources(project)
    allowed = re.findall(r"^!(\S+)$", (project / ".dockerignore").read_text(), re.MULTILINE)
    steps = re.findall(r"^(COPY|RUN) (.*)$", (project / "Dockerfile").read_text(), re.MULTILINE)
    for step, arguments in steps:
        if step == "COPY":
            *names, target = [each for each in arguments.split() if not each.startswith("--chown")]
            assert set(names) <= set(allowed)
            for name in names:
                if (project / name).is_dir():
                    shutil.copytree(project / name, image / target)
                else:
                    shutil.copy(project / name, image / target)
        else:
            command = arguments.replace("--system", f"--python {environment}/bin/python")  # of the image: the only one
            done = run("bash", "-c", command, folder=image, **sources)
            assert done.returncode == 0, done.stdout
    shutil.rmtree(image)  # what is installed needs none of it
    works = run(environment / "bin/my-ray-project", "doctor", folder=tmp_path)
    assert works.returncode == 0, works.stdout
    assert f"ok   ray: {ray_version(project)}\n" in works.stdout


def ray_version(project: Path) -> str:
    (version,) = re.findall(r"^FROM rayproject/ray:([\d.]+)-", (project / "Dockerfile").read_text(), re.MULTILINE)
    return str(version)
