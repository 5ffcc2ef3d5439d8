"""How DuckDB reads a spool file: which lines become rows at once, and their columns.

The file is exactly what Mixpanel sent, gzip or plain. DuckDB's reader is lenient (it takes
`5`, trailing commas and repeated names), so what counts as an event is said here in SQL:
a text `event`, a `time` that is a whole number of milliseconds inside the asked days, each name
that SQL reads once, and numbers that survive being written again. `leftovers` deals with every
other line, and with long and deep ones, which DuckDB takes too much memory and stack for.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from mixpanel_assets.rules.json_text import MAX_DEPTH
from mixpanel_assets.rules.lines import MAX_LINE_BYTES
from mixpanel_assets.rules.zones import moment_sql
from mixpanel_assets.warehouse.project import ProjectIdentity
from mixpanel_assets.warehouse.schema import literal

REMOVED_KEYS = ("time", "distinct_id", "$insert_id")
READ_KEYS = (  # of those that stay, read by SQL, which takes the first of two values
    "mp_processing_time_ms",
    "$distinct_id_before_identity",
    "mp_original_event_name",
    "mp_original_distinct_id",
)
SHORT_BYTES = 8192  # DuckDB takes 2,048 lines at once, and 30 bytes for each of theirs
EARLIEST_MS = 31_536_000_000  # 1971, before which Mixpanel takes no event
_LATEST_AFTER = timedelta(days=2 * 366)
_SHIFT_DAYS = timedelta(days=2)  # zones differ by up to 26 hours, so a change moves rows no further
_LAST_MS = 253_402_300_799_999  # the end of the year 9999
_GZIP_MAGIC = b"\x1f\x8b"

# Merging with nulls removes exactly these names; every other value, nulls included, stays.
_WITHOUT_FIXED = '{"time":null,"distinct_id":null,"$insert_id":null}'

_PATHS = (
    "['$.event', '$.properties.time', '$.properties.distinct_id', '$.properties.$insert_id', "
    "'$.properties.mp_processing_time_ms', '$.properties']"
)

# Numbers that DuckDB may write differently: 16 digits and more, or a three-digit exponent.
_LONG = r"[0-9.]{16,}|[0-9][eE][-+]?[0-9]{3}"

# An id that DuckDB may write differently than it was sent: -0, fractions, exponents, nested ones.
_UNSURE_ID = r"^(0$|-?[0-9]+[.eE]|[{\[])"

# Whether DuckDB writes the line's numbers as sent, if its text of the properties is not simply in
# the line because spaces or escapes differ.
_SAME_NUMBERS = f"""
    NOT regexp_matches(coalesce(field[3]::VARCHAR, ''), '{_UNSURE_ID}')
    AND NOT regexp_matches(coalesce(field[4]::VARCHAR, ''), '{_UNSURE_ID}')
    AND regexp_extract_all(json::VARCHAR, '{_LONG}')
        = regexp_extract_all(field[6]::VARCHAR, '{_LONG}')
"""

# Bytes that were removed from the properties, if each of the names came once at most.
_REMOVED = " + ".join(
    f"coalesce(strlen(field[{place}]::VARCHAR) + {len(name) + 4}, 0)"
    for place, name in enumerate(REMOVED_KEYS, start=2)
)
_LEFT = f"strlen(properties) + {_REMOVED} - (properties = '{{}}')::INT"

# Opening brackets of one kind that a line has at least when it is nested too deep.
_DEEP = (MAX_DEPTH + 1) // 2


@dataclass(frozen=True)
class Window:
    """The asked days, both ends included, and how their times are read."""

    from_date: date
    to_date: date
    project: ProjectIdentity

    @property
    def days(self) -> list[date]:
        """Every asked day, in order."""
        count = (self.to_date - self.from_date).days + 1
        return [self.from_date + timedelta(days=number) for number in range(count)]

    @property
    def keeps_shifted(self) -> bool:
        """Whether rows of other dates belong to the one asked day (legacy regime)."""
        return self.project.regime == "legacy" and self.from_date == self.to_date

    @property
    def days_around(self) -> tuple[date, date]:
        """The first and last day that a `time` of these days can carry."""
        return self.from_date - _SHIFT_DAYS, self.to_date + _SHIFT_DAYS

    @property
    def believable_ms(self) -> tuple[int, int]:
        """The first and last `time` that can be a real one: 1971 to two years past the days."""
        return EARLIEST_MS, _start_ms(self.to_date + _LATEST_AFTER)

    def accepts(self, time_ms: int) -> bool:
        """Tell whether a row with this `time` is a row of the asked days."""
        first, last = self.accepted_ms
        return first <= time_ms <= last

    def day_of(self, time: object) -> date:
        """Return the asked day a `time` falls on, the first one when it falls on none."""
        if isinstance(time, int) and not self.keeps_shifted and self.accepts(time):
            return datetime.fromtimestamp(time / 1000, UTC).date()
        return self.from_date

    @property
    def accepted_ms(self) -> tuple[int, int]:
        """The first and last `time` whose rows are stored as rows of the asked days."""
        around = _SHIFT_DAYS if self.keeps_shifted else timedelta()
        return (
            _start_ms(self.from_date - around),
            _start_ms(self.to_date + around + timedelta(days=1)) - 1,
        )


def is_empty(spool: Path) -> bool:
    """Tell whether nothing arrived; DuckDB refuses a gzip file of zero bytes."""
    return spool.stat().st_size == 0


def is_gzip(spool: Path) -> bool:
    """Tell by the first bytes, whatever the file is called."""
    with spool.open("rb") as file:
        return file.read(2) == _GZIP_MAGIC


def lines(spool: Path) -> str:
    """Return the SQL table of the spool's lines: `json` as received, NULL when refused."""
    compression = "gzip" if is_gzip(spool) else "uncompressed"
    return (
        f"read_json_objects([{literal(str(spool))}], format = 'newline_delimited', "
        f"compression = '{compression}', maximum_object_size = {MAX_LINE_BYTES}, "
        "ignore_errors = true)"
    )


def rows(spool: Path, window: Window, most: int = SHORT_BYTES) -> str:
    """Return the SQL query of every line: the raw `json`, the columns of a row, `stored`.

    `stored` is true for a line that becomes a row as it is, and never NULL; `json` is NULL for
    a line that DuckDB refused, and for one that it is not to look at (`is_left_out`).
    """
    first, last = window.accepted_ms
    return f"""
        SELECT json, event ->> '$' AS event_name, distinct_id, insert_id, properties,
               {derived_columns(window)}, time_raw,
               coalesce(event LIKE '"%' AND time_raw BETWEEN {first} AND {last} AND exact, false)
                   AS stored
        FROM ({_fields(spool, most)})
    """


def is_left_out(line: bytes, most: int) -> bool:
    """Tell whether `rows` leaves out a line, without white space around it, that DuckDB reads."""
    if len(line) > most:
        return True
    return len(line) > 2 * MAX_DEPTH and max(line.count(b"["), line.count(b"{")) >= _DEEP


def derived_columns(window: Window) -> str:
    """Return the SQL of the columns that follow from `time_raw` and `processed_ms`."""
    event_time = "make_timestamp_ms(time_raw)"
    event_date = f"{event_time}::DATE"
    if window.keeps_shifted:
        event_date = f"DATE '{window.from_date}'"
    if window.project.regime == "legacy":
        event_time = moment_sql(window.project.zone, *window.days_around)
    return (
        f"{event_time} AS event_time, {event_date} AS event_date, "
        f"CASE WHEN processed_ms BETWEEN 0 AND {_LAST_MS} THEN make_timestamp_ms(processed_ms) END "
        "AS processed_at"
    )


def processed_ms(value: str) -> str:
    """Return the SQL that reads `mp_processing_time_ms` as `processed_at` does; else NULL."""
    number = _whole_number(f"({value})")
    return f"CASE WHEN {number} BETWEEN 0 AND {_LAST_MS} THEN {number} END"


def _fields(spool: Path, most: int) -> str:
    """Take every fixed value with one extraction: each further one parses the line again."""
    return f"""
        SELECT json, field[1]::VARCHAR AS event, {_whole_number("field[2]")} AS time_raw,
               field[3] ->> '$' AS distinct_id, nullif(field[4] ->> '$', '') AS insert_id,
               {_whole_number("field[5]")} AS processed_ms, properties,
               {_exact()} AS exact
        FROM (SELECT json, field, json_merge_patch(field[6], '{_WITHOUT_FIXED}') AS properties
              FROM (SELECT json, json_extract(json, {_PATHS}) AS field
                    FROM (SELECT CASE WHEN {_taken(most)} THEN json END AS json
                          FROM {lines(spool)})))
    """


def _taken(most: int) -> str:
    """Tell in SQL whether a line is short and flat enough; see `is_left_out`."""
    deep = " OR ".join(f"json::VARCHAR LIKE '{f'%{bracket}' * _DEEP}%'" for bracket in "[{")
    return f"strlen(json) <= {most} AND NOT (strlen(json) > {2 * MAX_DEPTH} AND ({deep}))"


def _exact() -> str:
    """Tell in SQL whether DuckDB read what was sent: its numbers, and of each name the last value.

    DuckDB reads the first value. Mostly its text of the properties is simply in the line, and
    beside that and the event nothing is. Elsewhere names are looked for.
    """
    again = " OR ".join(_twice("json", f'"{name}"') for name in ("event", "properties"))
    read_again = " OR ".join(_twice("properties", f'"{name}":') for name in READ_KEYS)
    return f"""
        CASE WHEN {read_again} THEN false
             WHEN contains(json::VARCHAR, field[6]::VARCHAR)
                  AND strlen(json) = strlen(field[1]::VARCHAR) + 24 + {_LEFT} THEN true
             ELSE strlen(field[6]::VARCHAR) = {_LEFT} AND {_SAME_NUMBERS}
                  AND NOT ({again} OR regexp_matches(json::VARCHAR, '\\\\u00[67]')) END
    """


def _twice(text: str, name: str) -> str:
    found = literal(name)  # looked for first, as most are in no line
    return (
        f"(contains({text}::VARCHAR, {found}) AND len(string_split({text}::VARCHAR, {found})) > 2)"
    )


def _whole_number(value: str) -> str:
    """Read a JSON number that is whole; a text, a fraction or a boolean is NULL."""
    text = f"{value}::VARCHAR"
    return (
        f"CASE WHEN NOT contains({text}, '.') OR ends_with({text}, '.0') "
        f"THEN try_cast({text} AS BIGINT) END"
    )


def _start_ms(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000
