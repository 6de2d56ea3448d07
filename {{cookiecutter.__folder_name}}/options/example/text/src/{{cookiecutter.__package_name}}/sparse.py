"""Sparse features between SciPy, Parquet and torch, without a dense copy: in the layout of Spark's SparseVector.

Modin stops here, as it has no sparse columns. In Parquet, a vector is a struct of type (0: sparse), size, indices and
values, and the file says that it is one of Spark's, so that PySpark reads vectors and not structs.
Source: org.apache.spark.ml.linalg.VectorUDT.
"""

import json

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_matrix

SIZE = 2**16  # of a vector
VECTOR = pa.struct(
    [("type", pa.int8()), ("size", pa.int32()), ("indices", pa.list_(pa.int32())), ("values", pa.list_(pa.float64()))]
)
SPARK = b"org.apache.spark.sql.parquet.row.metadata"  # where Spark looks for the types of a Parquet file's columns


def to_vectors(matrix: csr_matrix) -> pa.StructArray:
    """A column of vectors, one a row of `matrix`, whose values become float64, as Spark's are."""
    rows, size = matrix.shape
    offsets = pa.array(matrix.indptr, pa.int32())
    children = [
        pa.array(np.zeros(rows, np.int8)),
        pa.array(np.full(rows, size, np.int32)),
        pa.ListArray.from_arrays(offsets, pa.array(matrix.indices, pa.int32())),
        pa.ListArray.from_arrays(offsets, pa.array(matrix.data, pa.float64())),
    ]
    return pa.StructArray.from_arrays(children, fields=list(VECTOR))


def from_vectors(column: pa.ChunkedArray | pa.StructArray) -> csr_matrix:
    """A float64 matrix with the column's vectors as its rows, on the column's own memory.

    Raises:
        ValueError: a vector is missing, or the vectors differ in size.
    """
    vectors = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if vectors.null_count:
        raise ValueError(f"{vectors.null_count} vectors are missing")
    _, sizes, indices, values = vectors.flatten()
    size = sizes[0].as_py() if len(sizes) else 0
    if not (np.asarray(sizes) == size).all():
        raise ValueError("the vectors differ in size")
    offsets = np.asarray(indices.offsets)
    return csr_matrix(
        (np.asarray(values.flatten()), np.asarray(indices.flatten()), offsets - offsets[0]), (len(sizes), size)
    )


def spark_schema(schema: pa.Schema, vectors: str) -> pa.Schema:
    """The schema, with the word to Spark that its column `vectors` holds vectors, and its others strings or numbers."""
    names = {pa.string(): "string", pa.int64(): "long", pa.float64(): "double"}
    kinds = {field.name: _VECTOR_UDT if field.name == vectors else names[field.type] for field in schema}
    fields = [_spark_field(name, kind, nullable=True) for name, kind in kinds.items()]
    return schema.with_metadata({SPARK: json.dumps({"type": "struct", "fields": fields}).encode()})


def _spark_field(name: str, kind: object, nullable: bool) -> dict[str, object]:
    return {"name": name, "type": kind, "nullable": nullable, "metadata": {}}


_VECTOR_UDT = {
    "type": "udt",
    "class": "org.apache.spark.ml.linalg.VectorUDT",
    "pyClass": "pyspark.ml.linalg.VectorUDT",
    "sqlType": {
        "type": "struct",
        "fields": [
            _spark_field("type", "byte", nullable=False),
            _spark_field("size", "integer", nullable=True),
            _spark_field("indices", {"type": "array", "elementType": "integer", "containsNull": False}, nullable=True),
            _spark_field("values", {"type": "array", "elementType": "double", "containsNull": False}, nullable=True),
        ],
    },
}
