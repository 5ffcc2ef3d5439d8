"""SQL macros that read one property by its name, whatever characters the name has.

All of Mixpanel's default properties begin with `$`, which DuckDB takes for the start of a JSON
path: `properties->>'$browser'` is an error. A JSON pointer takes every name.
"""

from __future__ import annotations

import re

import duckdb

_OURS = "mixpanel_assets: "  # how the comment on a macro of ours begins
_POINTER = "'/' || replace(replace(name, '~', '~0'), '/', '~1')"
_JSON = f"json_extract(properties, {_POINTER})"
_TEXT = f"json_extract_string(properties, {_POINTER})"
_IS_NUMBER = f"json_type({_JSON}) IN ('BIGINT', 'UBIGINT', 'HUGEINT', 'UHUGEINT', 'DOUBLE')"

# Seconds up to the year 5138 are smaller than this, milliseconds from 1973 on larger.
_MILLISECONDS_FROM = 100_000_000_000
_LAST_MS = 253_402_300_799_999  # the end of the year 9999
_CLOCK = r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}([.,]\d+)?)?"
_LOCAL = rf"\d{{4}}-\d{{2}}-\d{{2}}|{_CLOCK}"
_WITH_OFFSET = rf"({_CLOCK}) ?(Z|[+-]\d{{2}}(:?\d{{2}})?)"


def _epoch(number: str) -> str:
    """Return the SQL that reads seconds or milliseconds since 1970 as a timestamp."""
    ms = f"CASE WHEN abs({number}) < {_MILLISECONDS_FROM} THEN {number} * 1000 ELSE {number} END"
    return (
        f"CASE WHEN abs({number}) <= {_LAST_MS} THEN make_timestamp(round(({ms}) * 1000)::BIGINT) "
        "END"
    )


def _offset_with_colon(text: str) -> str:
    text = rf"regexp_replace({text}, '([+-]\d{{2}})(\d{{2}})$', '\1:\2')"
    return rf"regexp_replace({text}, ' (Z|[+-][^ ]*)$', '\1')"


# Through the epoch, as neither the session's time zone nor an extension may have a say.
_TIME = f"""
    CASE WHEN {_IS_NUMBER} OR regexp_full_match({_TEXT}, '\\d{{10}}|\\d{{13}}')
         THEN {_epoch(f"try_cast({_TEXT} AS DOUBLE)")}
         WHEN regexp_full_match({_TEXT}, '{_LOCAL}')
         THEN try_cast(replace({_TEXT}, ',', '.') AS TIMESTAMP)
         WHEN regexp_full_match({_TEXT}, '{_WITH_OFFSET}')
         THEN make_timestamp(epoch_us(try_cast(
             {_offset_with_colon(f"replace({_TEXT}, ',', '.')")} AS TIMESTAMPTZ
         ))) END
"""

MACROS = {
    "prop": (_TEXT, "A property as text; NULL when absent or null."),
    "prop_number": (
        f"CASE WHEN isfinite(try_cast({_TEXT} AS DOUBLE)) AND {_TEXT} NOT IN ('true', 'false') "
        f"THEN try_cast({_TEXT} AS DOUBLE) END",
        "A property as a double, also one sent as text; NULL when it is not a number.",
    ),
    "prop_time": (
        _TIME,
        "A property as a timestamp in UTC: ISO text (UTC unless it has an offset), or seconds or "
        "milliseconds since 1970; NULL when it is not a time.",
    ),
    "prop_json": (_JSON, "A property as JSON, as a list or an object; NULL when absent."),
}


def create_macros(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the macros in schema `mixpanel`; one of the same name that is not ours is kept."""
    for name, (body, meaning) in MACROS.items():
        macro = f"mixpanel.{name}"
        definition = f"MACRO {macro}(properties, name) AS {body}"
        try:
            connection.execute(f"CREATE {definition}")
        except duckdb.CatalogException:  # There is one. Asking first takes 25 ms of each new file.
            if not _is_ours(connection, name):
                continue
            connection.execute(f"CREATE OR REPLACE {definition}")
        connection.execute(f"COMMENT ON MACRO {macro} IS '{_OURS}{meaning}'")


def _is_ours(connection: duckdb.DuckDBPyConnection, name: str) -> bool:
    found = connection.execute(
        "SELECT comment FROM duckdb_functions() WHERE database_name = current_database() "
        "AND schema_name = 'mixpanel' AND function_type IN ('macro', 'table_macro') "
        "AND function_name = ?",
        [name],
    ).fetchall()
    return all((comment or "").startswith(_OURS) for (comment,) in found)


def spelling(name: str) -> str:
    """Return the SQL that reads a property as text."""
    return f"mixpanel.prop(properties, {_literal(name)})"


def spelling_for(said: str) -> str:
    """Return what to write instead when DuckDB refused a property's name as a JSON path.

    Args:
        said: DuckDB's words.

    Returns:
        A sentence; empty when the error is another one.
    """
    near = re.search(r"JSON path error near '([^\[.*\s].*)'", said, re.DOTALL)
    if not near:
        return ""
    name = f"${near[1]}"
    path = '$."' + name.replace('"', '\\"') + '"'
    return (
        "DuckDB reads a name that begins with $ as a JSON path. Write "
        f"`{spelling(name)}` or `properties->>{_literal(path)}`."
    )


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
