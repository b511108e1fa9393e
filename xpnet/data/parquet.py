"""Parquet files and Arrow tables as tables of typed columns."""

from __future__ import annotations

from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, missing_package
from .columns import Column, Table, Wanted, check_names, days, typed, wanted, with_numbers
from .idx import open_file
from .spelling import Spelling

_ROWS = 1 << 16  # rows decoded at a time


def read_parquet(
    path: Path, *, text: Container[str], only: Wanted, skip: Container[str], spelling: Spelling
) -> Table:
    """Read a Parquet file; see `xpnet.data.table_sources.read_table`."""
    with open_file(path, unpack=False) as (stream, _):
        magic = stream.read(4)
    if magic != b"PAR1":
        raise DataError(f"{path}: not a Parquet file (it starts with bytes {magic.hex(' ')})")
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise missing_package(
            f"{path}: Parquet files (others are CSV) need pyarrow", "tabular", error
        ) from error
    try:
        with pq.ParquetFile(path) as file:
            schema, n = file.schema_arrow, file.metadata.num_rows
            names = [name for name in schema.names if wanted(name, only, skip)]
            batches = file.iter_batches(_ROWS, columns=names)
            return _assemble(str(path), schema, batches, n, text, only, skip, spelling)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: damaged or unreadable Parquet file ({error})") from error


def from_arrow(
    data: Any, source: str, *, text: Container[str], only: Wanted, skip: Container[str], spelling: Spelling
) -> Table:
    """Return the table of a `pyarrow.Table`; see `xpnet.data.table_sources.from_columns`."""
    return _assemble(source, data.schema, data.to_batches(), data.num_rows, text, only, skip, spelling)


def _assemble(
    source: str, schema: Any, batches: Iterable[Any], n: int, text: Container[str], only: Wanted,
    skip: Container[str], spelling: Spelling,
) -> Table:  # fmt: skip
    names = check_names(source, schema.names)
    # pandas' categories of numbers, whose type Parquet does not keep
    said = (schema.pandas_metadata or {}).get("columns", [])
    declared = {column["field_name"] for column in said if column["pandas_type"] == "categorical"}
    builders = {
        name: _Builder(source, name, schema.field(name).type, name in text or name in declared)
        for name in names
        if wanted(name, only, skip)
    }
    for batch in batches:
        for name, builder in builders.items():
            builder.add(batch.column(name))
    kept = {name for name, builder in builders.items() if builder.kept}
    columns = {}
    for name, builder in builders.items():
        found = builder.finish()
        if found.kind == "text" and name not in kept:
            found = typed(name, found.values, found.texts, spelling.without_value)
        columns[name] = found.as_categories() if name in kept else found
    decimal = spelling.decimal or spelling.likely
    return with_numbers(Table(source, columns, tuple(names), n, "row", 1, decimal=decimal), kept, spelling)


class _Builder:
    """Collects one column batch by batch."""

    def __init__(self, source: str, name: str, kind: Any, as_text: bool):
        from pyarrow import types

        self.name, self._known = name, {}  # type: ignore[var-annotated]
        self._pieces: list[np.ndarray] = []
        declared = types.is_dictionary(kind)  # categories, whatever they look like
        value = kind.value_type if declared else kind
        #: Whether it stays text.
        self.kept = as_text or declared
        if self.kept and types.is_integer(value):
            self.kind = "text"  # float64 would make one of whole numbers beyond 2^53
        elif types.is_boolean(value):
            self.kind = "boolean"
        elif (
            types.is_integer(value)
            or types.is_floating(value)
            or types.is_decimal(value)
            or types.is_null(value)
        ):
            self.kind = "number"
        elif types.is_timestamp(value) or types.is_date(value):
            self.kind = "date"
        elif types.is_string(value) or types.is_large_string(value) or types.is_string_view(value):
            self.kind = "text"
        else:
            raise DataError(
                f"{source}: column {name!r} holds {kind}, expected numbers, booleans, dates or texts; "
                f"leave it out with --ignore {name!r}"
            )

    def add(self, values: Any) -> None:
        import pyarrow as pa

        if pa.types.is_dictionary(values.type) and self.kind != "text":
            values = values.dictionary_decode()
        if self.kind == "text":
            self._pieces.append(self._codes(values))
        elif self.kind == "date":
            stamps = values.cast(pa.timestamp("us"), safe=False)  # a time zone is only how it is shown
            self._pieces.append(days(stamps.to_numpy(zero_copy_only=False).astype("datetime64[us]")))
        else:
            steps = [pa.int8(), pa.float64()] if self.kind == "boolean" else [pa.float64()]
            for step in steps:
                values = values.cast(step, safe=False)
            self._pieces.append(values.to_numpy(zero_copy_only=False).astype(np.float64, copy=False))

    def _codes(self, values: Any) -> np.ndarray:
        import pyarrow as pa

        if not pa.types.is_dictionary(values.type):
            values = values.dictionary_encode()
        texts = ["" if value is None else str(value).strip() for value in values.dictionary.to_pylist()]
        table = [self._known.setdefault(text, len(self._known)) if text else -1 for text in texts]
        indices = values.indices.fill_null(len(table)).to_numpy(zero_copy_only=False)
        return np.array([*table, -1], dtype=np.int64)[indices]

    def finish(self) -> Column:
        values = np.concatenate(self._pieces) if self._pieces else np.empty(0)
        if self.kind == "text":
            return Column(self.name, "text", values.astype(np.int64, copy=False), tuple(self._known))
        return Column(self.name, self.kind, values)
