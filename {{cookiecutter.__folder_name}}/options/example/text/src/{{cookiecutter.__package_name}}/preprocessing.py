"""Step 2, preprocessing: from texts to sparse features in Parquet: cleaned with Modin or pandas, hashed with SciPy."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import HashingVectorizer

from .data import LIBRARIES
from .engines import engine as pandas_engine
from .errors import UserError
from .folders import whole_folder
from .sparse import SIZE, VECTOR, spark_schema, to_vectors

SHORTEST = 40  # letters of a text
ROWS_PER_FILE = 2000
SPLIT_OF_TEN = ["test", "train", "train", "validation", "train", "test", "train", "train", "train", "train"]
# What gives the answer away: the libraries' names, and how they are imported.
GIVEAWAY = r"(?i)\b(?:numpy|np|pandas|pd|ray|raylet|rllib|torch|pytorch|aten)\w*"
SCHEMA = spark_schema(
    pa.schema([("id", pa.string()), ("label", pa.string()), ("split", pa.string()), ("features", VECTOR)]), "features"
)


def preprocess(raw: Path, manifest: Path, engine: str = "modin") -> int:
    """Write a row for every text in `raw`/docstrings.jsonl, and return their number.

    `manifest` becomes a folder of Parquet files with the columns id (string, unique: the name), label (string: the
    library), split (in the order of the names, of ten rows two are "test", one is "validation", and the rest is
    "train") and features (see `sparse.py`; `SIZE` of them). The libraries' names are taken out of the texts. Of texts
    that are the same, and of names, the first stays; short texts are left out.

    Args:
        raw: the folder that `data` wrote.
        manifest: what to write.
        engine: see `engines.engine`. For the texts only: Modin has no sparse columns.

    Raises:
        UserError: the file is missing, empty, or has a line that is not as `data` writes it; or `manifest` exists.
    """
    if manifest.exists():
        raise UserError(f"--output {manifest} is there already: remove it, or choose another")
    source = raw / "docstrings.jsonl"
    if not source.is_file():
        raise UserError(f"{source} is missing: the `data` command makes the example's")
    if source.stat().st_size == 0:
        raise UserError(f"{source} is empty")
    with pandas_engine(engine, source.stat().st_size) as pd:
        try:
            table = _clean(pd.read_json(source, lines=True, dtype=False))
        except (ValueError, KeyError, TypeError, AttributeError):  # pandas does not say in which line
            _check_lines(source)
            raise
    if engine == "modin":
        print("Modin has no sparse columns: from here on, SciPy.")
    with whole_folder(manifest) as partial:
        for number, start in enumerate(range(0, len(table), ROWS_PER_FILE)):
            part = table.iloc[start : start + ROWS_PER_FILE]
            columns = [part["name"], part["library"], part["split"], to_vectors(vectorise(part["text"].tolist()))]
            pq.write_table(
                pa.table([pa.array(each) for each in columns], SCHEMA), partial / f"part-{number:04}.parquet"
            )
    return len(table)


def vectorise(texts: list[str]) -> csr_matrix:
    """How often each word is in each text, by the hash of the word: float64 (N, SIZE), rows of length one."""
    vectors = HashingVectorizer(n_features=SIZE, alternate_sign=False, token_pattern=r"[a-z_]{2,}").transform(texts)
    return csr_matrix(vectors)


def _clean(table: Any) -> Any:
    """The texts to keep, without what gives them away, as a table of pandas' own."""
    table = table[["name", "library", "text"]]
    texts = [table[name].map(lambda value: isinstance(value, str)).all() for name in ("name", "text")]
    if not all(texts) or not table["library"].isin(LIBRARIES).all():
        raise ValueError("a cell is not what it must be")
    table = table.assign(text=table["text"].str.replace(GIVEAWAY, " ", regex=True).str.strip())
    table = table[table["text"].str.len() >= SHORTEST]
    table = table.drop_duplicates("text").drop_duplicates("name").sort_values("name", ignore_index=True)
    if len(table) == 0:
        raise UserError(f"there is no text of {SHORTEST} letters or more")
    table = table.modin.to_pandas() if hasattr(table, "modin") else table
    return table.assign(split=np.array(SPLIT_OF_TEN)[np.arange(len(table)) % 10])


def _check_lines(path: Path) -> None:
    """Look for the line that is not as it must be, one by one.

    Raises:
        UserError: it names the line and what is wrong with it.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
            except ValueError as problem:
                raise UserError(f"{path} line {number}: this is no JSON ({problem})") from None
            for name in ("name", "library", "text"):
                value = row.get(name) if isinstance(row, dict) else None
                if not isinstance(value, str):
                    raise UserError(f"{path} line {number}, {name}: {value!r} is no text")
            if row["library"] not in LIBRARIES:
                raise UserError(f"{path} line {number}, library: {row['library']!r} is none of {', '.join(LIBRARIES)}")
