"""The ledger `_days`: what is stored for each table and day.

Its rows are written in the transaction of the rows that they describe. `DayReport` and
`ProfileReport` hold the same facts for logs, metadata and results.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from types import MappingProxyType
from typing import Any, Literal

from duckdb import DuckDBPyConnection as Connection

from mixpanel_assets import __version__
from mixpanel_assets.warehouse.faults import number
from mixpanel_assets.warehouse.schema import (
    DAYS,
    EVENT_COUNTS,
    NEVER_STORED,
    QUARANTINE,
    RECONCILED,
    SCHEMA,
    VANISHED,
    Table,
    qualified,
)

Status = Literal["complete", "partial", "empty", "open", "not available", "expired", "failed"]
Scope = Literal["all", "seen_on_day"]
_STORED_IN_PART: Status = "partial"


@dataclass(frozen=True)
class Receipt:
    """What the response for a day had, as the ledger keeps it (`certificate`).

    Attributes:
        lines: Lines that belong to the day; the sum of the next three.
        rows: Lines that became rows.
        duplicates: Lines that repeat another one, and were removed.
        quarantined: Lines that cannot be stored.
        request_from: First day of the request; None if two responses had no line for the day.
        request_to: Its last day, included.
        response_lines: Lines of all days of the response, counted while it was received.
        response_bytes: Its size as received.
        requests: Requests made for it, failed ones included.
        verdict: Why the response counts as complete.
        digest: Hash of the rows, in any order: 32 hexadecimal digits.
        rows_moved: Rows that arrived with the response of another day since (legacy regime).
        written_by: The version of this package.
    """

    lines: int = 0
    rows: int = 0
    duplicates: int = 0
    quarantined: int = 0
    request_from: date | None = None
    request_to: date | None = None
    response_lines: int = 0
    response_bytes: int = 0
    requests: int = 0
    verdict: str = "complete"
    digest: str = "0" * 32
    rows_moved: int = 0
    written_by: str = __version__

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        days = (self.request_from, self.request_to)
        request_from, request_to = (day and day.isoformat() for day in days)
        return {**vars(self), "request_from": request_from, "request_to": request_to}

    @classmethod
    def of_json(cls, text: str | None) -> Receipt | None:
        """Return what the ledger keeps; None if it keeps nothing."""
        if text is None:
            return None
        known = {name: value for name, value in json.loads(text).items() if name in vars(cls())}
        for name in ("request_from", "request_to"):
            known[name] = date.fromisoformat(known[name]) if known[name] else None
        return cls(**known)


EMPTY_TWICE = "complete, empty twice"


@dataclass(frozen=True)
class DayReport:
    """One requested day after its load.

    Attributes:
        day: The export day.
        status: `complete`, `empty` (Mixpanel sent nothing), `open` (the day is not over), `not
            available` (it lies before the plan's horizon; stored rows are kept), or `expired`
            (Mixpanel has deleted it, by MP_RETENTION_DAYS).
        row_count: Rows now stored.
        rows_before: Rows stored before; None if the day was never loaded.
        rows_vanished: Stored rows that the response lacked; they are kept, and part of
            `row_count`.
        newly_vanished: Those of them that the previous response still had.
        rows_removed: Stored rows that the response lacked and that were removed, because the
            caller accepts smaller days.
        lines_removed: Lines of the quarantine that were removed for the same reason.
        corrected: Other days from which rows moved to the days of the request, as they are now
            (legacy regime, after a change of zone); on the first day of the request.
        duplicates_removed: Duplicates that Mixpanel sent and the load removed.
        quarantined: Lines kept in `_quarantine`.
        shifted_rows: Legacy rows whose own date is another one.
        time_warning: What contradicts the project's time settings in the day's events, if anything.
        requests: Requests made; a request for several days counts on the first of them.
        bytes: The day's share of the bytes received, by rows; the shares add up exactly.
        event_counts: Rows by event name.
        event_digests: By event name, a hash of the rows received, without duplicates and in any
            order: 32 hexadecimal digits.
        hour_counts: Rows by hour of `event_time`, 24 values, UTC.
        receipt: What the response had for the day; None: there was none, or it is not known.
    """

    day: date
    status: Status
    row_count: int = 0
    rows_before: int | None = None
    rows_vanished: int = 0
    newly_vanished: int = 0
    rows_removed: int = 0
    lines_removed: int = 0
    corrected: tuple[DayReport, ...] = field(default=(), repr=False)
    duplicates_removed: int = 0
    quarantined: int = 0
    shifted_rows: int = 0
    time_warning: str | None = None
    requests: int = 0
    bytes: int = 0
    event_counts: dict[str, int] = field(default_factory=dict, repr=False)
    event_digests: dict[str, str] = field(default_factory=dict, repr=False)
    hour_counts: tuple[int, ...] = field(default=(0,) * 24, repr=False)
    receipt: Receipt | None = field(default=None, repr=False)

    @property
    def look(self) -> tuple[int, int]:
        """The rows that the response had for the day, and how many stored rows it lacked."""
        lacking = self.rows_vanished + self.rows_removed + self.lines_removed
        return self.row_count - self.rows_vanished, lacking

    @property
    def is_only_here(self) -> bool:
        """Whether the response had none of the stored rows."""
        return 0 < self.row_count == self.rows_vanished

    @property
    def needs_second_look(self) -> bool:
        """Whether a second response must confirm this one: it lacks rows that the last one had."""
        lacking = self.newly_vanished + self.rows_removed + self.lines_removed
        return lacking > 0 or self.row_count < (self.rows_before or 0)


@dataclass(frozen=True)
class ProfileReport:
    """One snapshot day after its load, or as a load left it.

    `expected_total`, `failed_pages`, `missing_rows` and `elsewhere` describe the whole response
    and are the same on each of its days.

    Attributes:
        snapshot_date: The day the rows are kept under.
        status: `complete`, `partial` (part of the response is missing; rows were merged in), or
            `empty`.
        scope: `all` profiles, or only those `seen_on_day`.
        row_count: Rows now stored for the day; in a named table those that no other day counts.
        received: Profiles received for the day, duplicates included.
        rows_before: Rows stored before; None if the day was never loaded.
        duplicates_removed: Profiles that were on more than one page; the last page wins.
        expected_total: What Mixpanel announced; None when it announced nothing.
        failed_pages: Numbers of the missing pages, and why they are missing.
        missing_rows: Profiles that the response lacks, compared with `expected_total`.
        elsewhere: Profiles that were received and not stored: the day on which they were last
            seen is not a requested one, or keeps its snapshot.
        quarantined: Lines kept in `_quarantine`; those of several days count on the first.
        kept: Whether nothing was stored, because the day already has a full snapshot.
    """

    snapshot_date: date
    status: Status
    scope: Scope
    row_count: int
    received: int
    rows_before: int | None
    duplicates_removed: int
    expected_total: int | None
    failed_pages: Mapping[int, str] = field(default_factory=dict)
    missing_rows: int = 0
    elsewhere: int = 0
    quarantined: int = 0
    kept: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether the day is complete."""
        return self.status != _STORED_IN_PART


@dataclass(frozen=True)
class Target:
    """A table that rows are loaded into.

    The schema is `mixpanel` for asset tables, `main` for the named tables of a workspace.
    """

    table: str
    schema: str = SCHEMA

    @property
    def quoted(self) -> str:
        """The qualified name, ready for SQL."""
        return qualified(self.schema, self.table)

    @property
    def names(self) -> dict[str, str]:
        """The values for `OF_TABLE`."""
        return {"schema": self.schema, "table": self.table}


@dataclass(frozen=True)
class LedgerKey:
    """What the ledger rows of one load share."""

    target: Target
    type: Literal["events", "profiles"]
    run_id: str | None = None
    filters: Mapping[str, Any] | None = None
    fetched_at: datetime | None = None

    @property
    def filters_json(self) -> str | None:
        """The filters as the ledger stores them: JSON; None for everything."""
        return json.dumps(dict(self.filters), sort_keys=True) if self.filters else None

    @property
    def moment(self) -> datetime:
        """When the response was received, now if unknown; naive UTC, as the ledger stores it."""
        return (self.fetched_at or datetime.now(UTC)).astimezone(UTC).replace(tzinfo=None)


AddedRows = Mapping[tuple[date, str], int]

# The rows of the ledger, and of the tables beside it, that describe a target.
OF_TABLE = "schema_name = $schema AND table_name = $table"
_OF_DAYS = f"{OF_TABLE} AND day IN (SELECT unnest($days::DATE[]))"


def _select(
    connection: Connection, target: Target, columns: str, condition: str = "true", **values: date
) -> list[tuple[Any, ...]]:
    """Return columns of the ledger rows of a table that meet a condition."""
    return connection.execute(
        f"SELECT {columns} FROM {DAYS.quoted} WHERE {OF_TABLE} AND {condition}",
        target.names | values,
    ).fetchall()


def rows_before(
    connection: Connection, target: Target, from_date: date, to_date: date
) -> dict[date, int]:
    """Return the row count of each day that was loaded before, both ends included."""
    condition = "day BETWEEN $first AND $last AND status <> 'failed' GROUP BY day"
    columns = "day, sum(row_count)::BIGINT"
    return dict(_select(connection, target, columns, condition, first=from_date, last=to_date))


def known_days(connection: Connection, target: Target) -> list[date]:
    """Return every day with a ledger row of a table, stored or not."""
    return [day for (day,) in _select(connection, target, "DISTINCT day")]


def filters_of(connection: Connection, target: Target) -> set[str | None]:
    """Return the different filters that days of a table were loaded with; None for everything."""
    ledger_rows = _select(connection, target, "DISTINCT filters", "status <> 'failed'")
    return {filters for (filters,) in ledger_rows}


def day_statuses(connection: Connection, target: Target) -> dict[date, Status]:
    """Return the status of every day with a ledger row of a table."""
    return dict(_select(connection, target, "day, status"))


def empty_days(connection: Connection, target: Target, from_date: date, to_date: date) -> set[date]:
    """Return the days that are stored as `empty`, both ends included."""
    stored_empty = "day BETWEEN $first AND $last AND status = 'empty'"
    ledger_rows = _select(connection, target, "day", stored_empty, first=from_date, last=to_date)
    return {day for (day,) in ledger_rows}


def loaded_days(
    connection: Connection, target: Target, from_date: date, to_date: date
) -> set[date]:
    """Return the days that have rows or were loaded completely, both ends included."""
    is_loaded = "(row_count > 0 OR status IN ('complete', 'empty'))"
    condition = f"day BETWEEN $first AND $last AND {is_loaded}"
    ledger_rows = _select(connection, target, "day", condition, first=from_date, last=to_date)
    return {day for (day,) in ledger_rows}


def forget_expired(connection: Connection, target: Target, horizon: date | None) -> None:
    """Delete the ledger rows of `expired` days from the horizon on; None: of all of them.

    The horizon is the first day that is requested from Mixpanel. It moves back when
    MP_RETENTION_DAYS grows, and such days can be loaded again.
    """
    connection.execute(
        f"DELETE FROM {DAYS.quoted} WHERE {OF_TABLE} "
        "AND status = 'expired' AND (day >= $horizon::DATE OR $horizon::DATE IS NULL)",
        target.names | {"horizon": horizon},
    )


def shifted_rows(connection: Connection, target: Target) -> dict[date, int]:
    """Return for each day with a ledger row how many of its rows have another date."""
    columns = "day, coalesce(sum(shifted_rows), 0)::BIGINT"
    return dict(_select(connection, target, columns, "true GROUP BY day"))


def complete_at(connection: Connection, target: Target, day: date) -> datetime | None:
    """Return when the last complete snapshot of a day began, naive UTC; None without one."""
    ledger_rows = _select(connection, target, "complete_at", "day = $day", day=day)
    return ledger_rows[0][0] if ledger_rows else None


def write_event_days(connection: Connection, key: LedgerKey, reports: Iterable[DayReport]) -> None:
    """Replace the ledger rows and the counts by event of the reported days."""
    reports = list(reports)
    _forget(connection, key.target, [report.day for report in reports], (DAYS, EVENT_COUNTS))
    for report in reports:
        _insert_event_day(connection, key, report, report.row_count)
    counts = {
        (report.day, name): count
        for report in reports
        for name, count in report.event_counts.items()
    }
    digests = {
        (report.day, name): digest
        for report in reports
        for name, digest in report.event_digests.items()
    }
    _insert_counts(connection, key.target, counts, digests)


def add_event_days(
    connection: Connection, key: LedgerKey, reports: Iterable[DayReport], added: AddedRows
) -> None:
    """Write the ledger rows of days that were merged in, one per day and filter.

    Each counts the rows that its responses `added`, by day and event name. So the row counts of a
    table add up to its rows.
    """
    added_rows: Counter[date] = Counter()
    for (day, _), count in added.items():
        added_rows[day] += count
    for report in reports:
        row_count = _forget_entry(connection, key, report.day) + added_rows[report.day]
        if row_count and report.status == "empty":
            report = replace(report, status="complete")
        _insert_event_day(connection, key, report, row_count)
    _add_counts(connection, key.target, added)


def write_profile_day(
    connection: Connection, key: LedgerKey, report: ProfileReport, *, complete_at: datetime | None
) -> None:
    """Replace the ledger row of a snapshot day."""
    forget_days(connection, key.target, [report.snapshot_date])
    _insert_day(
        connection,
        key,
        day=report.snapshot_date,
        status=report.status,
        row_count=report.row_count,
        duplicates_removed=report.duplicates_removed,
        quarantined=report.quarantined,
        expected_total=report.expected_total,
        scope=report.scope,
        failed_pages=sorted(report.failed_pages),
        complete_at=complete_at,
    )


def write_failure(
    connection: Connection, key: LedgerKey, days: Collection[date], error: str, failed_at: datetime
) -> None:
    """Write why days could not be loaded; days without stored rows become `failed`.

    The other columns of a stored day's ledger row are kept.
    """
    failure = {"last_error": error, "failed_at": failed_at.astimezone(UTC).replace(tzinfo=None)}
    values = key.target.names | {"days": list(days)}
    never_stored = f"status IN {NEVER_STORED} AND row_count = 0"
    connection.execute(f"DELETE FROM {DAYS.quoted} WHERE {_OF_DAYS} AND {never_stored}", values)
    # Not `UPDATE ... RETURNING`, which a lake lacks.
    stored = connection.execute(f"SELECT day FROM {DAYS.quoted} WHERE {_OF_DAYS}", values)
    stored_days = {day for (day,) in stored.fetchall()}
    connection.execute(
        f"UPDATE {DAYS.quoted} SET last_error = $last_error, failed_at = $failed_at "
        f"WHERE {_OF_DAYS}",
        {**values, **failure},
    )
    # A day that was never stored has no row to update.
    for day in sorted(set(days) - stored_days):
        _insert_day(
            connection, key, day=day, status="failed", row_count=0, fetched_at=None, **failure
        )


def forget_days(connection: Connection, target: Target, days: Iterable[date]) -> None:
    """Delete the ledger rows of the given days of a table, and what else is known of them."""
    _forget(connection, target, list(days), (DAYS, EVENT_COUNTS, VANISHED, RECONCILED))


def recount(connection: Connection, target: Target, days: Iterable[date]) -> None:
    """Correct the ledger rows of days of an asset table after rows or lines moved from them."""
    days = list(days)
    values = target.names | {"days": days}
    connection.execute(
        f"""
        UPDATE {DAYS.quoted} AS days SET
            row_count = counted.row_count,
            shifted_rows = counted.shifted_rows,
            rows_vanished = counted.rows_vanished,
            vanished_at = CASE WHEN counted.rows_vanished > 0 THEN vanished_at END,
            quarantined = counted.quarantined,
            certificate = CASE WHEN certificate IS NOT NULL THEN json_merge_patch(
                certificate, json_object('rows_moved', (certificate ->> 'rows')::BIGINT
                    + counted.rows_vanished - counted.row_count)
            ) END,
            status = CASE WHEN status = 'complete'
                AND counted.row_count + counted.quarantined = 0 THEN 'empty' ELSE status END
        FROM (
            SELECT listed.day, count(event_date) AS row_count,
                   count_if(make_timestamp_ms(time_raw)::DATE <> event_date) AS shifted_rows,
                   (SELECT count(*) FROM {VANISHED.quoted} AS vanished
                    WHERE vanished.schema_name = $schema AND vanished.table_name = $table
                    AND vanished.day = listed.day) AS rows_vanished,
                   (SELECT count(*) FROM {QUARANTINE.quoted} AS lines
                    WHERE lines.schema_name = $schema AND lines.table_name = $table
                    AND lines.day = listed.day) AS quarantined
            FROM (SELECT unnest($days::DATE[]) AS day) AS listed
            LEFT JOIN {target.quoted} ON event_date = listed.day GROUP BY listed.day
        ) AS counted
        WHERE {OF_TABLE} AND days.day = counted.day
        """,
        values,
    )
    _forget(connection, target, days, [EVENT_COUNTS])
    connection.execute(
        f"""
        INSERT INTO {EVENT_COUNTS.quoted} BY NAME
        SELECT $schema AS schema_name, $table AS table_name, event_date AS day, event_name,
               count(*) AS row_count
        FROM {target.quoted} WHERE event_date IN (SELECT unnest($days::DATE[])) GROUP BY ALL
        """,
        values,
    )


def _forget(
    connection: Connection, target: Target, days: Sequence[date], tables: Iterable[Table]
) -> None:
    for table in tables:
        values = target.names | {"days": days}
        connection.execute(f"DELETE FROM {table.quoted} WHERE {_OF_DAYS}", values)


def _insert_day(connection: Connection, key: LedgerKey, **columns: Any) -> None:
    ledger_row = {
        "schema_name": key.target.schema,
        "table_name": key.target.table,
        "type": key.type,
        "run_id": key.run_id,
        "filters": key.filters_json,
        "fetched_at": key.moment,
        **columns,
    }
    ledger_columns = ", ".join(f"${name} AS {name}" for name in ledger_row)
    connection.execute(f"INSERT INTO {DAYS.quoted} BY NAME SELECT {ledger_columns}", ledger_row)


def _insert_event_day(
    connection: Connection, key: LedgerKey, report: DayReport, row_count: int
) -> None:
    # A day of a named table may have the rows of several responses.
    is_asset, receipt = key.target.schema == SCHEMA, report.receipt
    _insert_day(
        connection,
        key,
        day=report.day,
        status=report.status,
        row_count=row_count,
        duplicates_removed=report.duplicates_removed,
        quarantined=report.quarantined,
        shifted_rows=report.shifted_rows,
        requests=report.requests,
        bytes=report.bytes,
        rows_vanished=report.rows_vanished,
        vanished_at=key.moment if report.rows_vanished else None,
        certificate=json.dumps(receipt.to_dict()) if is_asset and receipt else None,
    )


def _forget_entry(connection: Connection, key: LedgerKey, day: date) -> int:
    """Delete the ledger row of a day and filter, and return its row count."""
    of_filter = "day = $day AND filters IS NOT DISTINCT FROM $filters"
    entry = f"FROM {DAYS.quoted} WHERE {OF_TABLE} AND {of_filter}"
    values = key.target.names | {"day": day, "filters": key.filters_json}
    stored_rows = number(connection, f"SELECT coalesce(sum(row_count), 0)::BIGINT {entry}", values)
    connection.execute(f"DELETE {entry}", values)
    return stored_rows


def _add_counts(connection: Connection, target: Target, added: AddedRows) -> None:
    added_days = list({day for day, _ in added})
    stored = connection.execute(
        f"SELECT day, event_name, row_count FROM {EVENT_COUNTS.quoted} WHERE {_OF_DAYS}",
        target.names | {"days": added_days},
    )
    row_counts = Counter(added)
    row_counts.update({(day, name): count for day, name, count in stored.fetchall()})
    _forget(connection, target, added_days, [EVENT_COUNTS])
    _insert_counts(connection, target, +row_counts)


def _insert_counts(
    connection: Connection,
    target: Target,
    row_counts: AddedRows,
    digests: Mapping[tuple[date, str], str] = MappingProxyType({}),
) -> None:
    rows = [
        {
            "day": day.isoformat(),
            "event_name": name,
            "row_count": count,
            "digest": digests.get((day, name)),
        }
        for (day, name), count in row_counts.items()
    ]
    if not rows:
        return
    connection.execute(
        f"""
        INSERT INTO {EVENT_COUNTS.quoted} BY NAME
        SELECT $schema AS schema_name, $table AS table_name, day, event_name, row_count, digest
        FROM (SELECT unnest($rows::STRUCT(day DATE, event_name VARCHAR, row_count BIGINT,
                                          digest VARCHAR)[], recursive := true))
        """,
        target.names | {"rows": rows},
    )
