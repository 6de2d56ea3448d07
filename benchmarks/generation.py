"""How long does making a project take? Side by side with cookiecutter-pypackage's, in turn, medians and their ratio.

Twice: by the clock, and in seconds of processor time, the hooks' with it, which other work on the machine moves less.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 10
TEMPLATES = {
    "ray-template": Path(__file__).parents[1],
    "cookiecutter-pypackage": Path(str(files("cookiecutter_pypackage"))) / "template",
}


def seconds_to_make(template: Path) -> tuple[float, float]:
    """The whole process, from the command to the finished folder: by the clock, and of the processor."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["cookiecutter", "--no-input", "--output-dir", folder, str(template)]
        before, started = os.times(), time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        elapsed, after = time.perf_counter() - started, os.times()
        return elapsed, sum(after[2:4]) - sum(before[2:4])


def main() -> None:
    for template in TEMPLATES.values():
        seconds_to_make(template)  # not counted: it fills the file cache
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in TEMPLATES}
    for _ in range(ROUNDS):
        for name, template in TEMPLATES.items():
            times[name].append(seconds_to_make(template))
    print(f"cookiecutter {version('cookiecutter')}, cookiecutter-pypackage {version('cookiecutter-pypackage')}")
    for number, clock in enumerate(("clock", "processor")):
        ours, theirs = (statistics.median(each[number] for each in measured) for measured in times.values())
        print(f"{clock}, median of {ROUNDS}: {ours:.3f} s against {theirs:.3f} s, ratio {ours / theirs:.2f}")


if __name__ == "__main__":
    main()
