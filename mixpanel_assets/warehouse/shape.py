"""Whether our tables in a file are as they were made, or were changed by hand or are another's.

A load replaces rows by the columns that it knows: it would lose the values of a column that was
added, and fail half-way for one that is gone. So a file with such tables is refused before that.
"""

from __future__ import annotations

from collections.abc import Iterator

import duckdb

from mixpanel_assets.errors import StorageError
from mixpanel_assets.warehouse.schema import (
    BY_NAME,
    DAYS,
    METADATA,
    PROJECT,
    SCHEMA,
    TABLES,
    VIEWS,
    Table,
    is_metadata_view,
    literal,
    quoted,
)

_SHOWN = 3
_MARKS = {"schema_name", "table_name", "day", "status", "duplicates_removed", "shifted_rows"}

# The types of columns by name, and these of tables by name.
Columns = dict[str, str]
Tables = dict[str, Columns]

_OUR_TABLES = " UNION ALL ".join(
    f"SELECT {literal(table.name)}, name, type FROM pragma_table_info({literal(table.quoted)})"
    for table in TABLES
)
_ALL_TABLES = (
    "SELECT table_name, column_name, data_type FROM duckdb_columns() "
    f"WHERE database_name = current_database() AND schema_name = {literal(SCHEMA)}"
)


def tables_of(connection: duckdb.DuckDBPyConnection) -> Tables:
    """Return the columns of our tables in a file, or of all that is in our schema."""
    try:  # The first scan of a connection's catalog takes 7 ms, which small loads would feel.
        found = connection.execute(_OUR_TABLES).fetchall()
    except duckdb.CatalogException:  # A table is missing: is the file new, old or another's?
        found = connection.execute(_ALL_TABLES).fetchall()
    tables: Tables = {}
    for table, column, kind in found:
        tables.setdefault(table, {})[column] = kind
    return tables


def columns_of(connection: duckdb.DuckDBPyConnection, table: Table) -> Columns:
    """Return the columns that a table of ours has in a file, with their types."""
    try:
        return dict(
            connection.execute(
                f"SELECT name, type FROM pragma_table_info({literal(table.quoted)})"
            ).fetchall()
        )
    except duckdb.CatalogException:
        return {}


def is_ours(there: Tables) -> bool:
    """Return whether a file has our tables; False when nothing in it has their names.

    Raises:
        StorageError: Another program's tables have their names.
    """
    if has_marks(there):
        return True
    if taken := sorted({*BY_NAME, *VIEWS} & there.keys()):
        names = ", ".join(f"{SCHEMA}.{name}" for name in taken)
        raise StorageError(
            "This database has tables under names that mixpanel-assets uses, but it did not make "
            f"them: {names}. Set MP_DATABASE to another file, or rename them: "
            f"`ALTER TABLE {SCHEMA}.{quoted(taken[0])} RENAME TO ...`",
            {"tables": taken},
        )
    return False


def has_marks(there: Tables) -> bool:
    """Return whether a file has our project table or our ledger, whatever became of the rest."""
    return PROJECT.name in there or there.get(DAYS.name, {}).keys() >= _MARKS


def must_be_unchanged(there: Tables, version: int) -> None:
    """See that our tables are as a version made them.

    Raises:
        StorageError: They were changed by hand; the message says what and how to go on.
    """
    if changes := changes_by_hand(there, version):
        more = f" ({len(changes) - _SHOWN} more)" if len(changes) > _SHOWN else ""
        raise StorageError(
            "Tables of mixpanel-assets were changed by hand, and a load would lose or garble rows: "
            f"{'; '.join(changes[:_SHOWN])}{more}. Undo that. Or move the database and its .wal "
            "file away, and copy a backup or the snapshot to its place.",
            {"changes": changes},
        )


def changes_by_hand(there: Tables, version: int) -> list[str]:
    """Return, in words, how our tables differ from those that a version made."""
    return [
        change
        for table in TABLES
        if table.since <= version
        for change in _changes(table, there.get(table.name), version)
    ]


def _changes(table: Table, there: Columns | None, version: int) -> Iterator[str]:
    name = f"{table.schema}.{table.name}"
    if there is None:
        yield f"{name} is missing, or was renamed"
        return
    made = {column.name: column.type for column in table.columns if column.since <= version}
    added = {column: kind for column, kind in there.items() if column not in made}
    for column, kind in made.items():
        if column in there:
            if there[column] != kind:
                to = f"ALTER TABLE {name} ALTER {quoted(column)} TYPE {kind}"
                yield f"{name}.{column} is {there[column]}, not {kind} (`{to}`)"
            continue
        alike = [other for other in added if added[other] == kind]
        if len(alike) == 1:
            to = f"ALTER TABLE {name} RENAME COLUMN {quoted(alike[0])} TO {quoted(column)}"
            yield f"{name} has {alike[0]} instead of {column} (`{to}`)"
            added.pop(alike[0])
        else:
            yield f"{name} has no column {column} ({kind})"
    for column in added:
        to = f"ALTER TABLE {name} DROP COLUMN {quoted(column)}"
        yield f"{name} has one more column, {column} (`{to}`, once its values are elsewhere)"


def rules_by_hand(
    connection: duckdb.DuckDBPyConnection, error: duckdb.ConstraintException
) -> list[str]:
    """Return the indexes and constraints of the kind that refused rows; this package makes none."""
    kind = next(kind for kind in ("NOT NULL", "CHECK", "FOREIGN KEY", "") if kind in str(error))
    kinds = [kind] if kind else ["PRIMARY KEY", "UNIQUE"]
    rules = connection.execute(
        "SELECT format('{} on {}.{}', constraint_text, schema_name, table_name) "
        "FROM duckdb_constraints() WHERE database_name = current_database() "
        "AND constraint_type IN (SELECT unnest($kinds)) UNION ALL "
        "SELECT format('unique index {1} on {0}.{2} (`DROP INDEX {0}.{1}`)', schema_name, "
        "index_name, table_name) FROM duckdb_indexes() "
        "WHERE database_name = current_database() AND is_unique AND 'UNIQUE' IN "
        "(SELECT unnest($kinds)) ORDER BY ALL",
        {"kinds": kinds},
    ).fetchall()
    return list(dict.fromkeys(text for (text,) in rules))


def hidden_by_others(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Return, in sentences, which tables of others stand before ours in queries."""
    found = connection.execute(
        "SELECT table_name, NULL AS sql FROM duckdb_tables() "
        "WHERE database_name = current_database() AND schema_name = 'main' UNION "
        "SELECT view_name, sql FROM duckdb_views() "
        "WHERE database_name = current_database() AND schema_name = 'main' ORDER BY ALL"
    ).fetchall()
    said = [
        f"main.{name} hides {SCHEMA}.{name} in queries that name no schema: "
        f"write {SCHEMA}.{name}, or rename the other table."
        for name, _ in found
        if name.lower() in {*BY_NAME, *VIEWS} - {METADATA}
    ]
    if any(name == METADATA and not is_metadata_view(sql) for name, sql in found):
        said.append(
            f"main.{METADATA} was there before, so the view of that name is not made: "
            f"{DAYS.schema}.{DAYS.name} says what is stored."
        )
    return said
