"""Records on stdout, in the form that --format asks for.

Nothing else goes to stdout; notes and errors are `invocation`'s.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from mixpanel_assets.cli.exits import InvalidArgumentsError

if TYPE_CHECKING:
    from rich.table import Table

Record = Mapping[str, Any]


class Format(StrEnum):
    """What --format takes."""

    JSON = "json"
    JSONL = "jsonl"
    TABLE = "table"
    CSV = "csv"
    PLAIN = "plain"


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


def _print(whole: object, records: Sequence[Record], output: Format, jq: str | None) -> None:
    if jq is not None and output not in (Format.JSON, Format.JSONL):
        raise InvalidArgumentsError(f"--jq needs --format json or jsonl, not {output}.")
    if output is Format.JSON:
        _print_json([whole], jq, indent=2)
    elif output is Format.JSONL:
        _print_json(records, jq, indent=None)
    elif output is Format.CSV:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        columns = _columns(records)
        writer.writerow(columns)
        writer.writerows([_csv(record.get(name)) for name in columns] for record in records)
    elif output is Format.PLAIN:
        columns = _columns(records)
        for record in records:
            _write("\t".join(_visible(_text(record.get(name))) for name in columns))
    else:
        _print_table(whole, records)


def _print_json(values: Iterable[object], jq: str | None, indent: int | None) -> None:
    for value in values:
        plain = as_plain(value)
        for result in [plain] if jq is None else _results(jq, plain):
            try:
                text = json.dumps(result, indent=indent, ensure_ascii=False)
                text.encode(sys.stdout.encoding or "utf-8")
            except UnicodeEncodeError:  # half of a surrogate pair, or a terminal without Unicode
                text = json.dumps(result, indent=indent)
            _write(text)


def _results(program: str, value: object) -> list[Any]:
    import jq

    try:
        return list(jq.compile(program).input_text(json.dumps(value)))
    except ValueError as error:
        raise InvalidArgumentsError(
            f"--jq {program!r} cannot be done: {str(error).splitlines()[0]}"
        ) from None


def _print_table(whole: object, records: Sequence[Record]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns = _columns(records)
    if isinstance(whole, Mapping):
        table = Table("field", "value")
        cells = [[name, whole.get(name)] for name in columns]
    else:
        table = Table()
        for name in columns:
            table.add_column(Text(_visible(name)))
        cells = [[record.get(name) for name in columns] for record in records]
    for row in cells:
        table.add_row(*(Text(_visible(_text(cell))) for cell in row))
    console = Console(file=sys.stdout, highlight=False, markup=False)
    if not console.is_terminal:
        console.width = _full_width(console.width, table)
    console.print(table)


def _full_width(width: int, table: Table) -> int:
    # Into a file or pipe no value is cut.
    from rich.console import Console

    roomy = Console(width=1_000_000)
    return max(width, roomy.measure(table).maximum)


def as_plain(value: object) -> Any:
    """Return the value in JSON's own types.

    Times are ISO 8601 text, in UTC ending in Z when they know their zone; what is no number is
    null; a decimal number is a number when that is exact, and text otherwise.
    """
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        number = float(value)
        return number if Decimal(repr(number)) == value else str(value)
    if isinstance(value, datetime) and value.tzinfo:
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): as_plain(one) for key, one in value.items()}
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, bytes | bytearray):
        return [as_plain(one) for one in value]
    return str(value)


def _columns(records: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(name for record in records for name in record))


def _text(value: object) -> str:
    plain = as_plain(value)
    if plain is None:
        return ""
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def _visible(text: str) -> str:
    # A name that came from outside must not steer the terminal, or look like two cells or lines.
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def _csv(value: object) -> str:
    # Half of a surrogate pair cannot be written as UTF-8.
    return _text(value).encode(errors="backslashreplace").decode()


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
