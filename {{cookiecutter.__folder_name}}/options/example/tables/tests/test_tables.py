"""The tables example: its data and their faults, its manifest, its model and its Predictor."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import PACKAGE, Example
from sklearn.datasets import load_breast_cancer

from {{ cookiecutter.__package_name }}.data import MEASURES, write_raw_data
from {{ cookiecutter.__package_name }}.errors import UserError
from {{ cookiecutter.__package_name }}.predictor import Predictor
from {{ cookiecutter.__package_name }}.preprocessing import FEATURES, preprocess


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "raw"
    assert write_raw_data(folder)
    return folder


def test_the_data_is_written_once_with_every_fault(raw: Path) -> None:
    text = (raw / "measurements.csv").read_text()
    lines = text.splitlines()
    assert len(lines) == 1 + 569 + 12 + 2
    assert len(set(lines)) < len(lines) - 10  # rows that are there twice
    assert all(fault in text for fault in (",?,", ",,", " px,", '"'))  # a decimal comma is quoted
    assert not write_raw_data(raw)


@pytest.mark.usefixtures("two_cpus")
class TestPreprocessing:
    """All of Modin's tests are in here, in one Ray: in a process, Modin does not outlive the first."""

    def test_modin_and_pandas_write_the_same_manifest(
        self, raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for engine in ("modin", "pandas"):
            assert preprocess(raw, tmp_path / f"{engine}.parquet", engine) == 569
        said = "1 lines with too many fields, 1 rows without a diagnosis, 12 repeated samples"
        assert capsys.readouterr().out.count(said) == 2
        manifest = pd.read_parquet(tmp_path / "pandas.parquet")
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "modin.parquet"), manifest, check_exact=True)
        assert manifest["id"].is_unique
        assert sorted(manifest["split"].unique()) == ["test", "train", "validation"]

    @pytest.mark.parametrize("engine", ["pandas", "modin"])
    @pytest.mark.parametrize(
        ("file", "column", "cell", "reason"),
        [
            ("measurements.csv", "mean_area", "large", "line 3, column mean_area: 'large' is not a number"),
            ("measurements.csv", "taken_on", "05.03.2024", "column taken_on: '05.03.2024' is not a date"),
            ("measurements.csv", "taken_on", "20240305", "column taken_on: '20240305' is not a date"),
            ("measurements.csv", "sample", "1.5", "column sample: '1.5' is not a whole number"),
            ("measurements.csv", "clinic", "east", "column clinic: 'east' is not in clinics.csv"),
            ("clinics.csv", "clinic", "north", "line 3, column clinic: 'north' is there twice"),
            ("clinics.csv", "mm_per_pixel", "small", "line 3, column mm_per_pixel: 'small' is not a number"),
        ],
    )
    def test_a_cell_of_a_wrong_type_is_named(
        self, raw: Path, tmp_path: Path, file: str, column: str, cell: str, reason: str, engine: str
    ) -> None:
        (tmp_path / "raw").mkdir()
        for name in ("measurements.csv", "clinics.csv"):
            table = pd.read_csv(raw / name, dtype="str", on_bad_lines="skip").head(20)
            if name == file:
                table.loc[1, column] = cell
            table.to_csv(tmp_path / "raw" / name, index=False)
        with pytest.raises(UserError, match=reason):
            preprocess(tmp_path / "raw", tmp_path / "manifest.parquet", engine)
        assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_samples_are_the_same_by_their_number(raw: Path, tmp_path: Path) -> None:
    shutil.copytree(raw, tmp_path / "raw")
    last = (raw / "measurements.csv").read_text().splitlines()[-1]
    with (tmp_path / "raw/measurements.csv").open("a") as file:
        file.write(f"00{last}\n")
    assert preprocess(tmp_path / "raw", tmp_path / "manifest.parquet", "pandas") == 569


def test_sizes_are_what_they_were_before_the_clinics_measured_in_pixels(example: Example) -> None:
    manifest = pd.read_parquet(example.manifest).sort_values("id")
    truth = load_breast_cancer().data
    given = manifest[MEASURES].to_numpy()
    assert np.isnan(given).sum() == 400  # cells that were emptied
    np.testing.assert_allclose(given[~np.isnan(given)], truth[~np.isnan(given)], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "measurements.csv is missing"),
        (b"", "line 1: there is no column sample"),
        (b"sample,clinic\n1,north\n", "line 1: there is no column taken_on"),
        (b"\x89PNG\r\n\x1a\n\x00\xff", "line 1: this is no CSV"),
    ],
)
def test_a_wrong_file_is_refused(raw: Path, tmp_path: Path, content: bytes | None, reason: str) -> None:
    (tmp_path / "clinics.csv").write_bytes((raw / "clinics.csv").read_bytes())
    if content is not None:
        (tmp_path / "measurements.csv").write_bytes(content)
    with pytest.raises(UserError, match=reason):
        preprocess(tmp_path, tmp_path / "manifest.parquet", "pandas")


def test_a_table_without_rows_and_an_output_that_is_there_are_refused(raw: Path, tmp_path: Path) -> None:
    for name in ("measurements.csv", "clinics.csv"):
        (tmp_path / name).write_text((raw / name).read_text().splitlines()[0] + "\n")
    with pytest.raises(UserError, match=r"measurements.csv has no rows"):
        preprocess(tmp_path, tmp_path / "manifest.parquet", "pandas")
    with pytest.raises(UserError, match="is there already"):
        preprocess(raw, tmp_path, "pandas")


def test_the_model_learns(example: Example) -> None:
    assert example.accuracy >= 0.95


def test_the_predictor_needs_no_ray() -> None:
    check = f"import {PACKAGE}.predictor, sys; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_the_predictor_keeps_its_contract(example: Example) -> None:
    rows = pd.read_parquet(example.manifest)
    outputs = Predictor(str(example.checkpoint))(rows)
    assert outputs["probability"].dtype == np.float32
    assert outputs["label"].shape == outputs["probability"].shape == (len(rows),)
    assert (outputs["label"] == rows["label"]).mean() > 0.95
    assert list(Predictor.blank) == FEATURES
