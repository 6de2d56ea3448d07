"""From what `--input` points at to rows, each with a unique id: a Parquet table as it is, or a listing of files."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from .errors import UserError

# What file systems call a file's size and the time of its last change.
CHANGES = ("size", "mtime", "created", "LastModified", "updated", "last_modified")


@dataclass(frozen=True)
class Input:
    """What there is to predict."""

    files: list[str]  # Parquet files to read, or the files that `listing` lists
    listing: pa.Table | None  # columns id and path, unless the files are Parquet
    folder: str  # where relative paths in Parquet rows start from
    ids: pa.ChunkedArray
    digest: str  # of the files' names, sizes and times and of the ids: an input that changed has another


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
        listing = pa.table({"id": ids, "path": files})
    elif all(path in tables or path.rsplit("/", 1)[-1].startswith("_") for path in paths):  # such as Spark's _SUCCESS
        files, folder, listing = [address(path) for path in tables], table_folder, None
        ids = _read_unique_ids(files)
    else:
        raise UserError(f"--input {source}: Parquet files lie beside others: name what you mean, such as '*.png'")
    digest = hashlib.sha256(repr([(path, *map(found[path].get, CHANGES)) for path in paths]).encode())
    for id_ in ids:
        digest.update(f"{id_}\n".encode())
    return Input(files, listing, address(folder), ids, digest.hexdigest())


def absolute(path: str) -> str:
    """The path as every worker understands it, whichever folder it runs in. A URI of another machine stays as it is."""
    path = path.removeprefix("file://")
    return path if "://" in path else str(Path(path).absolute())


def read_ids(files: list[str]) -> pa.ChunkedArray:
    """The column `id` of Parquet files, paths or URIs of one file system."""
    filesystem, _ = fsspec.url_to_fs(files[0])
    paths = [filesystem._strip_protocol(file) for file in files]
    dataset = pyarrow.dataset.dataset(paths, filesystem=filesystem, format="parquet")
    return dataset.to_table(columns=["id"])["id"]


def _read_unique_ids(files: list[str]) -> pa.ChunkedArray:
    try:
        ids = read_ids(files)
    except pa.ArrowInvalid as problem:
        raise UserError(f"--input: {str(problem).splitlines()[0]}") from None
    if ids.null_count:
        raise UserError(f"--input: the column id is empty in {ids.null_count} rows")
    counts = pc.value_counts(ids)
    repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    if len(repeated):
        raise UserError(f"--input: ids must be unique, but {repeated[0]} and {len(repeated) - 1} more are not")
    if len(ids) == 0:
        raise UserError("--input: the table has no rows")
    return ids
