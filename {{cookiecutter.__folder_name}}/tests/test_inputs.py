"""Whatever --input points at becomes rows with unique ids. No Ray needed."""

import os
import re
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from {{ cookiecutter.__package_name }} import inputs
from {{ cookiecutter.__package_name }}.errors import UserError
from {{ cookiecutter.__package_name }}.inputs import find_input


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b c#%é.png", "nested/deep/a.png", ".hidden"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"content")
    return tmp_path / "images"


@pytest.mark.parametrize(
    ("source", "ids"),
    [
        ("", ["a.png", "b c#%é.png", "nested/deep/a.png"]),
        ("/nested", ["deep/a.png"]),
        ("/*.png", ["a.png", "b c#%é.png"]),
        ("/**/a.png", ["a.png", "nested/deep/a.png"]),
        ("/a.png", ["a.png"]),
    ],
)
@pytest.mark.parametrize("protocol", ["", "file://"])
def test_files_become_rows(folder: Path, source: str, ids: list[str], protocol: str) -> None:
    found = find_input(f"{protocol}{folder}{source}")
    assert found.table is not None
    assert found.table["id"].to_pylist() == ids
    assert all(Path(path).is_file() for path in found.table["path"].to_pylist())


def test_a_remote_folder_keeps_its_uris() -> None:
    fsspec.filesystem("memory").pipe("/bucket/images/a.png", b"content")
    found = find_input("memory://bucket/images")
    assert found.table is not None
    assert found.table.to_pylist() == [{"id": "a.png", "path": "memory://bucket/images/a.png"}]
    assert found.folder == "memory://bucket/images"


class Accounts(MemoryFileSystem):  # type: ignore[misc]
    """As Azure's: the account stands in the URI, and in no path."""

    protocol = "accounts"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(MemoryFileSystem._strip_protocol(re.sub("^accounts://([^@/]*)@[^/]*", r"/\1", path)))


def test_the_account_in_a_uri_is_kept() -> None:
    fsspec.register_implementation("accounts", Accounts, clobber=True)
    Accounts().pipe("/box/images/a.png", b"content")
    found = find_input("accounts://box@mine.net/images/")
    assert found.table is not None
    assert found.table["path"].to_pylist() == ["accounts://box@mine.net/images/a.png"]
    assert found.folder == "accounts://box@mine.net/images"
    pd.DataFrame({"id": [1]}).to_parquet("accounts://box@mine.net/table.parquet")
    table = find_input("accounts://box@mine.net/table.parquet")
    assert (table.files, table.folder) == (["accounts://box@mine.net/table.parquet"], "accounts://box@mine.net")


def test_parquet_is_read_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pd.DataFrame({"id": ["x", "y"], "value": [1, 2]}).to_parquet(tmp_path / "table.parquet")
    found = find_input(str(tmp_path / "table.parquet"))
    assert found.table is not None
    assert found.table.to_pylist() == [{"id": "x", "value": 1}, {"id": "y", "value": 2}]
    assert found.ids.to_pylist() == ["x", "y"]
    assert found.folder == str(tmp_path)
    assert found.some_rows() == found.table

    monkeypatch.setattr(inputs, "LARGEST_TABLE", 0)
    held, found = found, find_input(str(tmp_path / "table.parquet"))
    assert found.table is None
    assert found.digest == held.digest
    assert found.some_rows().to_pylist() == [{"id": "x", "value": 1}, {"id": "y", "value": 2}]


def test_what_is_done_is_left_out(folder: Path) -> None:
    found = find_input(str(folder))
    first, *others = found.ids.to_pylist()
    left = found.without(pa.chunked_array([[first]]))
    assert left.ids.to_pylist() == others
    assert left.table is not None
    assert left.table["id"].to_pylist() == others
    assert left.digest == found.digest


def test_a_folder_of_parquet_may_hold_what_spark_puts_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "with [brackets].parquet"
    folder.mkdir()
    pd.DataFrame({"id": ["x"]}).to_parquet(folder / "part-0.parquet")
    (folder / "_SUCCESS").write_text("")
    assert find_input(str(folder)).ids.to_pylist() == ["x"]
    assert find_input(str(folder)).folder == str(tmp_path)
    (folder / "notes.txt").write_text("")
    with pytest.raises(UserError, match="lie beside others"):
        find_input(str(folder))


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"name": ["x"]}, "the table has no column id"),
        ({"id": ["x", "y", "x"]}, "ids must be unique, but x"),
        ({"id": ["x", None]}, "empty in 1 rows"),
        ({"id": []}, "no rows"),
    ],
)
def test_a_table_without_unique_ids_is_refused(tmp_path: Path, columns: dict[str, list[str]], reason: str) -> None:
    pd.DataFrame(columns).to_parquet(tmp_path / "table.parquet")
    with pytest.raises(UserError, match=reason):
        find_input(str(tmp_path / "table.parquet"))


@pytest.mark.parametrize("source", ["missing", "empty", "missing/*.png", "text.parquet"])
def test_an_input_without_rows_is_refused(tmp_path: Path, source: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.parquet").write_text("no Parquet")
    with pytest.raises(UserError, match="--input"):
        find_input(str(tmp_path / source))


def test_a_file_system_that_there_is_none_for_is_refused() -> None:
    with pytest.raises(UserError, match="--input nowhere://bucket: Protocol not known: nowhere"):
        find_input("nowhere://bucket")


def test_the_digest_tells_inputs_apart(folder: Path) -> None:
    before = find_input(str(folder)).digest
    assert find_input(str(folder)).digest == before
    (folder / "new.png").write_bytes(b"content")
    assert find_input(str(folder)).digest != before


@pytest.mark.parametrize("both", [(["a", "bc"], ["ab", "c"]), ([1, 23], [12, 3]), ([2**64 - 1], [2**64 - 2])])
def test_the_digest_tells_ids_apart(tmp_path: Path, both: tuple[list[Any], list[Any]]) -> None:
    file = tmp_path / "table.parquet"
    sizes, digests = set(), set()
    for ids in both:
        pd.DataFrame({"id": ids}).to_parquet(file)
        os.utime(file, (0, 0))
        sizes.add(file.stat().st_size)
        digests.add(find_input(str(file)).digest)
    assert (len(sizes), len(digests)) == (1, 2)


def test_a_link_to_a_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="link is a link to a folder"):
        find_input(str(folder))


def test_a_name_that_is_not_utf_8_is_refused(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.png")).write_bytes(b"")
    with pytest.raises(UserError, match="is not UTF-8"):
        find_input(str(folder))


def test_ids_of_a_strange_type_are_refused(tmp_path: Path) -> None:
    pd.DataFrame({"id": [1.5, 2.5]}).to_parquet(tmp_path / "table.parquet")
    with pytest.raises(UserError, match="text or whole numbers"):
        find_input(str(tmp_path / "table.parquet"))
