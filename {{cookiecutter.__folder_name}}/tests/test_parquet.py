"""Parquet files of a store are read whole, many at a time, and by no thread that outlives the call. No Ray needed."""

import threading
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from {{ cookiecutter.__package_name }} import inputs
from {{ cookiecutter.__package_name }}.inputs import find_input
from {{ cookiecutter.__package_name }}.parquet import first_rows, read_tables
from {{ cookiecutter.__package_name }}.run_folder import RunFolder


def write(folder: Path, *columns: dict[str, Any]) -> list[str]:
    paths = [str(folder / f"{number}.parquet") for number in range(len(columns))]
    for path, each in zip(paths, columns, strict=True):
        pq.write_table(pa.table(each), path)
    return paths


@pytest.mark.parametrize("largest_table", [inputs.LARGEST_TABLE, 0])  # bytes that the driver holds itself
def test_no_thread_of_pyarrow_has_a_file_of_a_store(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, largest_table: int
) -> None:
    """It would let go of the file after the call has returned, and abort a process that has ended meanwhile."""
    opened = MemoryFileSystem._open
    readers: set[type[threading.Thread]] = set()

    def watched(filesystem: MemoryFileSystem, path: str, mode: str = "rb", **options: Any) -> Any:
        file = opened(filesystem, path, mode, **options)
        read = file.read

        def watched_read(*count: int) -> bytes:
            readers.add(type(threading.current_thread()))
            return bytes(read(*count))

        file.read = watched_read
        return file

    monkeypatch.setattr(MemoryFileSystem, "_open", watched)
    monkeypatch.setattr(inputs, "LARGEST_TABLE", largest_table)
    table = pa.table({"id": ["a", "b"], "split": ["train", "test"], "error": [None, "broken"]})
    with fsspec.open(f"memory:/{tmp_path}/table.parquet", "wb") as file:
        pq.write_table(table, file)
    rows = find_input(f"memory:/{tmp_path}/table.parquet")
    assert rows.some_rows() == table
    assert rows.count("split", "train") == 1
    folder = RunFolder(f"memory:/{tmp_path}/run", {})
    assert len(folder.open()) == 0
    folder.add(table, folder.open())
    assert folder.open().to_pylist() == ["a", "b"]
    assert folder.close(rows.ids, {})["failed"] == 1
    assert readers <= {threading.Thread, type(threading.main_thread())}  # of another's, Python makes a _DummyThread


def test_files_whose_types_differ_become_one_table(tmp_path: Path) -> None:
    small, large = pa.array([1], pa.int32()), pa.array([2**40])
    paths = write(tmp_path, {"id": small}, {"id": large, "other": ["x"]}, {"id": pa.array([], pa.int64())})
    table = read_tables(paths, None)
    assert table.to_pylist() == [{"id": 1, "other": None}, {"id": 2**40, "other": "x"}]
    assert read_tables(paths, None, ["id"]).column_names == ["id"]


def test_the_first_rows_may_be_of_several_files(tmp_path: Path) -> None:
    paths = write(tmp_path, {"id": pa.array([], pa.int64())}, {"id": [1]}, {"id": [2, 3, 4]}, {"id": [5]})
    assert first_rows(paths, None, 3)["id"].to_pylist() == [1, 2, 3]
    assert first_rows(paths, None, 8)["id"].to_pylist() == [1, 2, 3, 4, 5]


def test_a_file_that_is_not_whole_is_named(tmp_path: Path) -> None:
    whole, half = write(tmp_path, {"id": [1]}, {"id": [2]})
    Path(half).write_bytes(Path(half).read_bytes()[:-4])
    with pytest.raises(pa.ArrowInvalid, match=f"{half}: "):
        read_tables([whole, half], None)
