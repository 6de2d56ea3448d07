"""Step 2, preprocessing: cleans the measurements, joins the clinics, and makes features, with Modin or pandas."""

import csv
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from .data import MEASURES
from .engines import engine as pandas_engine
from .errors import UserError
from .folders import whole_folder

FEATURES = [*MEASURES, "days_since_calibration"]
LENGTHS = [name for name in MEASURES if "radius" in name or "perimeter" in name]
AREAS = [name for name in MEASURES if "area" in name]
COLUMNS = {
    "measurements.csv": ["sample", "clinic", "taken_on", *MEASURES, "diagnosis"],
    "clinics.csv": ["clinic", "mm_per_pixel", "calibrated_on"],
}
LABELS = ["benign", "malignant"]
MISSING = ["", "?", "NA"]  # how a cell without a value is written
SPLIT_OF_TEN = ["test", "train", "train", "validation", "train", "test", "train", "train", "train", "train"]


def preprocess(raw: Path, manifest: Path, engine: str = "modin") -> int:
    """Write a row for every sample in `raw`/measurements.csv, and return their number.

    `manifest` becomes a folder of Parquet files with the columns id (int64, unique), label ("benign" or "malignant"),
    split ("train", "validation" or "test", by the last digit of the id) and the features (float64): sizes in
    millimetres, not a number where the cell is empty. Of rows with the same sample, the first stays. Lines with too
    many fields, and samples without a diagnosis, are left out, and counted aloud.

    Args:
        raw: the folder that `data` wrote.
        manifest: what to write.
        engine: see `engines.engine`.

    Raises:
        UserError: a file is missing, empty or no CSV, lacks a column, or has a cell of a wrong type, which is named by
            column and line; or `manifest` exists.
    """
    if manifest.exists():
        raise UserError(f"--output {manifest} is there already: remove it, or choose another")
    for name, columns in COLUMNS.items():
        _check_header(raw / name, columns)
    source = raw / "measurements.csv"
    with pandas_engine(engine, source.stat().st_size) as pd, whole_folder(manifest) as partial:
        try:
            rows = _clean(pd, raw, partial, engine)
        except ValueError as problem:  # of a cell that is no number, or no date; pandas does not say which
            _check_cells(raw)
            raise UserError(f"{raw}: {str(problem).splitlines()[0]}") from None
    return rows


def _clean(pd: Any, raw: Path, manifest: Path, engine: str) -> int:
    """What is the same on either engine: one row is looked at at a time, but for the samples that are there twice."""
    options: dict[str, Any] = {"dtype": "str", "na_values": MISSING, "keep_default_na": False, "on_bad_lines": "skip"}
    # Without usecols: with it, pandas reads a line with too many fields as if it were whole.
    table = pd.read_csv(raw / "measurements.csv", **options)[COLUMNS["measurements.csv"]]
    clinics = pd.read_csv(raw / "clinics.csv", **options)[COLUMNS["clinics.csv"]].astype({"mm_per_pixel": "float64"})

    if not clinics["clinic"].is_unique:
        raise ValueError("a clinic is there twice")
    diagnosed = table[table["diagnosis"].isin(LABELS)].astype({"sample": "int64"})
    once = diagnosed.drop_duplicates("sample")
    whole = once.merge(clinics, on="clinic", how="left")
    numbers = whole[MEASURES].replace({r"\s*px$": "", ",": "."}, regex=True).astype("float64")
    numbers[LENGTHS] = numbers[LENGTHS].mul(whole["mm_per_pixel"], axis=0)
    numbers[AREAS] = numbers[AREAS].mul(whole["mm_per_pixel"] ** 2, axis=0)
    taken, calibrated = (pd.to_datetime(whole[name], format="%Y-%m-%d") for name in ("taken_on", "calibrated_on"))
    numbers["days_since_calibration"] = (taken - calibrated).dt.days.astype("float64")
    numbers.insert(0, "id", whole["sample"])
    numbers.insert(1, "label", whole["diagnosis"])
    numbers.insert(2, "split", (numbers["id"] % 10).map(dict(enumerate(SPLIT_OF_TEN))))
    if whole["mm_per_pixel"].isna().any():
        raise ValueError("a clinic is unknown")

    # Modin writes a folder of files, one a partition; pandas writes one file.
    numbers.to_parquet(manifest if engine == "modin" else manifest / "part-0000.snappy.parquet", index=False)
    left_out = {
        "lines with too many fields": _count_lines(raw / "measurements.csv") - 1 - len(table),
        "rows without a diagnosis": len(table) - len(diagnosed),
        "repeated samples": len(diagnosed) - len(once),
    }
    print(f"Left out: {', '.join(f'{count} {what}' for what, count in left_out.items())}.")
    return len(once)


def _count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))


def _check_header(path: Path, columns: list[str]) -> None:
    if not path.is_file():
        raise UserError(f"{path} is missing: the `data` command makes the example's")
    header, first = next(_lines(path), (1, [])), next(_lines(path, skip=1), None)
    if missing := [name for name in columns if name not in header[1]]:
        raise UserError(f"{path} line 1: there is no column {missing[0]}")
    if first is None:
        raise UserError(f"{path} has no rows")


def _lines(path: Path, skip: int = 0) -> Iterator[tuple[int, list[str]]]:
    """The file's lines as lists of cells, with their numbers."""
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            for number, cells in enumerate(reader):
                if number >= skip:
                    yield reader.line_num, cells
        except (UnicodeDecodeError, csv.Error) as problem:
            raise UserError(f"{path} line {reader.line_num + 1}: this is no CSV ({problem})") from None


def _check_cells(raw: Path) -> None:
    """Look for the cell that can't be what its column holds, one by one, as pandas does not say which it was."""
    clinics: set[str] = set()
    for name, columns in reversed(COLUMNS.items()):
        _, header = next(_lines(raw / name))
        for line, cells in _lines(raw / name, skip=1):
            row = dict(zip(header, cells, strict=False))
            if len(cells) > len(header) or ("diagnosis" in header and row.get("diagnosis") not in LABELS):
                continue  # left out
            for column in columns:
                if trouble := _trouble(column, row.get(column, ""), clinics if name == "measurements.csv" else None):
                    raise UserError(f"{raw / name} line {line}, column {column}: {trouble}")
            if name == "clinics.csv" and row["clinic"] in clinics:
                raise UserError(f"{raw / name} line {line}, column clinic: {row['clinic']!r} is there twice")
            clinics.add(row["clinic"])


def _trouble(column: str, cell: str, clinics: set[str] | None) -> str:
    """What is wrong with a cell, if anything."""
    if column == "clinic":
        return f"{cell!r} is not in clinics.csv" if clinics is not None and cell not in clinics else ""
    convert: Any = {"sample": int, "taken_on": _date, "calibrated_on": _date}.get(column, float)
    kind = {int: "a whole number", float: "a number", _date: "a date such as 2024-12-31"}[convert]
    if column == "diagnosis" or (column in MEASURES and cell in MISSING):
        return ""
    try:
        convert(cell.removesuffix("px").replace(",", ".") if column in MEASURES else cell)
    except ValueError:
        return f"{cell!r} is not {kind}"
    return ""


def _date(cell: str) -> datetime:
    return datetime.strptime(cell, "%Y-%m-%d")
