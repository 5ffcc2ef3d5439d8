"""What the stored rows of a day are like: their ids, their times, their properties."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache

from duckdb import DuckDBPyConnection as Connection

from mixpanel_assets.warehouse.lines import Window
from mixpanel_assets.warehouse.project import ProjectIdentity
from mixpanel_assets.warehouse.schema import DAYS, QUARANTINE, SCHEMA, qualified
from mixpanel_assets.warehouse.staging import contradiction, measure_offsets
from mixpanel_assets.warehouse.vanished import IS_MADE

# Reading the properties of a row takes 10 microseconds, so a sample of a large day is read.
_ROWS_A_DAY = 1_000
_MOST_BYTES = 1 << 16  # of properties; DuckDB takes 30 times the memory to read a value of them

_KINDS = {
    "VARCHAR": "text",
    "BOOLEAN": "boolean",
    **dict.fromkeys(("BIGINT", "UBIGINT", "HUGEINT", "UHUGEINT", "DOUBLE"), "number"),
}


@dataclass
class RowFacts:
    """Counts of the stored rows of one day.

    Attributes:
        rows: All of them.
        without_distinct_id: By event name, rows whose `distinct_id` is NULL or empty.
        without_insert_id: By event name, rows that were sent without an `$insert_id`.
        elsewhere: Rows whose `time` has another date.
        ahead: Rows by the minutes by which `time` as sent is ahead of `event_time`.
    """

    rows: int = 0
    without_distinct_id: Counter[str] = field(default_factory=Counter)
    without_insert_id: Counter[str] = field(default_factory=Counter)
    elsewhere: int = 0
    ahead: Counter[int] = field(default_factory=Counter)


@dataclass
class SampledProperties:
    """Properties of some rows of one day and event name.

    Attributes:
        rows: The number of rows that were read.
        seen: By property, the rows that have it.
        kinds: By property, rows by the kind of its value: text, number, boolean, list, object.
    """

    rows: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    kinds: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, other: SampledProperties) -> None:
        """Add the rows of another sample."""
        self.rows += other.rows
        self.seen += other.seen
        for name, kinds in other.kinds.items():
            self.kinds[name] += kinds


def row_facts(connection: Connection, table: str, days: Sequence[date]) -> dict[date, RowFacts]:
    """Return the counts of each day with rows of a table in schema `mixpanel`."""
    found = connection.execute(
        f"""
        SELECT event_date, event_name, count(*),
               count_if(coalesce(distinct_id, '') = ''), count_if({IS_MADE}),
               make_timestamp_ms(time_raw)::DATE <> event_date AS elsewhere,
               (time_raw - epoch_ms(event_time)) // 60000 AS ahead
        FROM {qualified(SCHEMA, table)} WHERE event_date IN (SELECT unnest(?::DATE[]))
        GROUP BY event_date, event_name, elsewhere, ahead
        """,
        [days],
    )
    facts: defaultdict[date, RowFacts] = defaultdict(RowFacts)
    for day, event, rows, no_distinct_id, no_insert_id, elsewhere, ahead in found.fetchall():
        of_day = facts[day]
        of_day.rows += rows
        of_day.without_distinct_id[event] += no_distinct_id
        of_day.without_insert_id[event] += no_insert_id
        of_day.elsewhere += rows if elsewhere else 0
        of_day.ahead[ahead] += rows
    return dict(facts)


def time_contradictions(
    connection: Connection, table: str, days: Sequence[date], project: ProjectIdentity
) -> dict[date, str]:
    """Return for each day what its events say against the project's time settings, if anything."""
    listed = ", ".join(f"DATE '{day}'" for day in days)
    rows = (
        f"(SELECT rowid, event_date, time_raw, properties FROM {qualified(SCHEMA, table)} "
        f"WHERE event_date IN ({listed}))"
    )
    [(count,)] = connection.execute(f"SELECT count(*) FROM {rows}").fetchall()
    window = Window(min(days), max(days), project)
    offsets = measure_offsets(connection, rows, count, window)
    said = {day: contradiction(project, day, minutes) for day, minutes in offsets.items()}
    return {day: text for day, text in said.items() if text}


def quarantine_reasons(
    connection: Connection, table: str, days: Sequence[date]
) -> dict[date, dict[str, int]]:
    """Return for each day with lines in the quarantine their number by reason."""
    found = connection.execute(
        f"SELECT day, reason, count(*) FROM {QUARANTINE.quoted} WHERE schema_name = ? "
        "AND table_name = ? AND day IN (SELECT unnest(?::DATE[])) GROUP BY ALL ORDER BY ALL",
        [SCHEMA, table, days],
    )
    reasons: defaultdict[date, dict[str, int]] = defaultdict(dict)
    for day, reason, lines in found.fetchall():
        reasons[day][reason] = lines
    return dict(reasons)


def sampled_properties(
    connection: Connection, table: str, days: Sequence[date]
) -> dict[date, dict[str, SampledProperties]]:
    """Return by day and event name the properties of a sample of rows; of few rows, of all."""
    # By a hash, so that the same rows are chosen whenever the same rows are stored.
    found = connection.execute(
        f"""
        WITH steps AS (
            SELECT day, greatest(row_count // {_ROWS_A_DAY}, 1) AS step
            FROM {DAYS.quoted} WHERE schema_name = $schema AND table_name = $table
                AND day IN (SELECT unnest($days::DATE[]))
        )
        SELECT event_date, event_name, json_structure(
                   CASE WHEN strlen(properties) <= {_MOST_BYTES} THEN properties END
               ) AS structure, count(*)
        FROM {qualified(SCHEMA, table)} JOIN steps ON day = event_date
        WHERE event_date BETWEEN $first AND $last AND hash(insert_id) % step = 0
        GROUP BY ALL
        """,
        {
            "schema": SCHEMA,
            "table": table,
            "days": list(days),
            "first": min(days),
            "last": max(days),
        },
    )
    samples: defaultdict[date, defaultdict[str, SampledProperties]] = defaultdict(
        lambda: defaultdict(SampledProperties)
    )
    for day, event, structure, rows in found.fetchall():
        if structure is None:
            continue
        sample = samples[day][event]
        sample.rows += rows
        for name, kind in _kinds(structure).items():
            sample.seen[name] += rows
            if kind:
                sample.kinds[name][kind] += rows
    return {day: dict(events) for day, events in samples.items()}


@lru_cache(maxsize=10_000)
def _kinds(structure: str) -> dict[str, str | None]:
    """Return the kind of each property of a structure; None: it does not show."""
    found = json.loads(structure)
    if not isinstance(found, Mapping):  # that of an empty object is text
        return {}
    return {name: _kind(value) for name, value in found.items()}


def _kind(value: object) -> str | None:
    if isinstance(value, list):
        return "list"
    if isinstance(value, Mapping):
        return "object"
    return _KINDS.get(str(value))
