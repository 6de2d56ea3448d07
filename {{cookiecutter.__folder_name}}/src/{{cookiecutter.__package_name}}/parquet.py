"""Parquet files that this process reads itself, from its own disk or from a store.

`pyarrow.dataset`, `read_table` and pandas read in threads of pyarrow's, which let go of a store's files a moment after
the call has returned: a process that ends in this moment aborts (apache/arrow, issue 34314). Here no such thread sees a
file; and a store's files, each of which takes a while to open, are opened many at a time.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import IO, Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from .errors import reason

FILES_AT_ONCE = 16
READ_AHEAD = 4 * 2**20  # bytes of each; s3fs would take 50 MiB


def read_each(paths: Sequence[str], filesystem: Any, read: Callable[[IO[bytes]], Any]) -> list[Any]:
    """What `read` makes of each of the files.

    Args:
        paths: as the file system has them.
        filesystem: of fsspec; None is this machine's.
        read: takes an open file.

    Raises:
        pyarrow.ArrowInvalid: a file, which it names, is no whole Parquet file.
    """
    filesystem = filesystem or fsspec.filesystem("file")

    def read_one(path: str) -> Any:
        with filesystem.open(path, "rb", block_size=READ_AHEAD) as file:
            try:
                return read(file)
            except pa.ArrowInvalid as problem:
                raise pa.ArrowInvalid(f"{path}: {reason(problem)}") from None

    with ThreadPoolExecutor(FILES_AT_ONCE) as threads:
        return list(threads.map(read_one, paths))


def read_tables(paths: Sequence[str], filesystem: Any, columns: list[str] | None = None) -> pa.Table:
    """The rows of all files as one table, in the files' order.

    Args:
        columns: those to read, as far as a file has them; all by default.

    Raises:
        pyarrow.ArrowException: as `read_each`, or a column's types in two files have no type in common.
    """
    tables = read_each(paths, filesystem, partial(read_table, columns=columns))
    return pa.concat_tables(tables, promote_options="permissive")


def first_rows(paths: Sequence[str], filesystem: Any, count: int) -> pa.Table:
    """The first `count` rows of the files, or all, if they are fewer."""
    tables: list[pa.Table] = []
    for path in paths:
        tables += read_each([path], filesystem, partial(_head, count=count))
        count -= len(tables[-1])
        if count == 0:
            break
    return pa.concat_tables(tables, promote_options="permissive")


def read_table(file: IO[bytes], columns: list[str] | None = None) -> pa.Table:
    return _parquet(file).read(columns, use_threads=False)


def is_whole(file: IO[bytes]) -> bool:
    """Whether the file has its footer, which is written last."""
    try:
        _parquet(file)
    except pa.ArrowInvalid:
        return False
    return True


def bytes_in_memory(file: IO[bytes]) -> int:
    """About as many as the table that `read_table` would make of it."""
    metadata = _parquet(file).metadata
    return sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))


def _head(file: IO[bytes], count: int) -> pa.Table:
    parquet = _parquet(file)
    batches = islice(parquet.iter_batches(count, use_threads=False), 1)
    return pa.Table.from_batches(batches, parquet.schema_arrow)


def _parquet(file: IO[bytes]) -> pq.ParquetFile:
    return pq.ParquetFile(file, pre_buffer=False)
