"""What a person may type, and what is refused before anything starts. No Ray needed."""

import pytest

from {{ cookiecutter.__package_name }}.cli import main

PREDICT = ["predict", "--input", "images", "--checkpoint", "model", "--output", "run"]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["bake"],
        ["predict"],
        [*PREDICT, "--batch-size", "0"],
        [*PREDICT, "--concurrency", "0"],
        [*PREDICT, "--concurrency", "4:2"],
        [*PREDICT, "--num-cpus", "1.5"],
        [*PREDICT, "--num-gpus", "-1"],
        [*PREDICT, "--num-gpus", "nan"],
        [*PREDICT, "--max-failure-rate", "1.1"],
    ],
)
def test_wrong_usage_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "error: " in capsys.readouterr().err.splitlines()[-1]


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert all(command in shown for command in ("demo", "data", "preprocess", "train", "predict", "doctor"))
