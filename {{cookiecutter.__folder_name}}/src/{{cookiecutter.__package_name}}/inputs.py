"""From what `--input` points at to rows, each with a unique id: those of Parquet files, or a listing of other files."""

import hashlib
import math
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import fsspec
import pyarrow as pa
import pyarrow.compute as pc

from .errors import UserError, reason
from .parquet import bytes_in_memory, first_rows, read_each, read_table, read_tables

# What file systems call a file's size and the time of its last change.
CHANGES = ("size", "mtime", "LastModified", "updated", "last_modified")


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

    def some_rows(self) -> pa.Table:
        """Up to eight rows, as the pipeline will see them: from all over the table, or the first ones of the files."""
        if self.table is None:
            return first_rows(*where_files_are(self.files), 8)
        return self.table.take(list(range(0, len(self.table), math.ceil(len(self.table) / 8))))

    def count(self, column: str, value: str) -> int:
        """How many rows of the Parquet files have `value` in `column`.

        Raises:
            UserError: they lack the column, or the files are no Parquet.
        """

        def count_in(file: IO[bytes]) -> int:
            return pc.sum(pc.equal(read_table(file, [column])[column], value)).as_py() or 0

        try:
            return sum(read_each(*where_files_are(self.files), count_in))
        except KeyError:
            raise UserError(f"--input is not what `preprocess` writes: it has no column {column}") from None
        except pa.ArrowInvalid as problem:
            raise UserError(f"--input is not what `preprocess` writes: {reason(problem)}") from None


def find_input(source: str) -> Input:
    """Find the rows to predict.

    Args:
        source: a path or a URI. Parquet (a file, a folder or a glob of them) must have a column `id`. Of anything else
            (a file, a folder, nested too, or a glob) every file becomes a row, with its path below the folder as its
            id. Files whose name starts with a dot are left out.

    Raises:
        UserError: nothing is there, it can't be reached, or the ids are missing or not unique.
    """
    try:
        filesystem, root = fsspec.url_to_fs(source)
        is_folder = filesystem.isdir(root)
        is_there = is_folder or filesystem.exists(root)
    except Exception as problem:  # of a store, no credentials or no way there: each kind has errors of its own
        raise UserError(f"--input {source}: {reason(problem)}") from None
    magic = re.search(r"[*?\[]", root)
    if is_folder:
        try:
            # Without this, a folder that can't be read would be left out in silence. Object stores list all at once,
            # and know no such argument.
            errors = {} if filesystem.async_impl else {"on_error": "raise"}
            found = filesystem.find(root, detail=True, **errors)
        except OSError as problem:
            raise UserError(f"--input: {problem.filename or source} can't be read: {reason(problem)}") from None
        folder, table_folder = root, filesystem._parent(root)
    elif is_there:
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
    local = "file" in filesystem.protocol
    for path in paths:
        _check_path(path, local)

    scheme, _, rest = source.partition("://")
    base, _, below = rest.partition("/")
    outside = root.rstrip("/").removesuffix(below.rstrip("/"))  # what the file system's own paths have for the base

    def address(path: str) -> str:
        # Local paths stay plain: in a file:// URI a "%" or "#" of a name would need escapes. Of Azure's, only the URI
        # tells the account.
        return path if local else f"{scheme}://{base}/{f'{path}/'.removeprefix(outside)}".rstrip("/")

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
    # In Python, an id at a time, millions take longer than all the rest; all at once may be more than a text holds.
    for batch in pa.table({"id": ids}).to_batches(max_chunksize=2**20):
        texts = batch["id"].cast(pa.string())
        lines = pc.binary_join(pa.ListArray.from_arrays([0, len(texts)], texts), "\n")[0]
        digest.update(lines.as_buffer())
        digest.update(b"\n")
    return Input(files, table, address(folder), ids, digest.hexdigest())


def _check_path(path: str, local: bool) -> None:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise UserError(f"--input: the name {os.fsencode(path)!r} is not UTF-8. Rename it") from None
    if local and os.path.exists(path) and not os.path.isfile(path):  # noqa: PTH110, PTH113
        raise UserError(f"--input: {path} is a link to a folder, or no file. Name the folder itself, or move it away")


def absolute(path: str) -> str:
    """The path as every worker understands it, whichever folder it runs in. A URI of another machine stays as it is."""
    path = path.removeprefix("file://")
    return path if "://" in path else str(Path(path).absolute())


def where_files_are(files: list[str]) -> tuple[list[str], Any]:
    """The files' paths, and the fsspec file system of all of them, or None where they are on this machine.

    It is for Ray Data, too, which would take another library for a store, with other credentials.
    """
    filesystem, _ = fsspec.url_to_fs(files[0])
    local = "file" in filesystem.protocol
    return [filesystem._strip_protocol(file) for file in files], None if local else filesystem


def _read_unique_ids(files: list[str]) -> tuple[pa.Table | None, pa.ChunkedArray]:
    where = where_files_are(files)
    try:
        fits = sum(read_each(*where, bytes_in_memory)) <= LARGEST_TABLE
        table = read_tables(*where, columns=None if fits else ["id"])
        ids = table["id"]
    except KeyError:
        raise UserError("--input: the table has no column id") from None
    except pa.ArrowException as problem:
        raise UserError(f"--input: {reason(problem)}") from None
    if len(ids) == 0:
        raise UserError("--input: the table has no rows")
    if ids.null_count:
        raise UserError(f"--input: the column id is empty in {ids.null_count} rows")
    if not (pa.types.is_integer(ids.type) or pa.types.is_string(ids.type) or pa.types.is_large_string(ids.type)):
        raise UserError(f"--input: ids must be text or whole numbers, and the column id has the type {ids.type}")
    counts = pc.value_counts(ids)
    repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    if len(repeated):
        raise UserError(f"--input: ids must be unique, but {repeated[0]} and {len(repeated) - 1} more are not")
    return None if table.column_names == ["id"] else table, ids
