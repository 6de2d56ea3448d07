"""The images example: its data, its manifest, its model and its Predictor. Only Modin's tests need Ray."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import PACKAGE, Example, run_cli
from PIL import Image

from {{ cookiecutter.__package_name }} import pipeline
from {{ cookiecutter.__package_name }}.data import write_raw_data
from {{ cookiecutter.__package_name }}.engines import engine as pandas_engine
from {{ cookiecutter.__package_name }}.errors import UserError
from {{ cookiecutter.__package_name }}.inference import predict
from {{ cookiecutter.__package_name }}.model import DigitClassifier, load_model, save_model
from {{ cookiecutter.__package_name }}.predictor import Predictor
from {{ cookiecutter.__package_name }}.preprocessing import decode, preprocess


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "raw"
    assert write_raw_data(folder)
    return folder


def test_the_data_is_written_once(raw: Path) -> None:
    labels = pd.read_csv(raw / "labels.csv")
    assert len(labels) == 1797
    assert sorted(labels["label"].unique()) == list(range(10))
    assert all((raw / file).is_file() for file in labels["file"])
    assert not write_raw_data(raw)


@pytest.mark.usefixtures("two_cpus")
class TestPreprocessing:
    """All of Modin's tests are in here, in one Ray: in a process, Modin does not outlive the first."""

    def test_modin_and_pandas_write_the_same_manifest(
        self, raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for engine in ("modin", "pandas"):
            assert preprocess(raw, tmp_path / f"{engine}.parquet", engine) == 1797
        assert capsys.readouterr().out.count("faster with --engine pandas") == 1
        manifest = pd.read_parquet(tmp_path / "pandas.parquet")
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "modin.parquet"), manifest)
        assert manifest["id"].is_unique
        assert manifest["split"].value_counts()["test"] == 360
        assert all((tmp_path / path).is_file() for path in manifest["path"])

    @pytest.mark.parametrize(
        ("labels", "reason"),
        [
            (None, "is missing"),
            ("", "must have the columns"),
            ("file,digit\na.png,1\n", "must have the columns"),
            ("file,label\na.png,1\nb.png,one\n", "line 3, column label: 'one' is not a whole number"),
            ("file,label\na.png,\n", "line 2, column label: '' is not a whole number"),
            ("file,label\n", "has no rows"),
            ("file,label\n,1\n", "without a file"),
            ("file,label\na.png,1\na.png,2\n", "names a.png twice"),
        ],
    )
    @pytest.mark.parametrize("engine", ["pandas", "modin"])
    @pytest.mark.filterwarnings("ignore:.*efaulting to pandas")  # Modin's, for tables of a row or none
    def test_wrong_labels_are_refused(self, tmp_path: Path, labels: str | None, reason: str, engine: str) -> None:
        if labels is not None:
            (tmp_path / "labels.csv").write_text(labels)
        with pytest.raises(UserError, match=reason):
            preprocess(tmp_path, tmp_path / "manifest.parquet", engine)
        assert not (tmp_path / "manifest.parquet").exists()

    @pytest.mark.filterwarnings("ignore:.*efaulting to pandas")
    def test_what_modin_leaves_to_pandas_is_said(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pandas_engine("modin", 0) as pd:
            pd.DataFrame({"a": [1.0, None, 4.0]}).interpolate()
        said = "Modin left this to pandas, in one piece: DataFrame.interpolate.\n"
        assert said in capsys.readouterr().out


def test_wrong_labels_are_one_line_on_the_screen(tmp_path: Path) -> None:
    lines = [f"{number}.png,{number % 10}" for number in range(100)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label", *lines, "last.png,ten", ""]))
    refused = run_cli("preprocess", "--input", tmp_path, "--output", tmp_path / "manifest.parquet")
    assert refused.returncode == 2
    assert refused.stderr == f"error: {tmp_path}/labels.csv line 102, column label: 'ten' is not a whole number\n"


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    with pytest.raises(UserError, match="is there already"):
        preprocess(tmp_path, tmp_path / "output", "pandas")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
def test_every_kind_of_image_is_decoded(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("scan.tiff" if mode in ("CMYK", "F") else "scan.png")
    Image.new("L", (20, 30), 255).convert(mode).save(path)
    image = decode({"path": str(path)})["image"]
    assert image.shape == (8, 8)
    assert image.dtype == np.uint8


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n"])
def test_a_broken_image_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "scan.png").write_bytes(content)
    with pytest.raises(OSError, match="image"):
        decode({"path": str(tmp_path / "scan.png")})


def test_an_upright_image_is_what_its_camera_saw(tmp_path: Path) -> None:
    image = Image.new("L", (8, 8))
    image.paste(255, (0, 0, 8, 4))  # the upper half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    image.save(tmp_path / "scan.png", exif=exif)
    turned = decode({"path": str(tmp_path / "scan.png")})["image"]
    assert turned[:, 4:].min() > 200
    assert turned[:, :4].max() < 50


@pytest.mark.usefixtures("two_cpus")
def test_every_file_becomes_a_row_and_bad_ones_an_error(example: Example, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    (folder / "nested").mkdir(parents=True)
    scan = Image.new("L", (30, 20), 255)
    odd = ["a b.png", "it's 1.png", 'a "1".png', "#1.png", "100%20.png", "größe.png"]
    good = ["plain.png", *odd, "nested/plain.png", "jpeg.png"]
    for name in good[:-1]:
        scan.save(folder / name)
    scan.save(folder / "jpeg.png", "JPEG")
    scan.save(folder / "film.gif", save_all=True, append_images=[Image.new("L", (30, 20))])
    whole = (folder / "plain.png").read_bytes()
    for kept in (0, 7, 20, len(whole) // 2):
        (folder / f"first-{kept}-bytes.png").write_bytes(whole[:kept])
    (folder / "text.png").write_text("not an image")
    Image.new("1", (20_000, 20_000)).save(folder / "bomb.png")
    (folder / "dangling.png").symlink_to(tmp_path / "nowhere")
    bad = [path.name for path in folder.glob("first-*")] + ["text.png", "bomb.png", "dangling.png"]

    predict(str(folder), str(example.checkpoint), str(tmp_path / "run"))
    rows = pd.read_parquet(tmp_path / "run" / "predictions").set_index("id")
    assert sorted(rows.index) == sorted([*good, "film.gif", *bad])
    assert rows.loc[[*good, "film.gif"], "error"].isna().all()
    assert rows.loc[bad, "error"].fillna("").str.startswith("decode: ").all()
    assert rows.loc[bad, "label"].isna().all()
    assert "DecompressionBombError" in str(rows.loc["bomb.png", "error"])


@pytest.mark.usefixtures("two_cpus")
def test_a_file_that_vanishes_while_it_runs_is_an_error(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "images").mkdir()
    for name in ("here.png", "vanished.png"):
        Image.new("L", (8, 8)).save(tmp_path / "images" / name)
    try_first = pipeline.try_on_worker  # the files are listed by then, and not yet decoded

    def vanish_and_try(*arguments: Any) -> Any:
        (tmp_path / "images" / "vanished.png").unlink()
        return try_first(*arguments)

    monkeypatch.setattr(pipeline, "try_on_worker", vanish_and_try)
    predict(str(tmp_path / "images"), str(example.checkpoint), str(tmp_path / "run"))
    rows = pd.read_parquet(tmp_path / "run" / "predictions").set_index("id")
    assert rows["error"].isna().to_dict() == {"here.png": True, "vanished.png": False}
    assert str(rows.loc["vanished.png", "error"]).startswith("decode: FileNotFoundError")


def test_a_file_that_must_not_be_read_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    Image.new("L", (8, 8)).save(path)
    path.chmod(0)
    root = os.geteuid() == 0  # who may read everything
    if root:
        os.seteuid(65534)
    try:
        with pytest.raises(PermissionError):
            decode({"path": str(path)})
    finally:
        if root:
            os.seteuid(0)


def test_too_many_failures_end_with_exit_code_1(example: Example, tmp_path: Path) -> None:
    shutil.copytree(example.raw, tmp_path / "raw")
    (tmp_path / "raw" / "broken").write_bytes(b"")
    arguments = ["predict", "--input", tmp_path / "raw", "--checkpoint", example.checkpoint]
    finished = run_cli(*arguments, "--output", tmp_path / "run", "--max-failure-rate", "0")
    assert finished.returncode == 1, finished.stderr
    assert "--max-failure-rate" in finished.stderr
    assert run_cli(*arguments, "--output", tmp_path / "run", "--max-failure-rate", "0").returncode == 1  # and again
    errors = pd.read_parquet(tmp_path / "run" / "predictions").set_index("id")["error"].dropna()
    assert "labels.csv" in errors  # no image either
    assert errors["broken"].startswith("decode: UnidentifiedImageError")


def test_a_training_says_which_rows_it_goes_without(example: Example, tmp_path: Path) -> None:
    manifest = pd.read_parquet(example.manifest)
    training = manifest.index[manifest["split"] == "train"]
    manifest.loc[training[:3], "path"] = "nowhere.png"
    manifest.to_parquet(example.manifest.with_name("three-missing.parquet"))
    (tmp_path / "parameters.json").write_text('{"epochs": 1}')
    arguments = ["--num-workers", "0", "--parameters", tmp_path / "parameters.json", "--output", tmp_path / "run"]
    finished = run_cli("train", "--input", example.manifest.with_name("three-missing.parquet"), *arguments)
    assert finished.returncode == 0, finished.stderr
    assert f"3 of {len(training)} rows of the split train can't be decoded" in finished.stdout


def test_a_model_survives_its_checkpoint(tmp_path: Path) -> None:
    model = DigitClassifier(width=4).eval()
    save_model(model, tmp_path / "model.safetensors")
    again = load_model(str(tmp_path / "model.safetensors")).eval()
    images = torch.randint(0, 256, (5, 8, 8), dtype=torch.uint8)
    torch.testing.assert_close(again(images), model(images))


def test_the_model_learns(example: Example) -> None:
    assert example.accuracy >= 0.97


def test_the_predictor_needs_no_ray() -> None:
    check = f"import {PACKAGE}.predictor, sys; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_the_predictor_keeps_its_contract(example: Example) -> None:
    predictor = Predictor(str(example.checkpoint))
    paths = pd.read_parquet(example.manifest).head(50)
    images = np.stack([decode({"path": os.fspath(example.manifest.parent / path)})["image"] for path in paths["path"]])
    outputs = predictor({"image": images})
    assert outputs["label"].shape == outputs["probability"].shape == (50,)
    assert outputs["label"].dtype == np.int64
    assert outputs["probability"].dtype == np.float32
    assert (outputs["label"] == paths["label"]).mean() > 0.9
    assert {name: value.shape for name, value in Predictor.blank.items()} == {"image": (1, *images.shape[1:])}
