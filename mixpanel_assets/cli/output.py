r"""Answers on stdout, in the form that --format names.

Only data goes to stdout. `invocation` prints notes and errors. JSON gives back every value
exactly. The other forms show characters that control a terminal as escapes such as `\x1b`. CSV
that goes into a file or a pipe keeps marks such as U+200E, because they belong to the text.
"""

from __future__ import annotations

import csv
import json
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from mixpanel_assets.cli.exits import InvalidArgumentsError
from mixpanel_assets.errors import escaped_json, visible, without_controls

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from mixpanel_assets.results import SQLResult

Record = Mapping[str, Any]


class Format(StrEnum):
    """What --format takes."""

    JSON = "json"
    JSONL = "jsonl"
    TABLE = "table"
    CSV = "csv"
    PLAIN = "plain"


@dataclass(frozen=True)
class Answer:
    """What a command returns to be printed.

    Attributes:
        value: A result of the library, a record, a list of either or of values, or a single value.
        text: Lines and tables for people. They are printed unless --format or --jq is given.
        rows: Printed instead of `value` by the forms that have columns.
        column: Column name of a list of values.
        error: Raised after printing, because the value is not all that the command was to do.
    """

    value: object
    text: Sequence[str | Table | Text] | None = None
    rows: Sequence[Record] | None = None
    column: str | None = None
    error: Exception | None = None


_JSON_FORMS = (Format.JSON, Format.JSONL)


def check_jq(program: str | None, output: Format) -> None:
    """Refuse a jq program that cannot run; called before any request is sent."""
    if program is None:
        return
    if output not in _JSON_FORMS:
        raise InvalidArgumentsError(f"--jq needs --format json or jsonl, not {output}.")
    _run_jq(program)


def print_answer(answer: Answer, output: Format | None = None, jq: str | None = None) -> None:
    """Print an answer: its text for people, or its value in a form.

    JSON is a result's `to_dict()`, an array for lists and rows of SQL, or the single value. JSON
    Lines has a line for each item of an array. The other forms have columns: those of a result,
    else all keys in the order of their first occurrence. There, missing values and null are
    empty, and nested values are JSON.

    A jq program receives the array for `json`, and each record for `jsonl`. Its results are JSON;
    it rounds integers beyond 2^53. Two columns of an SQL answer must not have the same name.
    """
    if answer.text is not None and output is None and jq is None:
        _print_text(answer.text)
        return
    output = output or Format.JSON
    check_jq(jq, output)
    if output is Format.JSON:
        _print_json([_json_value(answer.value)], jq, indent=2)
    elif output is Format.JSONL:
        value = _json_value(answer.value)
        _print_json(value if isinstance(value, list) else [value], jq, indent=None)
    else:
        _print_grid(_grid(answer), output)


def _json_value(value: Any) -> object:
    """Return a result as a mapping, several values as a list, a single value as it is."""
    from mixpanel_assets.results import SQLResult

    if isinstance(value, SQLResult):
        return _sql_records(value)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [one.to_dict() if hasattr(one, "to_dict") else one for one in value]
    return value.to_dict() if hasattr(value, "to_dict") else value


class _Grid(NamedTuple):
    """Records with the names of their columns; `is_single` for one record that is no row."""

    records: Sequence[Record]
    columns: Sequence[str]
    is_single: bool = False


def _grid(answer: Answer) -> _Grid:
    from mixpanel_assets.results import ResultWithDataFrame, SQLResult

    if isinstance(answer.value, SQLResult):
        return _Grid(_sql_records(answer.value), answer.value.columns)
    if isinstance(answer.value, ResultWithDataFrame):
        return _Grid(answer.value.to_table_dict(), answer.value.column_names())
    value = _json_value(answer.value if answer.rows is None else answer.rows)
    if isinstance(value, Mapping):
        return _Grid([value], list(value), is_single=True)
    records: list[Any] = value if isinstance(value, list) else [value]
    if answer.column is None and all(isinstance(one, Mapping) for one in records):
        return _Grid(records, list(dict.fromkeys(name for one in records for name in one)))
    column = answer.column or "value"
    return _Grid([{column: one} for one in records], [column])


def _sql_records(answer: SQLResult) -> list[Record]:
    duplicates = {name for name in answer.columns if answer.columns.count(name) > 1}
    if duplicates:
        raise InvalidArgumentsError(
            f"Two columns of the result are called {min(duplicates)!r}. "
            "Give them different names with AS."
        )
    return [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]


def _print_text(text: Iterable[str | Table | Text]) -> None:
    from rich.console import Console

    for part in text:
        if isinstance(part, str):
            print_line(part)
        else:
            Console(file=sys.stdout, highlight=False).print(part)


def _print_grid(grid: _Grid, output: Format) -> None:
    if not grid.columns:
        return
    rows = [[record.get(name) for name in grid.columns] for record in grid.records]
    if output is Format.CSV:
        escape = visible if sys.stdout.isatty() else without_controls
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(map(escape, grid.columns))
        writer.writerows([escape(_cell_text(value)) for value in row] for row in rows)
    elif output is Format.PLAIN:
        for row in rows:
            _write("\t".join(printable(_cell_text(value)) for value in row))
    else:
        _print_table(grid.columns, rows, is_single=grid.is_single)


def _print_json(values: Iterable[object], jq: str | None, indent: int | None) -> None:
    for value in values:
        json_value = as_plain(value)
        for result in [json_value] if jq is None else _run_jq(jq, json_value):
            text = escaped_json(json.dumps(result, indent=indent, ensure_ascii=False))
            try:
                text.encode(sys.stdout.encoding or "utf-8")
            except UnicodeEncodeError:  # a terminal without Unicode
                text = escaped_json(json.dumps(result, indent=indent))
            _write(text)


def _run_jq(program: str, *inputs: object) -> list[Any]:
    """Return the results for each input; without one, the program is only compiled."""
    import jq

    try:
        compiled = jq.compile(program)
        return [result for one in inputs for result in compiled.input_text(json.dumps(one))]
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise InvalidArgumentsError(f"--jq {program!r} failed: {reason}") from None


_TIME = re.compile(r"\d{4,}-\d\d-\d\d([T ][\d:.]+(Z|[+-]\d\d(:\d\d)?)?)?")
_FRAME = 3  # characters of a column's border and padding
_SHORTEST_TEXT = 12  # fewer characters of a text are not worth a column


def _print_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], *, is_single: bool
) -> None:
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False, markup=False)
    table, hidden_columns = Table(), list[str]()
    if is_single:
        table = Table("field", Column("value", overflow="fold"))
        rows = [[name, value] for row in rows for name, value in zip(columns, row, strict=True)]
    else:
        widths = [
            Width.of(printable(name), [row[number] for row in rows])
            for number, name in enumerate(columns)
        ]
        column_widths = fitting(widths, console.width if console.is_terminal else None)
        for name, width in zip(columns, column_widths, strict=False):
            header = Text("\n".join(fold(printable(name), width)))
            table.add_column(header, width=width, no_wrap=True, overflow="ellipsis")
        hidden_columns = [printable(name) for name in columns[len(column_widths) :]]
    for row in rows:
        table.add_row(*(Text(printable(_cell_text(value))) for value in row[: len(table.columns)]))
    if not console.is_terminal:
        # A file or a pipe has no width, so no value is cut.
        wide_console = Console(width=1_000_000)
        console.width = max(console.width, wide_console.measure(table).maximum)
    console.print(table)
    if hidden_columns:
        count = f"{len(hidden_columns)} more column{'s' if len(hidden_columns) > 1 else ''}"
        console.print(f"{count}: {', '.join(hidden_columns)}", overflow="fold")


class Width(NamedTuple):
    """Full and smallest width of a column, in terminal cells."""

    full: int
    least: int

    @classmethod
    def of(cls, name: str, values: Sequence[object]) -> Width:
        """Return the widths of a column: only text may be cut."""
        from rich.cells import cell_len

        content = max((cell_len(printable(_cell_text(value))) for value in values), default=0)
        full = max(cell_len(name), content)
        # Numbers and times are never cut: half a number is another number.
        is_text = any(
            isinstance(value, Mapping | list)
            or (isinstance(value, str) and not _TIME.fullmatch(value))
            for value in values
        )
        least_name = max(cell_len(part) for part in _parts(name))
        least = min(full, _SHORTEST_TEXT) if is_text else max(content, least_name)
        return cls(full, least)


def fitting(widths: Sequence[Width], terminal_width: int | None) -> list[int]:
    """Return the widths of the columns that fit on the terminal, of the first one in any case."""
    if terminal_width is None:
        return [width.full for width in widths]
    column_widths = list[int]()
    for width in widths:
        used = sum(column_widths) + _FRAME * (len(column_widths) + 1) + 1
        if column_widths and used + width.least > terminal_width:
            break
        column_widths.append(min(width.least, terminal_width - _FRAME - 1))
    spare_width = terminal_width - sum(column_widths) - _FRAME * len(column_widths) - 1
    while spare_width > 0:
        narrow = [n for n, width in enumerate(column_widths) if width < widths[n].full]
        if not narrow:
            break
        for number in narrow[:spare_width]:
            column_widths[number] += 1
            spare_width -= 1
    return column_widths


def fold(name: str, width: int) -> list[str]:
    """Return a column's name in lines, which end after `_` where possible."""
    lines = [""]
    for part in _parts(name):
        if len(lines[-1]) + len(part) > width and lines[-1]:
            lines.append("")
        lines[-1] += part
    return lines


def _parts(name: str) -> list[str]:
    return re.findall("[^_]*_|[^_]+", name) or [name]


def as_plain(value: object) -> Any:
    """Return the value in JSON's own types.

    A time is ISO 8601 text. One with a zone is in UTC and ends in Z. NaN and infinity are null. A
    decimal is a number when a float gives back its digits, and text otherwise.
    """
    from mixpanel_assets.results.base import json_ready  # `mp --help` needs no results

    return json_ready(value, _plain_leaf)


def _plain_leaf(value: object) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        number = float(value)
        return number if Decimal(repr(number)) == value else str(value)
    if isinstance(value, datetime) and value.tzinfo:
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return value.isoformat() if isinstance(value, date) else str(value)


def _cell_text(value: object) -> str:
    if isinstance(value, Decimal):
        return f"{value:f}"  # all digits, as DuckDB writes them
    json_value = as_plain(value)
    if json_value is None:
        return ""
    return json_value if isinstance(json_value, str) else json.dumps(json_value, ensure_ascii=False)


def printable(text: str) -> str:
    """Return text for one cell of a table."""
    # A name that Mixpanel sent must not control the terminal, or look like two cells or lines.
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def print_line(text: str) -> None:
    """Print a line for people."""
    _write(visible(text))


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
