r"""Records on stdout, in the form that --format asks for.

Nothing else goes to stdout; notes and errors are `invocation`'s. JSON gives back every value
exactly. The other forms show characters that steer a terminal as escapes such as `\x1b`; in CSV
that goes into a file or pipe, marks such as U+200E stay, for they belong to the text.
"""

from __future__ import annotations

import csv
import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from mixpanel_assets.cli.exits import InvalidArgumentsError
from mixpanel_assets.errors import escaped_json, visible, without_controls

if TYPE_CHECKING:
    from rich.table import Table

    from mixpanel_assets.results import SQLResult

Record = Mapping[str, Any]


class Format(StrEnum):
    """What --format takes."""

    JSON = "json"
    JSONL = "jsonl"
    TABLE = "table"
    CSV = "csv"
    PLAIN = "plain"


class WithRows(NamedTuple):
    """An answer that is `whole` in JSON, and `rows` in the other forms."""

    whole: Record
    rows: Sequence[Record]


_JSON_FORMS = (Format.JSON, Format.JSONL)


def check_jq(program: str | None, output: Format) -> None:
    """Refuse a jq program that cannot be run, before anything is asked.

    Raises:
        InvalidArgumentsError: It is wrong, or the form is not JSON.
    """
    if program is None:
        return
    if output not in _JSON_FORMS:
        raise InvalidArgumentsError(f"--jq needs --format json or jsonl, not {output}.")
    _compiled(program)


def print_records(
    records: Iterable[Record], output: Format = Format.JSON, jq: str | None = None
) -> None:
    """Print records: a JSON array, an object a line, a table, CSV, or values between tabs.

    Columns are all keys that occur, in the order in which they first do. An empty value of
    CSV and plain text is one that is not there or null; nested values are JSON in all but JSON.

    Args:
        records: What to print.
        output: The form.
        jq: A jq program: for `json` it sees the array, for `jsonl` each record. Its results
            are JSON; integers beyond 2^53 that pass through it are rounded.

    Raises:
        InvalidArgumentsError: The program is wrong, or the form is not JSON.
    """
    records = list(records)
    _print(records, records, output, jq)


def print_record(record: Record, output: Format = Format.JSON, jq: str | None = None) -> None:
    """Print a single record: a JSON object instead of an array; otherwise as `print_records`."""
    _print(record, [record], output, jq)


def print_answer(
    answer: object, output: Format = Format.JSON, jq: str | None = None, *, column: str = "value"
) -> None:
    """Print what a function of the library returned.

    A result is its `to_dict()` in JSON, and its rows, if it has any, in the other forms. Rows of
    SQL and lists are an array in JSON, and a line each in JSON Lines.

    Args:
        answer: A result, a list of results or of values, or a single value.
        output: The form.
        jq: As for `print_records`.
        column: What a list of values is called where columns have names.

    Raises:
        InvalidArgumentsError: The program is wrong, or the form is not JSON; or two columns of
            an SQL answer have one name.
    """
    from mixpanel_assets.results import Result, ResultWithDataFrame, SQLResult

    if isinstance(answer, SQLResult):
        _print(rows := _sql_records(answer), rows, output, jq, answer.columns)
    elif isinstance(answer, ResultWithDataFrame) and output not in _JSON_FORMS:
        _print(None, answer.to_table_dict(), output, jq, answer.column_names())
    elif isinstance(answer, WithRows):
        is_json = output in _JSON_FORMS
        _print(answer.whole, [answer.whole], output, jq) if is_json else print_records(
            answer.rows, output, jq
        )
    elif isinstance(answer, Result):
        print_record(answer.to_dict(), output, jq)
    elif isinstance(answer, Mapping):
        print_record(answer, output, jq)
    elif isinstance(answer, Sequence) and not isinstance(answer, str | bytes):
        _print_list(answer, output, jq, column)
    elif output in _JSON_FORMS:
        _print(answer, [answer], output, jq)
    else:
        _print(None, [{column: answer}], output, jq)


def _print_list(answer: Sequence[Any], output: Format, jq: str | None, column: str) -> None:
    if answer and all(hasattr(one, "to_dict") for one in answer):
        print_records([one.to_dict() for one in answer], output, jq)
    elif output in _JSON_FORMS:
        _print(answer, answer, output, jq)
    else:
        _print(None, [{column: one} for one in answer], output, jq, [column])


def _sql_records(answer: SQLResult) -> list[Record]:
    twice = {name for name in answer.columns if answer.columns.count(name) > 1}
    if twice:
        raise InvalidArgumentsError(
            f"Two columns of the answer are called {min(twice)!r}. "
            "Give them different names with AS."
        )
    return [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]


def _print(
    whole: object,
    records: Sequence[Any],
    output: Format,
    jq: str | None,
    columns: Sequence[str] | None = None,
) -> None:
    """Print `whole` as JSON, or `records` in another form.

    Args:
        whole: For a table, a mapping stands for fields and their values.
        records: Values of JSON Lines; otherwise with the columns as keys.
        output: The form.
        jq: A jq program.
        columns: None: all keys that occur.
    """
    check_jq(jq, output)
    if output is Format.JSON:
        _print_json([whole], jq, indent=2)
    elif output is Format.JSONL:
        _print_json(records, jq, indent=None)
    else:
        columns = _columns(records) if columns is None else columns
        _print_columns(whole, records, columns, output)


def _print_columns(
    whole: object, records: Sequence[Record], columns: Sequence[str], output: Format
) -> None:
    if not columns:
        return
    if output is Format.CSV:
        safe = visible if sys.stdout.isatty() else without_controls
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(map(safe, columns))
        writer.writerows([safe(_text(record.get(name))) for name in columns] for record in records)
    elif output is Format.PLAIN:
        for record in records:
            _write("\t".join(_cell(_text(record.get(name))) for name in columns))
    else:
        _print_table(whole, records, columns)


def _print_json(values: Iterable[object], jq: str | None, indent: int | None) -> None:
    for value in values:
        plain = as_plain(value)
        for result in [plain] if jq is None else _results(jq, plain):
            text = escaped_json(json.dumps(result, indent=indent, ensure_ascii=False))
            try:
                text.encode(sys.stdout.encoding or "utf-8")
            except UnicodeEncodeError:  # a terminal without Unicode
                text = escaped_json(json.dumps(result, indent=indent))
            _write(text)


def _results(program: str, value: object) -> list[Any]:
    try:
        return list(_compiled(program).input_text(json.dumps(value)))
    except ValueError as error:
        raise _not_done(program, error) from None


def _compiled(program: str) -> Any:
    import jq

    try:
        return jq.compile(program)
    except ValueError as error:
        raise _not_done(program, error) from None


def _not_done(program: str, error: ValueError) -> InvalidArgumentsError:
    return InvalidArgumentsError(f"--jq {program!r} cannot be done: {str(error).splitlines()[0]}")


# A column's edge and its blanks; how much of a text is worth showing.
_TIME = re.compile(r"\d{4,}-\d\d-\d\d([T ][\d:.]+(Z|[+-]\d\d(:\d\d)?)?)?")
_FRAME, _LEAST_TEXT = 3, 12


def _print_table(whole: object, records: Sequence[Record], columns: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False, markup=False)
    table, left_out = Table(), list[str]()
    if isinstance(whole, Mapping):
        table = Table("field", Column("value", overflow="fold"))
        cells = [[name, whole.get(name)] for name in columns]
    else:
        cells = [[record.get(name) for name in columns] for record in records]
        widths = [Width.of(_cell(name), values) for name, values in _by_column(columns, cells)]
        shown = fitting(widths, console.width if console.is_terminal else None)
        for name, width in zip(columns, shown, strict=False):
            header = Text("\n".join(folded(_cell(name), width)))
            table.add_column(header, width=width, no_wrap=True, overflow="ellipsis")
        left_out = [_cell(name) for name in columns[len(shown) :]]
    for row in cells:
        shown_cells = row[: len(table.columns)]
        table.add_row(*(Text(_cell(_text(cell))) for cell in shown_cells))
    if not console.is_terminal:
        console.width = _full_width(console.width, table)
    console.print(table)
    if left_out:
        count = f"{len(left_out)} more column{'s' if len(left_out) > 1 else ''}"
        console.print(f"{count}: {', '.join(left_out)}", overflow="fold")


class Width(NamedTuple):
    """How wide a column is whole, and how narrow it may become."""

    whole: int
    least: int

    @classmethod
    def of(cls, name: str, values: Sequence[object]) -> Width:
        """Numbers and times are never cut, for half a number is another one; text may be."""
        from rich.cells import cell_len

        content = max((cell_len(_cell(_text(value))) for value in values), default=0)
        whole = max(cell_len(name), content)
        is_text = any(
            isinstance(value, Mapping | list)
            or (isinstance(value, str) and not _TIME.fullmatch(value))
            for value in values
        )
        least_name = max(cell_len(part) for part in _parts(name))
        least = min(whole, _LEAST_TEXT) if is_text else max(content, least_name)
        return cls(whole, least)


def fitting(widths: Sequence[Width], room: int | None) -> list[int]:
    """Return how wide each column is, as far as columns find room; at least the first does.

    Args:
        widths: Of all columns.
        room: Of the terminal; None: no end.
    """
    if room is None:
        return [width.whole for width in widths]
    shown = list[int]()
    for width in widths:
        taken = sum(shown) + _FRAME * (len(shown) + 1) + 1
        if shown and taken + width.least > room:
            break
        shown.append(min(width.least, room - _FRAME - 1))
    spare = room - sum(shown) - _FRAME * len(shown) - 1
    while spare > 0:
        narrow = [n for n, width in enumerate(shown) if width < widths[n].whole]
        if not narrow:
            break
        for number in narrow[:spare]:
            shown[number] += 1
            spare -= 1
    return shown


def folded(name: str, width: int) -> list[str]:
    """Return the lines of a column's name; they end behind `_` as far as they can."""
    lines = [""]
    for part in _parts(name):
        if len(lines[-1]) + len(part) > width and lines[-1]:
            lines.append("")
        lines[-1] += part
    return lines


def _parts(name: str) -> list[str]:
    return re.findall("[^_]*_|[^_]+", name) or [name]


def _by_column(
    columns: Sequence[str], cells: Sequence[Sequence[object]]
) -> Iterator[tuple[str, list[object]]]:
    for number, name in enumerate(columns):
        yield name, [row[number] for row in cells]


def _full_width(width: int, table: Table) -> int:
    # Into a file or pipe no value is cut.
    from rich.console import Console

    roomy = Console(width=1_000_000)
    return max(width, roomy.measure(table).maximum)


def as_plain(value: object) -> Any:
    """Return the value in JSON's own types.

    Times are ISO 8601 text, in UTC ending in Z when they have a zone. A number that is not finite
    is null. A decimal number is a number when that is exact, and text otherwise.
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


def _columns(records: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(name for record in records for name in record))


def _text(value: object) -> str:
    if isinstance(value, Decimal):
        return f"{value:f}"  # with all of its digits, as DuckDB writes it
    plain = as_plain(value)
    if plain is None:
        return ""
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def _cell(text: str) -> str:
    # A name that came from outside must not steer the terminal, or look like two cells or lines.
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def print_line(text: str) -> None:
    """Print a line for people."""
    _write(visible(text))


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
