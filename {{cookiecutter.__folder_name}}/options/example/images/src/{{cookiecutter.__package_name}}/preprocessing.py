"""Step 2, preprocessing: from raw labels to a Parquet manifest, one row an image, with Modin or pandas.

Also here: `decode`, which training and inference share, so that both see the same pixels.
"""

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from upath import UPath

from .engines import engine as pandas_engine
from .errors import UserError
from .folders import whole_folder

SPLIT_OF_TEN = ["test", "train", "train", "validation", "train", "test", "train", "train", "train", "train"]
IMAGE_SIZE = (8, 8)  # width and height that the model takes


def preprocess(raw: Path, manifest: Path, engine: str = "modin") -> int:
    """Write the manifest of the images that `raw`/labels.csv lists, and return its number of rows.

    `manifest` becomes a folder of Parquet files with the columns id (string, unique), path (string, relative to the
    folder that `manifest` lies in), label (int64) and split: in the order of label and file, of ten rows two are
    "test", one is "validation", and the rest is "train".

    Args:
        raw: the folder that `data` wrote.
        manifest: what to write.
        engine: see `engines.engine`.

    Raises:
        UserError: labels.csv is missing, empty, not a table of files and whole-number labels, or names a file twice; or
            `manifest` exists.
    """
    if manifest.exists():
        raise UserError(f"--output {manifest} is there already: remove it, or choose another")
    source = raw / "labels.csv"
    if not source.is_file():
        raise UserError(f"{source} is missing: the `data` command makes the example's")
    with pandas_engine(engine, source.stat().st_size) as pd:  # the same code runs on either
        try:
            table = pd.read_csv(source, usecols=["file", "label"], dtype={"file": "str", "label": "int64"})
        except ValueError as problem:  # pandas' parser errors are ValueErrors, too, and Ray's of them
            _check_labels(source)
            reason = str(getattr(problem, "cause", problem)).splitlines()[0]
            raise UserError(f"{source} must have the columns file and label: {reason}") from None
        if len(table) == 0:
            raise UserError(f"{source} has no rows")
        if table["file"].isna().any():
            raise UserError(f"{source} has a row without a file")
        if len(repeated := table["file"][table["file"].duplicated()]):
            raise UserError(f"{source} names {repeated.iloc[0]} twice")

        table = table.sort_values(["label", "file"], ignore_index=True)
        table["id"] = table["file"]
        table["path"] = os.path.relpath(raw, manifest.parent) + "/" + table["file"]
        table["split"] = np.array(SPLIT_OF_TEN)[np.arange(len(table)) % 10]
        with whole_folder(manifest) as partial:
            # Modin writes a folder of files, one a partition; pandas writes one file.
            target = partial if engine == "modin" else partial / "part-0000.snappy.parquet"
            table[["id", "path", "label", "split"]].to_parquet(target, index=False)
        return len(table)


def _check_labels(source: Path) -> None:
    """Look for the label that is no whole number, one by one, as pandas does not say which it was."""
    with source.open(encoding="utf-8", errors="replace", newline="") as file:
        reader = csv.DictReader(file)
        for row in reader:
            label = row.get("label", "0") or ""  # where there is no such column, pandas said so
            try:
                int(label)
            except ValueError:
                line = reader.line_num
                raise UserError(f"{source} line {line}, column label: {label!r} is not a whole number") from None


def decode(row: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Read and decode the image at `row["path"]`, a path or a URI.

    Returns:
        image: uint8, shape (8, 8), grey, turned upright as its EXIF tag says.

    Raises:
        OSError: the file can't be read, or is no image that Pillow can decode.
    """
    with Image.open(io.BytesIO(UPath(row["path"]).read_bytes())) as image:
        grey = ImageOps.exif_transpose(image).convert("L")
        return {"image": np.asarray(grey.resize(IMAGE_SIZE, Image.Resampling.BILINEAR))}
