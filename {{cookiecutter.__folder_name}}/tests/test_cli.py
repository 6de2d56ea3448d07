"""What a person may type, and what is refused before anything starts. No Ray needed."""

from pathlib import Path

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
    commands = ("demo", "data", "preprocess", "tune", "train", "predict", "evaluate", "doctor", "submit")
    assert all(command in shown for command in commands)


def test_a_temporary_folder_in_the_environment_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    assert main(["doctor"]) == 2
    assert "where Ray can't work. Set it to /tmp" in capsys.readouterr().err


def test_an_address_where_nothing_answers_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert main(["doctor"]) == 2
    assert "RAY_ADDRESS 127.0.0.1:1 does not answer" in capsys.readouterr().err


def test_the_project_starts_ray_and_not_modin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert main(["preprocess", "--input", str(tmp_path), "--output", str(tmp_path / "manifest.parquet")]) == 2
    assert "RAY_ADDRESS 127.0.0.1:1 does not answer" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, "no JSON", "[1]"])
def test_parameters_that_are_none_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    file = tmp_path / "parameters.json"
    if content is not None:
        file.write_text(content)
    assert main(["train", "--parameters", str(file)]) == 2
    assert f"error: --parameters {file}: " in capsys.readouterr().err
