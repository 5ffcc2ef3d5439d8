"""Slices of rows of other assets: each replaces a partition of a table, without changed values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb
from duckdb import DuckDBPyConnection as Connection

from mixpanel_assets.errors import ConfigError, StorageError
from mixpanel_assets.warehouse.faults import first_row, number
from mixpanel_assets.warehouse.schema import DAYS, is_lake, literal, qualified, quoted
from mixpanel_assets.warehouse.tables import table_exists

# Between types of a family, a cast can keep every value; whether it does is checked row by row.
_TYPE_FAMILIES = (
    frozenset({"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL"})
    | {"UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"},
    frozenset({"DATE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"}),
    frozenset({"VARCHAR", "ENUM"}),
)
_NAMED = r'"(?:[^"]|"")*"'
_QUOTED = r"""'(?:[^']|'')*'"""
_LAKE_TYPES = re.compile(rf"{_NAMED}|\bU?HUGEINT\b|\bENUM\({_QUOTED}(?:, {_QUOTED})*\)|\[\d+\]")
_UNKNOWN_IN_LAKE = re.compile(
    r"\b(BIT|UNION|BIGNUM|TIME_NS|TIME WITH TIME ZONE|INTERVAL|VARIANT|GEOMETRY)\b"
)
_STAGED = "temp.main._mixpanel_assets_slice"
_SHOWN_VALUES = 5
_DATE_TEXT = r"\d{4}-\d{2}-\d{2}"
_TIME_TEXT = rf"{_DATE_TEXT}([T ]\d{{2}}:\d{{2}}(:\d{{2}}(\.\d{{1,6}})?)?Z?)?"


@dataclass(frozen=True)
class Partition:
    """One dimension of the partition of a slice, in SQL.

    Attributes:
        expression: SQL over the columns of the table, usually one column.
        condition: SQL that is true for the rows of the partition.
        keys: The partition in words, for messages.
        days: None unless the partition is a time window; then, whether it has whole days.
    """

    expression: str
    condition: str
    keys: str
    days: bool | None = None

    def is_column(self, name: str) -> bool:
        """Return whether the expression is nothing but this column."""
        column = self.expression.strip()
        if column.startswith('"') and column.endswith('"'):
            column = column[1:-1].replace('""', '"')
        return column.lower() == name


def replace_slice(
    connection: Connection,
    source: str,
    *,
    table: str,
    schema: str,
    partitions: Sequence[Partition] = (),
) -> int:
    """Replace the rows of a partition by a relation; return its row count.

    The table is created if it is missing. Columns are matched by name. Types may differ if every
    value is kept: whole numbers fit any wide enough type, dates fit timestamps, NULL fits all. A
    column of the table without a value gets the type of its first values. ISO text in the column
    of a time partition becomes dates or times.

    Args:
        connection: In a transaction that the caller undoes after an error.
        source: A registered relation; it is read once.
        table: The table's name.
        schema: The table's schema.
        partitions: Which rows the slice replaces, by dimension; none: all rows of the table.

    Raises:
        StorageError: Rows are outside the partition, columns are missing or too many, or a value
            would be changed.
        ConfigError: Loads from Mixpanel fill the table, so a slice could remove the only copy.
    """
    _refuse_loaded_table(connection, schema, table)
    target = qualified(schema, table)
    in_partition = " AND ".join(f"({partition.condition})" for partition in partitions) or "true"
    with _stage(connection, source):
        slice_types = _column_types(connection, _STAGED)
        filled = _columns_with_values(connection, slice_types)
        columns = {name: quoted(name) for name in slice_types}
        if is_lake(connection):
            columns |= exact_in_lake(target, slice_types)
            slice_types |= _types_in_lake(target, slice_types)
        for name, kind in _times_from_text(connection, slice_types, filled, partitions).items():
            columns[name], slice_types[name] = f"CAST({quoted(name)} AS {kind})", kind
        if not table_exists(connection, table, schema):
            _create(connection, target, columns)
        stored = _column_types(connection, target)
        _require_same_columns(target, slice_types, stored)
        fitting = {
            name: _exact_column(columns[name], name, kind, stored[name])
            for name, kind in slice_types.items()
        }
        try:
            for name in filled:
                if slice_types[name] != stored[name] and _is_empty_column(connection, target, name):
                    # First of all changes: DuckDB does not commit a table that is altered later.
                    _retype_empty_column(connection, target, name, slice_types[name])
                    fitting[name] = columns[name]
            _check_partitions(connection, target, fitting, partitions)
            connection.execute(f"DELETE FROM {target} WHERE {in_partition}")
            return number(
                connection,
                f"INSERT INTO {target} BY NAME SELECT {_select_list(fitting)} FROM {_STAGED}",
            )
        except (duckdb.InvalidInputException, duckdb.ConversionException) as error:
            problem = str(error).removeprefix("Invalid Input Error: ")
            raise _misfit(target, problem) from error


@contextmanager
def _stage(connection: Connection, source: str) -> Iterator[None]:
    """Copy the rows for the length of the block, because they are read more than once."""
    connection.execute(f"CREATE TEMP TABLE {_STAGED.rpartition('.')[2]} AS FROM {source}")
    yield
    connection.execute(f"DROP TABLE {_STAGED}")


def _refuse_loaded_table(connection: Connection, schema: str, table: str) -> None:
    if not table_exists(connection, DAYS.name):
        return
    if number(
        connection,
        f"SELECT count(*) FROM {DAYS.quoted} "
        "WHERE lower(schema_name) = lower(?) AND lower(table_name) = lower(?)",
        [schema, table],
    ):
        raise ConfigError(
            f"The table {schema}.{table} holds what was loaded from Mixpanel, and rows of another "
            "asset would replace it. Give that asset another key, or empty the table first "
            f"(`mp drop -t {table}`).",
            {"schema": schema, "table": table},
        )


def _create(connection: Connection, target: str, columns: dict[str, str]) -> None:
    names = [name for name, *_ in connection.execute(f"DESCRIBE {_STAGED}").fetchall()]
    selected = ", ".join(f"{columns[name.lower()]} AS {quoted(name)}" for name in names)
    connection.execute(f"CREATE TABLE {target} AS SELECT {selected} FROM {_STAGED} LIMIT 0")


def _column_types(connection: Connection, relation: str) -> dict[str, str]:
    """Return the type of each column by its name in lower case, as DuckDB ignores case."""
    described = connection.execute(f"DESCRIBE {relation}").fetchall()
    return {name.lower(): kind for name, kind, *_ in described}


def _types_in_lake(target: str, slice_types: dict[str, str]) -> dict[str, str]:
    """Return other types for columns whose types a lake would not keep exactly.

    Raises:
        StorageError: No type of a lake keeps the values of a column.
    """
    # It writes HUGEINT as a double, TIME WITH TIME ZONE in UTC and an interval in milliseconds, and
    # DuckDB 1.5 ends the process if it writes TIME_NS.
    kinds = {name: _LAKE_TYPES.sub(_type_in_lake, kind) for name, kind in slice_types.items()}
    unknown = [name for name, kind in kinds.items() if _UNKNOWN_IN_LAKE.search(_bare(kind))]
    if unknown:
        faults = ", ".join(f"{name!r} is {slice_types[name]}" for name in unknown)
        raise StorageError(
            f"A lake has no type that keeps these columns of {target}: {faults}. Make text of them "
            "(`::VARCHAR`, in pandas `.astype(str)`). Nothing was stored."
        )
    return {name: kind for name, kind in kinds.items() if kind != slice_types[name]}


def exact_in_lake(target: str, kinds: dict[str, str]) -> dict[str, str]:
    """Return the SQL of the columns that a lake keeps in another type; see `_types_in_lake`."""
    changed = _types_in_lake(target, kinds)
    return {
        name: _converted(quoted(name), name, kinds[name], kind) for name, kind in changed.items()
    }


def _converted(column: str, name: str, offered: str, kind: str) -> str:
    """Return the SQL of a column in another type, which fails on a value that it changes."""
    problem = literal(f"{name!r} is {offered}, and a lake keeps it as {kind}, which has no room.")
    cast = f"try_cast({column} AS {kind})"
    fits = f"try_cast({cast} AS {offered}) IS NOT DISTINCT FROM {column}"
    return f"CASE WHEN {fits} THEN {cast} ELSE error({problem}) END"


def refuse_wide_integers(connection: Connection) -> None:
    """Raise `StorageError` if a table of a lake has a HUGEINT, which it writes as a double."""
    if not is_lake(connection):
        return
    found = connection.execute(
        "SELECT schema_name || '.' || table_name, column_name FROM duckdb_columns() "
        "WHERE database_name = current_database() AND data_type LIKE '%HUGEINT%' LIMIT 1"
    ).fetchall()
    for table, column in found:
        raise StorageError(
            f"A lake would change long integers of {table}.{column}, which is a HUGEINT, as a sum "
            f"of integers is. Cast it: `{quoted(column)}::DECIMAL(38, 0)`. Nothing was stored."
        )


def _type_in_lake(kind: re.Match[str]) -> str:
    if kind[0].startswith('"'):  # the name of a field
        return kind[0]
    if kind[0].startswith("ENUM"):
        return "VARCHAR"
    return "DECIMAL(38,0)" if kind[0].endswith("INT") else "[]"


def _bare(kind: str) -> str:
    """Return a type without the names of its fields."""
    return re.sub(_NAMED, "", kind)


def _columns_with_values(connection: Connection, slice_types: dict[str, str]) -> list[str]:
    counts = ", ".join(f"count({quoted(name)}) > 0" for name in slice_types)
    filled = first_row(connection, f"SELECT {counts} FROM {_STAGED}") or ()
    return [name for name, has_values in zip(slice_types, filled, strict=True) if has_values]


def _times_from_text(
    connection: Connection,
    slice_types: dict[str, str],
    filled_columns: Sequence[str],
    partitions: Sequence[Partition],
) -> dict[str, str]:
    """Return the type of time partition columns that hold text or nothing."""
    # Compared as text, '2024-01-03' is before '2024-01-03 00:00:00': the next run would not find
    # the rows and store them a second time.
    column_types = {}
    for partition in partitions:
        for name, column_type in slice_types.items():
            if partition.days is None or not partition.is_column(name):
                continue
            if name not in filled_columns:
                column_types[name] = "DATE" if partition.days else "TIMESTAMP"
            elif column_type == "VARCHAR":
                column_types[name] = _type_of_text_column(connection, name)
    return column_types


def _type_of_text_column(connection: Connection, name: str) -> str:
    column = quoted(name)
    for column_type, pattern in (("DATE", _DATE_TEXT), ("TIMESTAMP", _TIME_TEXT)):
        # Compared as text, because DuckDB's casts ignore a superfluous time of day or offset.
        fits = (
            f"{column} IS NULL OR regexp_full_match({column}, {literal(pattern)}) "
            f"AND try_cast({column} AS {column_type}) IS NOT NULL"
        )
        other_values = connection.execute(
            f"SELECT DISTINCT {column} FROM {_STAGED} WHERE NOT ({fits}) LIMIT {_SHOWN_VALUES}"
        ).fetchall()
        if not other_values:
            return column_type
    raise StorageError(
        f"The partition column {name!r} is text that is not a date or a time (such as 2024-01-31 "
        f"or 2024-01-31T23:59:59): {_value_list(other_values)}. Nothing was stored."
    )


def _check_partitions(
    connection: Connection, target: str, columns: dict[str, str], partitions: Sequence[Partition]
) -> None:
    """Refuse rows that the next run of the same partition would not replace."""
    for partition in partitions:
        rows = f"(SELECT {_select_list(columns)} FROM {_STAGED})"
        outside = f"FROM {rows} WHERE ({partition.condition}) IS NOT TRUE"
        try:
            count = number(connection, f"SELECT count(*) {outside}")
        except (duckdb.BinderException, duckdb.ParserException, duckdb.CatalogException) as error:
            raise StorageError(
                f"The rows for {target} cannot be distinguished by their partition. "
                f"`partition_expr` is {partition.expression!r}, the columns are "
                f"{', '.join(columns)} ({str(error).splitlines()[0]}). Name a column, or SQL over "
                "columns, that says which partition a row belongs to. Nothing was stored."
            ) from error
        if count:
            found = connection.execute(
                f"SELECT DISTINCT ({partition.expression})::VARCHAR {outside} "
                f"ORDER BY 1 LIMIT {_SHOWN_VALUES}"
            ).fetchall()
            raise StorageError(
                f"{count:,} rows for {target} are outside of the partition {partition.keys}: "
                f"{partition.expression} is {_value_list(found)}. Running the partition again "
                "would not replace them. Return the rows of the partition alone. Nothing was "
                "stored."
            )


def _retype_empty_column(connection: Connection, target: str, name: str, kind: str) -> None:
    if not is_lake(connection):
        connection.execute(f"ALTER TABLE {target} ALTER {quoted(name)} TYPE {kind} USING NULL")
        return
    # A lake changes no type that has values of another kind, so the column becomes the last one.
    spelled = {one.lower(): one for one, *_ in connection.execute(f"DESCRIBE {target}").fetchall()}
    connection.execute(f"ALTER TABLE {target} DROP COLUMN {quoted(name)}")
    connection.execute(f"ALTER TABLE {target} ADD COLUMN {quoted(spelled[name])} {kind}")


def _is_empty_column(connection: Connection, target: str, name: str) -> bool:
    return not number(connection, f"SELECT count({quoted(name)}) FROM {target}")


def _select_list(columns: dict[str, str]) -> str:
    return ", ".join(f"{expression} AS {quoted(name)}" for name, expression in columns.items())


def _require_same_columns(target: str, offered: dict[str, str], stored: dict[str, str]) -> None:
    faults = [f"it lacks {name!r} ({stored[name]})." for name in stored if name not in offered]
    faults += [
        f"the table has no {name!r} ({offered[name]})." for name in offered if name not in stored
    ]
    if faults:
        raise _misfit(target, " ".join(faults))


def _exact_column(column: str, name: str, offered: str, stored: str) -> str:
    """Return the SQL that casts a column and fails on the first value that would be changed."""
    if offered == stored:
        return column
    cast = f"try_cast({column} AS {stored})"
    fits = f"{column} IS NULL"
    if _type_family(offered) and _type_family(offered) == _type_family(stored):
        fits = f"try_cast({cast} AS {offered}) IS NOT DISTINCT FROM {column}"
    problem = literal(f"{name!r} is {stored} there and {offered} here, which changes a value.")
    return f"CASE WHEN {fits} THEN {cast} ELSE error({problem}) END"


def _type_family(column_type: str) -> frozenset[str] | None:
    type_name = column_type.partition("(")[0]
    return next((family for family in _TYPE_FAMILIES if type_name in family), None)


def _value_list(rows: Sequence[tuple[str | None]]) -> str:
    texts = ["NULL" if value is None else repr(value) for (value,) in rows]
    return ", ".join(texts) + (" ..." if len(texts) == _SHOWN_VALUES else "")


def _misfit(target: str, problem: str) -> StorageError:
    return StorageError(
        f"The slice does not fit the table {target}, which was not changed: {problem} "
        "Give it the table's columns and types, or drop the table first."
    )
