"""The second model of README.md, put into a copy of the project as a reader would."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
from conftest import PACKAGE, Example

PROJECT = Path(__file__).parents[1]
PREDICTOR, CHECKPOINT = re.findall(r"```python\n(.*?)```", (PROJECT / "README.md").read_text(), re.DOTALL)


def test_another_model_needs_another_predictor_and_nothing_else(example: Example, tmp_path: Path) -> None:
    package = shutil.copytree(PROJECT / "src" / PACKAGE, tmp_path / PACKAGE)
    (package / "predictor.py").write_text(PREDICTOR)
    subprocess.run([sys.executable, "-c", CHECKPOINT], cwd=tmp_path, check=True)
    command = [sys.executable, "-m", PACKAGE, "predict", "--input", str(example.manifest)]
    # Python finds the package that lies in the folder it starts in first.
    subprocess.run([*command, "--checkpoint", "means.safetensors", "--output", "run"], cwd=tmp_path, check=True)
    predictions = pd.read_parquet(tmp_path / "run" / "predictions").merge(pd.read_parquet(example.manifest), on="id")
    assert set(predictions) >= {"label_x", "distance", "error"}
    assert (predictions["label_x"] == predictions["label_y"]).mean() > 0.85
