"""From what `--input` points at to rows, each with a unique id: those of Parquet files, or a listing of other files."""

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from .errors import UserError

# What file systems call a file's size and the time of its last change.
CHANGES = ("size", "mtime", "created", "LastModified", "updated", "last_modified")


# A table up to this size, uncompressed, is held by the driver: manifests, mostly, which it can cut up as it likes.
LARGEST_TABLE = 256 * 2**20  # bytes


@dataclass(frozen=True)
class Input:
    """What there is to predict."""

    files: list[str]  # the Parquet files, or those that are listed
    table: pa.Table | None  # all rows, unless they are too many: a listing has the columns id and path
    folder: str  # where relative paths in Parquet rows start from
    ids: pa.ChunkedArray
    digest: str  # of the files' names, sizes and times and of the ids: an input that changed has another

    def without(self, done: pa.ChunkedArray) -> "Input":
        """The input without the ids in `done`. Rows that are not in the table stay in their files."""
        if len(done) == 0:
            return self
        left = pc.invert(pc.is_in(self.ids, done))
        return replace(self, table=self.table and self.table.filter(left), ids=self.ids.filter(left))

    def first_row(self) -> dict[str, Any]:
        """One row, as the pipeline will see it."""
        table = self.table or _open_parquet(self.files).head(1)
        row: dict[str, Any] = table.slice(0, 1).to_pylist()[0]
        return row


def find_input(source: str) -> Input:
    """Find the rows to predict.

    Args:
        source: a path or a URI. Parquet (a file, a folder or a glob of them) must have a column `id`. Of anything else
            (a file, a folder, nested too, or a glob) every file becomes a row, with its path below the folder as its
            id. Files whose name starts with a dot are left out.

    Raises:
        UserError: nothing is there, or the ids are missing or not unique.
    """
    filesystem, root = fsspec.url_to_fs(source)
    magic = re.search(r"[*?\[]", root)
    if filesystem.isdir(root):
        found, folder, table_folder = filesystem.find(root, detail=True), root, filesystem._parent(root)
    elif filesystem.exists(root):
        found, folder, table_folder = {root: filesystem.info(root)}, *[filesystem._parent(root)] * 2
    elif magic:
        found = filesystem.glob(root, detail=True)
        folder = table_folder = filesystem._parent(root[: magic.start()] + "*")
    else:
        raise UserError(f"--input {source}: there is no such file or folder")
    paths = [
        path
        for path, info in sorted(found.items())
        if info["type"] != "directory" and not path.rsplit("/", 1)[-1].startswith(".")
    ]
    tables = [path for path in paths if path.endswith(".parquet")]
    if not paths:
        raise UserError(f"--input {source}: there are no files")

    def address(path: str) -> str:
        # Local paths stay plain: in a file:// URI a "%" or "#" of a name would need escapes.
        return path if "file" in filesystem.protocol else str(filesystem.unstrip_protocol(path))

    if not tables:
        files = [address(path) for path in paths]
        ids = pa.chunked_array([[path.removeprefix(folder).lstrip("/") for path in paths]])
        table = pa.table({"id": ids, "path": files})
    elif all(path in tables or path.rsplit("/", 1)[-1].startswith("_") for path in paths):  # such as Spark's _SUCCESS
        files, folder = [address(path) for path in tables], table_folder
        table, ids = _read_unique_ids(files)
    else:
        raise UserError(f"--input {source}: Parquet files lie beside others: name what you mean, such as '*.png'")
    digest = hashlib.sha256(repr([(path, *map(found[path].get, CHANGES)) for path in paths]).encode())
    for id_ in ids:
        digest.update(f"{id_}\n".encode())
    return Input(files, table, address(folder), ids, digest.hexdigest())


def absolute(path: str) -> str:
    """The path as every worker understands it, whichever folder it runs in. A URI of another machine stays as it is."""
    path = path.removeprefix("file://")
    return path if "://" in path else str(Path(path).absolute())


def read_ids(files: list[str]) -> pa.ChunkedArray:
    """The column `id` of Parquet files, paths or URIs of one file system."""
    return _open_parquet(files).to_table(columns=["id"])["id"]


def _open_parquet(files: list[str]) -> pyarrow.dataset.Dataset:
    filesystem, _ = fsspec.url_to_fs(files[0])
    paths = [filesystem._strip_protocol(file) for file in files]
    return pyarrow.dataset.dataset(paths, filesystem=filesystem, format="parquet")


def _read_unique_ids(files: list[str]) -> tuple[pa.Table | None, pa.ChunkedArray]:
    try:
        dataset = _open_parquet(files)
        sizes = (group.total_byte_size for fragment in dataset.get_fragments() for group in fragment.row_groups)
        table = dataset.to_table() if sum(sizes) <= LARGEST_TABLE else dataset.to_table(columns=["id"])
        ids = table["id"]
    except (pa.ArrowInvalid, KeyError) as problem:
        raise UserError(f"--input: {str(problem).splitlines()[0]}") from None
    if ids.null_count:
        raise UserError(f"--input: the column id is empty in {ids.null_count} rows")
    counts = pc.value_counts(ids)
    repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    if len(repeated):
        raise UserError(f"--input: ids must be unique, but {repeated[0]} and {len(repeated) - 1} more are not")
    if len(ids) == 0:
        raise UserError("--input: the table has no rows")
    return None if table.column_names == ["id"] else table, ids
