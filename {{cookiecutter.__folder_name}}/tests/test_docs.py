"""What the documentation shows, put in and run as a reader would."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
from conftest import PACKAGE, Example

PROJECT = Path(__file__).parents[1]
BACK = """
import pandas

there, back = (each.to_pandas().sort_values("id", ignore_index=True) for each in (rows, again))
pandas.testing.assert_frame_equal(back, there, check_dtype=False)
print("as it was")
"""


def python_blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (PROJECT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL)


def folder_with_data(folder: Path, example: Example) -> Path:
    (folder / "data").mkdir()
    (folder / "data" / "manifest.parquet").symlink_to(example.manifest)
    return folder


def test_another_model_needs_another_predictor_and_nothing_else(example: Example, tmp_path: Path) -> None:
    folder = folder_with_data(tmp_path, example)
    predictor, checkpoint = python_blocks("your-own-model.md")
    package = shutil.copytree(PROJECT / "src" / PACKAGE, folder / PACKAGE)
    (package / "predictor.py").write_text(predictor)
    subprocess.run([sys.executable, "-c", checkpoint], cwd=folder, check=True)
    (written,) = (path for path in folder.iterdir() if path.suffix in (".npy", ".npz", ".safetensors"))
    command = [sys.executable, "-m", PACKAGE, "predict", "--input", str(example.manifest)]
    # Python finds the package that lies in the folder it starts in first.
    subprocess.run([*command, "--checkpoint", written.name, "--output", "run"], cwd=folder, check=True)
    predictions = pd.read_parquet(folder / "run" / "predictions").merge(pd.read_parquet(example.manifest), on="id")
    assert set(predictions) >= {"label_x", "error"}
    assert (predictions["label_x"] == predictions["label_y"]).mean() > 0.75


def test_the_recipes_run(example: Example, tmp_path: Path) -> None:
    """And what goes from Ray Data to another library and back is what it was."""
    folder_with_data(tmp_path, example)
    blocks = [block + (BACK if "again = " in block else "") for block in python_blocks("interoperation.md")]
    (tmp_path / "recipes.py").write_text("\n".join(blocks))
    command, environment = [sys.executable, "recipes.py"], {**os.environ, "RAY_ADDRESS": "local"}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("validation") == 3  # pandas, Modin and Dask count the same splits
    assert result.stdout.count("as it was") == 3
    assert "tensor(499500)" in result.stdout
    assert "\n1000\n" in result.stdout
    assert "'train-logloss'" in result.stdout
    assert "xgboost.core.Booster" in result.stdout
