"""Parquet files and Arrow tables as tables of typed columns."""

from __future__ import annotations

from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, missing_package
from .columns import Column, Table, Wanted, check_names, days, wanted
from .idx import open_file

_ROWS = 1 << 16  # rows decoded at a time


def read_parquet(path: Path, *, text: Container[str], only: Wanted, skip: Container[str]) -> Table:
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
            return _assemble(str(path), schema, batches, n, text, only, skip)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: damaged or unreadable Parquet file ({error})") from error


def from_arrow(data: Any, source: str, *, text: Container[str], only: Wanted, skip: Container[str]) -> Table:
    """Return the table of a `pyarrow.Table`; see `xpnet.data.table_sources.from_columns`."""
    return _assemble(source, data.schema, data.to_batches(), data.num_rows, text, only, skip)


def _assemble(
    source: str, schema: Any, batches: Iterable[Any], n: int, text: Container[str], only: Wanted,
    skip: Container[str],
) -> Table:  # fmt: skip
    names = check_names(source, schema.names)
    builders = {
        name: _Builder(source, name, schema.field(name).type) for name in names if wanted(name, only, skip)
    }
    for batch in batches:
        for name, builder in builders.items():
            builder.add(batch.column(name))
    columns = {}
    for name, builder in builders.items():
        found = builder.finish()
        columns[name] = Column(name, "text", *found.as_texts()) if name in text else found
    return Table(source, columns, tuple(names), n, "row", 1)


class _Builder:
    """Collects one column batch by batch."""

    def __init__(self, source: str, name: str, kind: Any):
        from pyarrow import types

        self.name, self._known = name, {}  # type: ignore[var-annotated]
        self._pieces: list[np.ndarray] = []
        value = kind.value_type if types.is_dictionary(kind) else kind
        if types.is_boolean(value):
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
        table = [
            -1 if text is None or not text.strip() else self._known.setdefault(text.strip(), len(self._known))
            for text in values.dictionary.to_pylist()
        ]
        indices = values.indices.fill_null(len(table)).to_numpy(zero_copy_only=False)
        return np.array([*table, -1], dtype=np.int64)[indices]

    def finish(self) -> Column:
        values = np.concatenate(self._pieces) if self._pieces else np.empty(0)
        if self.kind == "text":
            return Column(self.name, "text", values.astype(np.int64, copy=False), tuple(self._known))
        return Column(self.name, self.kind, values)
