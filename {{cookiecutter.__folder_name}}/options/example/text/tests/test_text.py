"""The text example: its data, its sparse features as SciPy, torch and Spark see them, its model and its Predictor."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import PACKAGE, Example
from scipy.sparse import csr_matrix, random_array

from {{ cookiecutter.__package_name }}.data import LIBRARIES, write_raw_data
from {{ cookiecutter.__package_name }}.errors import UserError
from {{ cookiecutter.__package_name }}.model import SparseClassifier, load_model, save_model, to_tensors
from {{ cookiecutter.__package_name }}.predictor import Predictor
from {{ cookiecutter.__package_name }}.preprocessing import preprocess, vectorise
from {{ cookiecutter.__package_name }}.sparse import SIZE, from_vectors, to_vectors


def test_the_data_is_written_once(example: Example) -> None:
    table = pd.read_json(example.raw / "docstrings.jsonl", lines=True)
    assert table["library"].value_counts().min() > 1000
    assert sorted(table["library"].unique()) == list(LIBRARIES)
    assert not write_raw_data(example.raw)


@pytest.mark.usefixtures("two_cpus")
class TestPreprocessing:
    """All of Modin's tests are in here, in one Ray: in a process, Modin does not outlive the first."""

    def test_modin_and_pandas_write_the_same_manifest(
        self, example: Example, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        rows = preprocess(example.raw, tmp_path / "modin.parquet", "modin")
        assert "Modin has no sparse columns: from here on, SciPy." in capsys.readouterr().out
        assert pq.read_table(tmp_path / "modin.parquet").equals(pq.read_table(example.manifest))
        assert rows == len(pq.read_table(example.manifest))

    @pytest.mark.parametrize("engine", ["pandas", "modin"])
    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            ("no JSON", "line 2: this is no JSON"),
            ('{"name": "a", "library": "numpy"}', "line 2, text: None is no text"),
            ('{"name": "a", "library": "numpy", "text": 3}', "line 2, text: 3 is no text"),
            ('{"name": "a", "library": "scipy", "text": "b"}', "line 2, library: 'scipy' is none of numpy"),
        ],
    )
    def test_a_wrong_line_is_named(self, tmp_path: Path, line: str, reason: str, engine: str) -> None:
        right = json.dumps({"name": "b", "library": "ray", "text": "a text that is long enough to be kept, and longer"})
        (tmp_path / "docstrings.jsonl").write_text(f"{right}\n{line}\n{right}\n")
        with pytest.raises(UserError, match=reason):
            preprocess(tmp_path, tmp_path / "manifest.parquet", engine)
        assert not (tmp_path / "manifest.parquet").exists()


@pytest.mark.parametrize("content", [None, ""])
def test_a_missing_or_empty_file_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "docstrings.jsonl").write_text(content)
    with pytest.raises(UserError, match=r"docstrings.jsonl is (missing|empty)"):
        preprocess(tmp_path, tmp_path / "manifest.parquet", "pandas")


def test_vectors_are_the_matrix_that_they_were() -> None:
    matrix = csr_matrix(random_array((50, 1000), density=0.02, rng=np.random.default_rng(0)))
    column = pa.chunked_array([to_vectors(matrix[:20]), to_vectors(matrix[20:])])
    assert (from_vectors(column) != matrix).nnz == 0
    assert (from_vectors(column.slice(7, 20)) != matrix[7:27]).nnz == 0  # a part of a block, as Ray Data hands it over
    with pytest.raises(ValueError, match="differ in size"):
        from_vectors(pa.chunked_array([to_vectors(matrix), to_vectors(matrix[:, :10])]))


def test_no_matrix_is_dense_on_the_way(tmp_path: Path) -> None:
    """Each of its copies would be hundreds of gigabytes."""
    rows, columns = 100_000, 2**20
    indices = np.random.default_rng(0).integers(0, columns, (rows, 2)).cumsum(axis=1) % columns
    matrix = csr_matrix((np.ones(2 * rows), np.sort(indices).ravel(), np.arange(0, 2 * rows + 1, 2)), (rows, columns))
    pq.write_table(pa.table({"features": to_vectors(matrix)}), tmp_path / "vectors.parquet")
    read = from_vectors(pq.read_table(tmp_path / "vectors.parquet")["features"])
    assert (read != matrix).nnz == 0
    _, offsets, values = to_tensors(read)
    assert (len(offsets), values.sum().item()) == (rows, 2 * rows)


def test_the_model_adds_up_what_the_dense_product_would() -> None:
    matrix = vectorise(["a first text of some words", "", "another text"])
    model = SparseClassifier(width=4).eval()
    dense = matrix.toarray().astype(np.float32) @ model.first.weight.detach().numpy()
    np.testing.assert_allclose(model.first(*_bag(matrix)).detach().numpy(), dense, rtol=1e-5, atol=1e-6)


def _bag(matrix: csr_matrix) -> tuple[object, ...]:
    indices, offsets, values = to_tensors(matrix)
    return indices, offsets, values


@pytest.mark.skipif(not shutil.which("java"), reason="PySpark needs a Java of 17 or newer")
def test_spark_reads_vectors_with_the_same_numbers(example: Example, tmp_path: Path) -> None:
    """A real PySpark, in a process of its own."""
    script = f"""
import json
from pyspark.sql import SparkSession
spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
rows = spark.read.parquet({str(example.manifest)!r}).orderBy("id").limit(50).collect()
vectors = [[type(row.features).__name__, row.id, row.features.size, row.features.indices.tolist(),
            row.features.values.tolist()] for row in rows]
json.dump(vectors, open({str(tmp_path / "vectors.json")!r}, "w"))
"""
    environment = {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1"}
    subprocess.run([sys.executable, "-c", script], env=environment, cwd=tmp_path, check=True)
    table = pq.read_table(example.manifest).sort_by("id")[:50]
    matrix = from_vectors(table["features"])
    read = json.loads((tmp_path / "vectors.json").read_text())
    assert len(read) == len(table)
    for row, (kind, id_, size, indices, values) in enumerate(read):
        assert (kind, id_, size) == ("SparseVector", table["id"][row].as_py(), SIZE)
        assert indices == matrix[row].indices.tolist()
        assert values == matrix[row].data.tolist()


def test_the_model_learns(example: Example) -> None:
    assert example.accuracy >= 0.85


def test_a_model_survives_its_checkpoint(tmp_path: Path) -> None:
    model = SparseClassifier(width=4).eval()
    save_model(model, tmp_path / "model.safetensors")
    rows = to_tensors(vectorise(["one text", "and another"]))
    np.testing.assert_array_equal(
        load_model(str(tmp_path / "model.safetensors")).eval()(*rows).detach(), model(*rows).detach()
    )


def test_the_predictor_needs_no_ray_and_no_scikit_learn() -> None:
    check = f"import {PACKAGE}.predictor, sys; sys.exit('ray' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_the_predictor_keeps_its_contract(example: Example) -> None:
    rows = pq.read_table(example.manifest)
    outputs = Predictor(str(example.checkpoint))(rows)
    assert outputs["probability"].dtype == np.float32
    assert outputs["label"].shape == outputs["probability"].shape == (len(rows),)
    assert (outputs["label"] == np.asarray(rows["label"])).mean() > 0.9
