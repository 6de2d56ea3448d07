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


@dataclass(frozen=True)
class Input:
    """What there is to predict."""

    files: list[str]  # Parquet files to read, or the files that `listing` lists
    listing: pa.Table | None  # columns id and path, unless the files are Parquet
    folder: str  # where relative paths in Parquet rows start from
    ids: pa.ChunkedArray
    digest: str  # of the files' names and sizes and of the ids: the same input has the same digest


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
        found, folder = filesystem.find(root, detail=True), root
    elif filesystem.exists(root):
        found, folder = {root: filesystem.info(root)}, filesystem._parent(root)
    elif magic:
        found, folder = filesystem.glob(root, detail=True), filesystem._parent(root[: magic.start()] + "*")
    else:
        raise UserError(f"--input {source}: there is no such file or folder")
    sizes = {
        path: found[path]["size"]
        for path in sorted(found)
        if found[path]["type"] != "directory" and not path.rsplit("/", 1)[-1].startswith(".")
    }
    if not sizes:
        raise UserError(f"--input {source}: there are no files")

    # Local paths stay plain: in a file:// URI a "%" or "#" of a name would need escapes.
    files = list(sizes) if "file" in filesystem.protocol else [filesystem.unstrip_protocol(path) for path in sizes]
    if all(path.endswith(".parquet") for path in files):
        listing, folder = None, filesystem._parent(root) if not magic else folder
        ids = _read_unique_ids(files)
    else:
        ids = pa.chunked_array([[path.removeprefix(folder).lstrip("/") for path in sizes]])
        listing = pa.table({"id": ids, "path": files})
    digest = hashlib.sha256(repr(list(sizes.items())).encode())
    for id_ in ids:
        digest.update(f"{id_}\n".encode())
    return Input(files, listing, folder, ids, digest.hexdigest())


def absolute(path: str) -> str:
    """The path as every worker understands it, whichever folder it runs in. A URI stays as it is."""
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
