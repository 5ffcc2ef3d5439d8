"""Received events into tables: replace days of an asset's table, or append to a named table.

Everything runs in the caller's transaction. The asset table `events` has every event, each other
asset table the events of one filter.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from functools import reduce
from itertools import pairwise
from operator import xor
from typing import Any

from duckdb import DuckDBPyConnection as Connection

from mixpanel_assets.errors import ConfigError
from mixpanel_assets.rules.lines import ReceivedDays
from mixpanel_assets.rules.zones import wall_clock_sql
from mixpanel_assets.warehouse import ledger
from mixpanel_assets.warehouse.faults import number
from mixpanel_assets.warehouse.ledger import (
    EMPTY_TWICE,
    AddedRows,
    DayReport,
    LedgerKey,
    Receipt,
    Status,
    Target,
)
from mixpanel_assets.warehouse.lines import Window, processed_ms
from mixpanel_assets.warehouse.project import ProjectIdentity
from mixpanel_assets.warehouse.quarantine import check_limits, merge_quarantine
from mixpanel_assets.warehouse.schema import EVENTS, Table
from mixpanel_assets.warehouse.staging import (
    Staging,
    contradiction,
    fill_insert_ids,
    measure_offsets,
    refuse_zone_change,
    remove_duplicates,
    stage_events,
)
from mixpanel_assets.warehouse.tables import (
    check_name,
    day_reports,
    make_table,
    named_events,
    refuse_our_names,
    target_of,
)
from mixpanel_assets.warehouse.vanished import (
    KEEP_ALL,
    Reload,
    Replacement,
    Vanished,
    lacking_lines,
    store_lines,
)

EVERY_EVENT = Target(EVENTS.name)


def events_asset_table(
    connection: Connection, target: Target, filters: Mapping[str, Any] | None
) -> Table:
    """Return the definition of an asset's table of events, which is created if it is missing.

    Raises:
        ConfigError: The name is not allowed; a filter is given for `events` or none for another
            table; or the table has the events of another filter.
    """
    check_events_asset(target.table, filters)
    if target == EVERY_EVENT:
        return EVENTS
    definition = Table(target.table, EVENTS.grain, EVENTS.columns)
    make_table(connection, definition)
    _refuse_other_filters(connection, LedgerKey(target, "events", filters=filters))
    return definition


def check_events_asset(table: str, filters: Mapping[str, Any] | None) -> None:
    """Refuse a name that an asset's table of events with these filters may not have."""
    check_name(table)
    if table != EVENTS.name and not filters:
        raise ConfigError(
            "Say which events or where; the table `events` has every event.", {"table": table}
        )
    if filters:
        refuse_our_names(EVENTS.schema, table)


def _refuse_other_filters(connection: Connection, key: LedgerKey) -> None:
    others = ledger.filters_of(connection, key.target) - {key.filters_json}
    if others:
        there = " and ".join(sorted(other or "no filter" for other in others))
        raise ConfigError(
            f"The table {key.target.schema}.{key.target.table} has the events of another filter: "
            f"{there}. This one is {key.filters_json}. Give it another name, or empty the table "
            f"first (`mp drop {key.target.table}`).",
            {"table": key.target.table, "filters": key.filters_json},
        )


# When a wall clock is set back, some hours pass twice, so equal times can be that far apart. No
# clock was ever set back by more than seven hours.
_AROUND = "INTERVAL 1 DAY"

# First the cheap columns find the few pairs that may be one event; only those are read completely.
_FIND = """
    CREATE TEMP TABLE _pairs AS
    WITH near AS MATERIALIZED (
        SELECT arrived.rowid AS arrived, stored.rowid AS stored
        FROM {staged} AS arrived JOIN (
            SELECT rowid, event_time, insert_id FROM {table} WHERE event_time BETWEEN
                (SELECT min(event_time) - {around} FROM {staged})
                AND (SELECT max(event_time) + {around} FROM {staged})
        ) AS stored ON {arrived_at} = {stored_at} AND arrived.insert_id = stored.insert_id
    )
    SELECT near.arrived, near.stored, arrived.event_date, stored.event_name,
           {arrived_rank} < {stored_rank} AS wins
    FROM near JOIN {staged} AS arrived ON arrived.rowid = near.arrived
        JOIN {table} AS stored ON stored.rowid = near.stored
    WHERE {arrived_name} = {stored_name} AND {arrived_who} IS NOT DISTINCT FROM {stored_who}
"""

_ADDED = """
    SELECT event_date, event_name, sum(rows)::BIGINT FROM (
        SELECT event_date, event_name, 1 AS rows FROM {staged} WHERE {is_new}
        UNION ALL SELECT event_date, event_name, -1 FROM _pairs WHERE wins
    ) GROUP BY ALL HAVING sum(rows) <> 0
"""


def merge(
    connection: Connection, staged: str, target: Target, window: Window, *, may_repeat: bool = True
) -> AddedRows:
    """Put staged rows without duplicates into a named table, one copy of each event.

    Unless they `may_repeat` stored events, every staged row is new. Returns the number of added
    rows by day and event name.
    """
    definition = named_events(target.table)
    table = definition.quoted
    if may_repeat:
        connection.execute(_FIND.format(staged=staged, table=table, **_joined_rows(window)))
    else:
        connection.execute(
            "CREATE TEMP TABLE _pairs (arrived BIGINT, stored BIGINT, wins BOOLEAN, "
            "event_date DATE, event_name VARCHAR)"
        )
    _refuse_ambiguity(connection, target)
    is_new = "rowid NOT IN (SELECT arrived FROM _pairs WHERE NOT wins)"
    added_rows = connection.execute(_ADDED.format(staged=staged, is_new=is_new)).fetchall()
    connection.execute(f"DELETE FROM {table} WHERE rowid IN (SELECT stored FROM _pairs WHERE wins)")
    columns = ", ".join(definition.column_names)
    connection.execute(f"INSERT INTO {table} BY NAME SELECT {columns} FROM {staged} WHERE {is_new}")
    connection.execute("DROP TABLE _pairs")
    return {(day, name): count for day, name, count in added_rows}


def _joined_rows(window: Window) -> dict[str, str]:
    joined = {"around": _AROUND}
    for alias in ("arrived", "stored"):
        joined[f"{alias}_at"] = _row_time_as_sent(alias, window)
        joined[f"{alias}_rank"] = _row_rank(alias)
        joined[f"{alias}_name"] = _row_event_name(alias)
        joined[f"{alias}_who"] = _row_distinct_id(alias)
    return joined


def _row_time_as_sent(alias: str, window: Window) -> str:
    if window.project.regime == "utc":
        return f"{alias}.event_time"
    return wall_clock_sql(f"{alias}.event_time", window.project.zone, *window.days_of_rows)


def _row_rank(alias: str) -> str:
    """Order copies as `remove_duplicates` does; the first one is kept."""
    processed = processed_ms(f"{alias}.properties -> '$.mp_processing_time_ms'")
    return (
        f"row(-coalesce({processed}, -1), md5({alias}.properties), "
        f"{alias}.distinct_id IS NULL, coalesce({alias}.distinct_id, ''))"
    )


# An event that Mixpanel moved to a hot shard has another name and no distinct_id. Its made id was
# computed before that.
def _is_moved_row(alias: str) -> str:
    return (
        f"({alias}.event_name = '$hotshard_events' AND "
        f"regexp_matches({alias}.insert_id, '^[0-9a-f]{{8}}-[0-9a-f]{{4}}-8[0-9a-f]{{3}}-'))"
    )


def _row_event_name(alias: str) -> str:
    original = f"coalesce({alias}.properties ->> '$.mp_original_event_name', {alias}.event_name)"
    return f"CASE WHEN {_is_moved_row(alias)} THEN {original} ELSE {alias}.event_name END"


def _row_distinct_id(alias: str) -> str:
    before = f"{alias}.properties ->> '$.\"$distinct_id_before_identity\"'"
    original = f"{alias}.properties ->> '$.mp_original_distinct_id'"
    return (
        f"coalesce({before}, CASE WHEN {_is_moved_row(alias)} THEN {original} "
        f"ELSE {alias}.distinct_id END)"
    )


def _refuse_ambiguity(connection: Connection, target: Target) -> None:
    # Only in hours that a wall clock skips: there, two times as sent are one `event_time`.
    if number(
        connection,
        "SELECT count(*) - least(count(DISTINCT arrived), count(DISTINCT stored)) FROM _pairs",
    ):
        raise ConfigError(
            f"{target.table!r} holds events in an hour that the project's clock skipped, so it is "
            "not known which of them these events repeat. Load the whole table again "
            "(`replace=True`, `--replace`).",
            {"table": target.table},
        )


_MOST_LEDGER_CHARACTERS = 1_000  # of an error in the ledger, which tables and pages show


@dataclass(frozen=True)
class StagedDays:
    """Received days whose rows are staged without duplicates and with their ids.

    Attributes:
        staging: The rows, and the lines that cannot be stored.
        window: The days and how their times are read.
        received_at: When the last byte was received; aware.
        reports: What each day has, in order.
    """

    staging: Staging
    window: Window
    received_at: datetime
    reports: list[DayReport]


@contextmanager
def stage_days(
    connection: Connection,
    received: ReceivedDays,
    *,
    project: ProjectIdentity,
    open_days: Collection[date] = (),
) -> Iterator[StagedDays]:
    """Read received days into a staging table, which exists until the block ends.

    Nothing of the database is needed, so nothing is locked.

    Args:
        connection: What `Database.staging` yields, or a connection to the database.
        received: The days; their bytes are shared out by rows, their requests count on the first.
        project: Whose events they are and how their times are read.
        open_days: Days that are not over yet; their status is `open`.

    Raises:
        IncompleteExportError: Lines are missing or are not events, rows belong to other days, or
            too many lines cannot be stored.
        ShiftedRowsError: Rows of a legacy project belong to other days, or its zone changed, and
            the request had several days: request each day alone.
    """
    window = Window(received.from_date, received.to_date, project)
    with stage_events(connection, received, window) as staging:
        reports = count_days(staging, window, received, open_days=open_days)
        yield StagedDays(staging, window, received.received_at, reports)


def replace_events(
    connection: Connection,
    staged: StagedDays,
    *,
    run_id: str | None = None,
    empty_before: Collection[date] | None = None,
    filters: Mapping[str, Any] | None = None,
    target: Target = EVERY_EVENT,
    reload: Reload = KEEP_ALL,
) -> list[DayReport]:
    """Store staged days in a table of an asset; return what each day holds then.

    Rows that the file has are added or replace their older version. Stored rows that it lacks
    are kept and counted (see `vanished`). Everything happens in the caller's transaction, ledger
    and quarantine included: after an error, the caller rolls back.

    Args:
        connection: A prepared database inside a transaction.
        staged: The days.
        run_id: Kept in the ledger.
        empty_before: Days for which an earlier response of this load had no line either. Other
            days without a line are left as they are, without a report, unless they are stored as
            `empty` already. None: one response is enough.
        filters: What narrowed the request, kept in the ledger; None for everything.
        target: `events`; or another table in schema `mixpanel` with the same columns, for the
            events of one filter; made when absent.
        reload: Which stored rows may be removed, and which other days the same load reads.

    Returns:
        One report for each day that was written, in order.

    Raises:
        ConfigError: The name of the table is taken, or it holds what another filter finds.
    """
    staging, window = staged.staging, staged.window
    days = (window.from_date, window.to_date)
    key = LedgerKey(target, "events", run_id, filters, staged.received_at)
    table = events_asset_table(connection, target, filters)
    reports = _with_rows_before(connection, staged, target)
    empty = [report.day for report in reports if report.status == "empty"]
    lacking = lacking_lines(
        connection, key, window, staging.quarantined, table=table.quoted, staged=staging.table
    )
    vanished = Replacement(connection, key, table, staging.table, window, reload).make(empty)
    kept = {row: day for row, day in lacking.items() if reload.keeps(day, is_empty=day in empty)}
    others = store_lines(connection, key, window, staging.quarantined, list(kept))
    vanished.lines_kept.update(kept.values())
    vanished.lines_removed.update(day for row, day in lacking.items() if row not in kept)
    reports = [_with_vanished(report, vanished) for report in reports]
    if empty_before is not None:
        confirmed = {*empty_before, *ledger.empty_days(connection, target, *days)}
        reports = [report for report in reports if not is_unconfirmed(report, confirmed)]
    ledger.write_event_days(connection, key, reports)
    others |= vanished.moved
    if others:
        stored_reports = day_reports(connection, min(others), max(others), table=target.table)
        corrected = tuple(stored_reports[day] for day in sorted(others))
        reports[0] = replace(reports[0], corrected=corrected)
    return reports


def _with_rows_before(
    connection: Connection, staged: StagedDays, target: Target
) -> list[DayReport]:
    """Return the reports of staged days with the number of rows that each had before."""
    before = ledger.rows_before(connection, target, staged.window.from_date, staged.window.to_date)
    return [replace(report, rows_before=before.get(report.day)) for report in staged.reports]


def count_days(
    staging: Staging,
    window: Window,
    received: ReceivedDays,
    *,
    open_days: Collection[date],
) -> list[DayReport]:
    """Remove duplicates from staged rows and fill their ids; return what each day then has."""
    removed = remove_duplicates(staging.connection, staging.table)
    fill_insert_ids(staging.connection, staging.table)
    tallies = _tally_rows(staging.connection, staging.table)
    row_count = sum(tally.row_count for tally in tallies.values())
    offsets = measure_offsets(staging.connection, staging.table, row_count, window)
    refuse_zone_change(window, offsets)
    shares = _byte_shares(received.received_bytes, [tallies[day].row_count for day in window.days])
    refused = Counter(line.day for line in staging.quarantined)
    reports = [
        DayReport(
            day=day,
            status=_stored_status(tallies[day].row_count + refused[day], is_open=day in open_days),
            row_count=tallies[day].row_count,
            duplicates_removed=removed.get(day, 0),
            quarantined=refused[day],
            shifted_rows=tallies[day].shifted,
            time_warning=contradiction(window.project, day, offsets.get(day)),
            requests=received.requests if day == window.from_date else 0,
            bytes=share,
            event_counts=dict(tallies[day].events),
            event_digests={name: f"{one:032x}" for name, one in tallies[day].digests.items()},
            hour_counts=tuple(tallies[day].hours[hour] for hour in range(24)),
            receipt=_receipt(received, tallies[day], removed.get(day, 0), refused[day]),
        )
        for day, share in zip(window.days, shares, strict=True)
    ]
    check_limits(reports, staging.quarantined)
    return reports


def _receipt(received: ReceivedDays, tally: _Tally, duplicates: int, quarantined: int) -> Receipt:
    return Receipt(
        lines=tally.row_count + duplicates + quarantined,
        rows=tally.row_count,
        duplicates=duplicates,
        quarantined=quarantined,
        request_from=received.from_date,
        request_to=received.to_date,
        response_lines=received.lines,
        response_bytes=received.received_bytes,
        requests=received.requests,
        digest=f"{reduce(xor, tally.digests.values(), 0):032x}",
    )


def _with_vanished(report: DayReport, vanished: Vanished) -> DayReport:
    """Add the kept rows and lines that the response lacks to the report of a day."""
    day, kept, lines = report.day, vanished.kept[report.day], vanished.lines_kept[report.day]
    events = Counter(report.event_counts)
    events.update({name: rows for (of, name), rows in vanished.events.items() if of == day})
    return replace(
        report,
        status="complete" if kept + lines and report.status == "empty" else report.status,
        row_count=report.row_count + kept,
        rows_vanished=kept,
        newly_vanished=vanished.new[day],
        rows_removed=vanished.removed[day],
        lines_removed=vanished.lines_removed[day],
        quarantined=report.quarantined + lines,
        shifted_rows=report.shifted_rows + vanished.shifted[day],
        event_counts=dict(events),
        hour_counts=tuple(
            rows + vanished.hours[day, hour] for hour, rows in enumerate(report.hour_counts)
        ),
    )


def mark_days(
    connection: Connection,
    days: Collection[date],
    status: Status,
    *,
    requests: int = 0,
    run_id: str | None = None,
    filters: Mapping[str, Any] | None = None,
    target: Target = EVERY_EVENT,
) -> list[DayReport]:
    """Write the status of days without new rows: `empty`, or why they were not loaded.

    Stored rows are kept, and so is the ledger row of a day that has rows or was loaded completely.
    The requests made count on the first day.

    Returns:
        One report for each day, in order; `row_count` is the number of its stored rows.
    """
    key = LedgerKey(target, "events", run_id, filters)
    events_asset_table(connection, target, filters)
    first, last = min(days), max(days)
    before = ledger.rows_before(connection, target, first, last)
    loaded = ledger.loaded_days(connection, target, first, last)
    reports = [
        DayReport(
            day,
            status,
            row_count=before.get(day, 0),
            rows_before=before.get(day),
            requests=0 if number else requests,
            receipt=Receipt(verdict=EMPTY_TWICE) if status == "empty" else None,
        )
        for number, day in enumerate(sorted(days))
    ]
    ledger.write_event_days(connection, key, [r for r in reports if r.day not in loaded])
    return reports


def mark_failed(
    connection: Connection,
    days: Collection[date],
    error: str,
    *,
    run_id: str | None = None,
    filters: Mapping[str, Any] | None = None,
    target: Target = EVERY_EVENT,
) -> list[date]:
    """Write why days could not be loaded, in a sentence without secrets; return the stored ones.

    Stored rows are kept, and so is the status of their days.
    """
    key = LedgerKey(target, "events", run_id, filters)
    ledger.write_failure(connection, key, days, _ledger_text(error), datetime.now(UTC))
    stored = ledger.rows_before(connection, target, min(days), max(days))
    return [day for day in days if day in stored]


def _ledger_text(error: str) -> str:
    """Return a text on one line, with control characters as escapes."""
    text = "".join(one if one.isprintable() else repr(one)[1:-1] for one in error)
    return text if len(text) <= _MOST_LEDGER_CHARACTERS else f"{text[:_MOST_LEDGER_CHARACTERS]}…"


@dataclass
class _Tally:
    """The rows of a day, counted by event and hour."""

    row_count: int = 0
    shifted: int = 0
    events: Counter[str] = field(default_factory=Counter)
    hours: Counter[int] = field(default_factory=Counter)
    digests: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))


# Of the rows in any order. No two rows are equal, for duplicates are removed and ids made: equal
# rows would cancel each other. MD5 because DuckDB's own hash differs between its versions.
# Lines that were read here are written as DuckDB writes the others: 21.90 as 21.9.
_DIGEST = """
    bit_xor(md5_number(concat_ws(
        chr(31), event_name, time_raw, coalesce(distinct_id, chr(0)), coalesce(insert_id, chr(0)),
        CASE WHEN is_odd IS NULL THEN json_merge_patch(properties, '{}') ELSE properties END
    )))
"""


def _tally_rows(connection: Connection, table: str) -> Mapping[date, _Tally]:
    counted = connection.execute(
        f"""
        SELECT event_date, event_name, hour(event_time) AS hour, count(*),
               count_if(make_timestamp_ms(time_raw)::DATE <> event_date), {_DIGEST}
        FROM {table} GROUP BY ALL ORDER BY 1, 2, 3
        """
    )
    tallies: dict[date, _Tally] = defaultdict(_Tally)
    for day, event, hour, count, shifted, digest in counted.fetchall():
        tally = tallies[day]
        tally.row_count += count
        tally.shifted += shifted
        tally.events[event] += count
        tally.hours[hour] += count
        tally.digests[event] ^= digest
    return tallies


def is_unconfirmed(report: DayReport, confirmed: Collection[date]) -> bool:
    """Whether only one response said that a day has no events."""
    return report.status == "empty" and not report.rows_before and report.day not in confirmed


def _stored_status(row_count: int, *, is_open: bool) -> Status:
    if is_open:
        return "open"
    return "complete" if row_count else "empty"


def _byte_shares(received_bytes: int, row_counts: list[int]) -> list[int]:
    """Split a total by weight; the shares add up to it. Without weights, the first gets all."""
    all_rows = sum(row_counts)
    if not all_rows:
        return [received_bytes, *[0] * (len(row_counts) - 1)]
    share_ends = [0]
    rows_before = 0
    for row_count in row_counts:
        rows_before += row_count
        share_ends.append(received_bytes * rows_before // all_rows)
    return [after - before for before, after in pairwise(share_ends)]


def append_events(
    connection: Connection,
    staged: StagedDays,
    *,
    table: str,
    filters: Mapping[str, Any] | None = None,
    is_cut: bool = False,
    run_id: str | None = None,
    empty_before: Collection[date] | None = None,
) -> list[DayReport]:
    """Add staged days to a named table, which is made if it is not there.

    Of a stored event that is received again, the copy that Mixpanel processed last is kept.
    Transaction and arguments are those of `replace_events`, with these differences:

    - `table` is a name in schema `main`; the table has the documented columns.
    - The ledger has a row for each day and `filters`.
    - `is_cut` says that a limit left out events; the days' status is `partial` then.
    - Days without a line are not written, without `empty_before`, unless the table has rows of
      them.

    Returns:
        One report for each day that was written, in order; `row_count` is the number of
        different events received for it, whether they were stored before or not.

    Raises:
        ConfigError: The name is taken or the table holds something else; or a day of a legacy
            project is stored already, and its rows cannot be told from those of other days.
    """
    staging, window = staged.staging, staged.window
    key = LedgerKey(target_of(table, EVENTS), "events", run_id, filters, staged.received_at)
    make_table(connection, named_events(table))
    reports = _with_rows_before(connection, staged, key.target)
    may_repeat = _may_repeat(connection, key.target, window, reports)
    added = merge(connection, staging.table, key.target, window, may_repeat=may_repeat)
    merge_quarantine(connection, key, window.from_date, window.to_date, staging.quarantined)
    if is_cut:
        reports = [replace(report, status="partial") for report in reports]
    if empty_before is not None:
        reports = [report for report in reports if not is_unconfirmed(report, empty_before)]
    ledger.add_event_days(connection, key, reports, added)
    return reports


def mark_empty_days(
    connection: Connection,
    days: Collection[date],
    *,
    table: str,
    filters: Mapping[str, Any] | None = None,
    run_id: str | None = None,
) -> None:
    """Write that days of a named table have no events."""
    key = LedgerKey(target_of(table, EVENTS), "events", run_id, filters)
    ledger.add_event_days(connection, key, [DayReport(day, "empty") for day in days], {})


def _may_repeat(
    connection: Connection, target: Target, window: Window, reports: Collection[DayReport]
) -> bool:
    """Return whether staged rows may be stored events that arrive again.

    In a legacy project, a row can have the date of another day than it arrived with, and equal rows
    of two days are two events.
    """
    if window.project.regime == "utc":
        return True
    shifted = ledger.shifted_rows(connection, target)
    again = [day for day in window.days if day in shifted]
    others = shifted.keys() - set(window.days)
    if again and others and any([*shifted.values(), *(r.shifted_rows for r in reports)]):
        raise ConfigError(
            f"{target.table!r} already contains {again[0]}, and some rows have a date that is not "
            "their export day. Load the whole table again (`replace=True`, `--replace`).",
            {"table": target.table, "day": again[0].isoformat()},
        )
    return bool(again)
