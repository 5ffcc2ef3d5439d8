"""Records of the caller become the lines that Mixpanel sent, and these become a named table.

So records are treated as received lines: duplicates, made ids, quarantine, exact numbers.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from duckdb import DuckDBPyConnection as Connection

from mixpanel_assets.errors import StorageError
from mixpanel_assets.rules.json_text import last_values
from mixpanel_assets.rules.lines import ReceivedDays
from mixpanel_assets.rules.made_ids import made_id
from mixpanel_assets.rules.zones import moment_of
from mixpanel_assets.warehouse import ledger
from mixpanel_assets.warehouse.events import append_events, stage_days
from mixpanel_assets.warehouse.ledger import OF_TABLE, Target
from mixpanel_assets.warehouse.lines import REMOVED_KEYS
from mixpanel_assets.warehouse.profile_pages import PageFile, stage_profiles
from mixpanel_assets.warehouse.profiles import replace_profiles
from mixpanel_assets.warehouse.project import ProjectIdentity
from mixpanel_assets.warehouse.schema import DAYS
from mixpanel_assets.warehouse.tables import NAMED_SCHEMA, free_table_name

_EVENT_COLUMNS = ("event_name", "event_time", "properties"), ("distinct_id", "insert_id")
_PROFILE_COLUMNS = ("distinct_id", "properties"), ("last_seen",)
_SEEN = "$last_seen"


class EventLines:
    """Turns normalized events into lines and collects their export days."""

    def __init__(self, project: ProjectIdentity) -> None:
        self.days: set[date] = set()
        self._zone = ZoneInfo(project.zone) if project.regime == "legacy" else None

    def __call__(self, record: Mapping[str, Any]) -> bytes:
        """Return the line of a normalized event; raise `ValueError` for anything else."""
        _require_columns(record, *_EVENT_COLUMNS)
        name = _required_text(record, "event_name")
        properties = _properties_column(record, REMOVED_KEYS)
        time_raw = self._time(record["event_time"], properties)
        distinct_id = _text_column(record, "distinct_id")
        insert_id = _text_column(record, "insert_id")
        if (
            insert_id
            and time_raw is not None
            and insert_id == made_id(name, time_raw, distinct_id, properties)
        ):
            insert_id = None  # made from the event, so not a sign of a duplicate
        columns = {"time": time_raw, "distinct_id": distinct_id, "$insert_id": insert_id}
        sent_columns = {key: value for key, value in columns.items() if value is not None}
        return _record_line({"event": name, "properties": {**sent_columns, **properties}})

    def _time(self, moment: object, properties: Mapping[str, Any]) -> int | None:
        if moment is None:
            return None
        if not isinstance(moment, datetime):
            raise ValueError("`event_time` is not a datetime")
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        if self._zone is not None:
            _refuse_ambiguous_clock(moment, self._zone, properties.get("mp_processing_time_ms"))
            moment = moment.astimezone(self._zone)
        wall_clock = moment.astimezone(UTC) if self._zone is None else moment
        self.days.add(wall_clock.date())
        since_1970 = wall_clock.replace(tzinfo=None) - datetime(1970, 1, 1)
        if since_1970 % timedelta(milliseconds=1):
            raise ValueError("`event_time` is finer than a millisecond")
        return since_1970 // timedelta(milliseconds=1)


def profile_line(record: Mapping[str, Any]) -> bytes:
    """Return the line of a normalized profile; raise `ValueError` for anything else."""
    _require_columns(record, *_PROFILE_COLUMNS)
    properties = _properties_column(record, (_SEEN,))
    distinct_id, seen = _required_text(record, "distinct_id"), _text_column(record, "last_seen")
    if seen is not None:
        properties = {**properties, _SEEN: seen}
    return _record_line({"$distinct_id": distinct_id, "$properties": properties})


def write_lines(
    records: Iterable[Mapping[str, Any]], path: Path, line: Callable[[Mapping[str, Any]], bytes]
) -> int:
    """Write the line of each record, one at a time; return their number."""
    count = 0
    # The file is read once and deleted, so speed matters more than size.
    with gzip.open(path, "wb", compresslevel=1) as file:
        for record in records:
            count += 1
            try:
                file.write(line(record) + b"\n")
            except (ValueError, TypeError, RecursionError) as error:
                raise StorageError(
                    f"Record {count} cannot be stored: {error}. Nothing was changed.",
                    {"record": count},
                ) from error
    if not count:
        path.write_bytes(b"")  # DuckDB refuses a gzip file of nothing
    return count


def _require_columns(
    record: object, columns: Sequence[str], optional_columns: Sequence[str]
) -> None:
    if not isinstance(record, Mapping):
        raise ValueError("it is not a dict")
    if not set(columns) <= record.keys() <= {*columns, *optional_columns}:
        raise ValueError(f"its keys are not {', '.join((*columns, *optional_columns))}")


def _properties_column(record: Mapping[str, Any], fixed: Iterable[str]) -> Mapping[str, Any]:
    properties = record["properties"]
    if not isinstance(properties, Mapping) or not all(type(key) is str for key in properties):
        raise ValueError("`properties` is not a dict with texts as keys")
    for name in fixed:
        if name in properties:
            raise ValueError(f"`properties` holds {name!r}, which a normalized record has beside")
    return properties


def _required_text(record: Mapping[str, Any], column: str) -> str:
    value = record[column]
    if type(value) is not str:
        raise ValueError(f"the column `{column}` is not a text")
    return value


def _text_column(record: Mapping[str, Any], column: str) -> str | None:
    return None if record.get(column) is None else _required_text(record, column)


def _refuse_ambiguous_clock(moment: datetime, zone: ZoneInfo, processed_ms: object) -> None:
    """Refuse a moment that loads would not compute from its wall clock."""
    # Clocks show the hour of a change twice. Loads take the later moment, unless Mixpanel had
    # processed the event before it.
    wall_clock = moment.astimezone(zone).replace(tzinfo=None)
    if moment_of(wall_clock, zone, processed_ms) != moment.astimezone(UTC):
        raise ValueError(
            f"`event_time` is in an hour that clocks of {zone.key} show twice, and "
            "`mp_processing_time_ms` does not say which"
        )


def _record_line(record: Mapping[str, Any]) -> bytes:
    record_json = json.dumps(record, ensure_ascii=False, allow_nan=False, default=_json_object)
    try:
        return last_values(record_json.encode())  # the keys 1 and "1" are the same name
    except UnicodeEncodeError:  # half a surrogate pair, which loads quarantine
        return json.dumps(record, allow_nan=False, default=_json_object).encode()


def _json_object(value: object) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise ValueError(f"`properties` holds a {type(value).__name__}, for which JSON has no form")


def make_events_table(
    connection: Connection,
    table: str,
    received: ReceivedDays,
    *,
    days: Collection[date],
    covers_gaps: bool,
    project: ProjectIdentity,
    open_days: Collection[date],
    filters: Mapping[str, Any],
) -> int:
    """Create a table of events in schema `main` that covers the days; return its row count.

    `covers_gaps` says that days in between without events have none. `open_days` were not over
    when their events were received.
    """
    free_table_name(connection, table, replace=False)
    with stage_days(connection, received, project=project, open_days=open_days) as staged:
        reports = append_events(connection, staged, table=table, filters=filters or None)
    if not covers_gaps:
        unknown_days = [report.day for report in reports if report.day not in days]
        ledger.forget_days(connection, Target(table, NAMED_SCHEMA), unknown_days)
    return sum(report.row_count for report in reports)


def make_profiles_table(
    connection: Connection,
    table: str,
    page: Path,
    *,
    day: date,
    project: ProjectIdentity,
    fetched_at: datetime,
    filters: Mapping[str, Any],
) -> int:
    """Create a table of profiles, fetched on a day, in schema `main`; return its row count."""
    free_table_name(connection, table, replace=False)
    target = Target(table, NAMED_SCHEMA)
    pages = [PageFile(page, fetched_at)]
    zone = project.day_zone
    with stage_profiles(connection, pages, days=[day], scope="all", zone=zone) as staged:
        [report] = replace_profiles(connection, staged, filters=filters or None, target=target)
    _set_fetched_at(connection, target, fetched_at)
    return report.row_count


def _set_fetched_at(connection: Connection, target: Target, fetched_at: datetime) -> None:
    moment = fetched_at.astimezone(UTC).replace(tzinfo=None)
    connection.execute(
        f"UPDATE {DAYS.quoted} SET fetched_at = $moment WHERE {OF_TABLE}",
        target.names | {"moment": moment},
    )
