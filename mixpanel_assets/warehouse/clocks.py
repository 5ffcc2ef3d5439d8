"""What the rows themselves say about how their `time` is to be read.

`$mp_api_timestamp_ms` is true UTC in every project. Most live events reach Mixpanel within two
minutes, so where `time` runs ahead of it by a fixed multiple of a quarter of an hour, `time` is
a wall clock, and the multiple is the zone's offset.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import duckdb

from mixpanel_assets.warehouse.leftovers import ShiftedRowsError
from mixpanel_assets.warehouse.project import ProjectIdentity
from mixpanel_assets.warehouse.spool import Window

_ROWS_A_DAY = 500  # looked at, of which most must agree
_FEWEST = 20
_MOST_BYTES = 1 << 16  # of properties; DuckDB takes 30 times the memory to read a value of them

_MEASURE = """
    WITH sample AS (
        SELECT event_date, time_raw,
               CASE WHEN strlen(properties) <= {most} THEN properties END AS properties
        FROM {table} WHERE rowid % ? = 0
    ), live AS (
        SELECT event_date,
               time_raw - try_cast(properties ->> '$."$mp_api_timestamp_ms"' AS BIGINT) AS ahead
        FROM sample WHERE (properties ->> '$."$import"') IS DISTINCT FROM 'true'
    ), middle AS (
        SELECT event_date, round(median(ahead) / 900000)::BIGINT * 15 AS minutes
        FROM live GROUP BY ALL
    )
    SELECT event_date, minutes FROM live JOIN middle USING (event_date)
    WHERE ahead IS NOT NULL GROUP BY ALL
    HAVING count(*) >= ? AND count_if(abs(ahead - minutes * 60000) <= 120000) > count(*) / 2
"""


def measured_offsets(
    connection: duckdb.DuckDBPyConnection, table: str, row_count: int, window: Window
) -> dict[date, int]:
    """Return by how many minutes `time` runs ahead of UTC, for days whose events agree on it.

    Args:
        connection: Reads the table.
        table: Freshly staged rows; the qualified, quoted name.
        row_count: How many rows it has; a sample of them is looked at.
        window: The asked days.
    """
    step = max(1, row_count // (_ROWS_A_DAY * len(window.days)))
    measure = _MEASURE.format(table=table, most=_MOST_BYTES)
    return dict(connection.execute(measure, [step, _FEWEST]).fetchall())


def refuse_zone_change(window: Window, offsets: Mapping[date, int]) -> None:
    """Raise if the project's zone changed between the asked days of a legacy project.

    Rows around the change may then carry the date of another asked day, which only an
    answer of one day can tell.

    Raises:
        ShiftedRowsError: It changed; ask day by day.
    """
    if window.project.regime != "legacy" or window.keeps_shifted:
        return
    zone = ZoneInfo(window.project.zone)
    astray = {day: _astray(day, minutes, zone) for day, minutes in offsets.items()}
    if len(set(astray.values())) > 1:
        days = ", ".join(f"{day} ({minutes:+} min)" for day, minutes in sorted(astray.items())[:5])
        raise ShiftedRowsError(
            f"The export {window.from_date}..{window.to_date} cannot be stored: the project's zone "
            f"changed on the way; `time` differs from {window.project.zone} by: {days}. Nothing "
            "was changed.",
            from_date=window.from_date,
            to_date=window.to_date,
            reason="zone change",
        )


def contradiction(project: ProjectIdentity, day: date, minutes: int | None) -> str | None:
    """Say what the settings should be when a day's events contradict them, else None."""
    if minutes is None:
        return None
    zone = ZoneInfo(project.zone if project.regime == "legacy" else "UTC")
    if not _astray(day, minutes, zone):
        return None
    if project.regime == "utc":
        return (
            f"`time` of {day} runs {minutes:+} minutes ahead of UTC, so this project seems to be "
            "one from before 2023: set MP_TIME_REGIME=legacy and MP_TIME_ZONE to its zone."
        )
    if minutes == 0:
        return (
            f"`time` of {day} is true UTC, not the wall clock of {project.zone}: set "
            "MP_TIME_REGIME=utc, or MP_TIME_ZONE to the project's zone."
        )
    return (
        f"`time` of {day} runs {minutes:+} minutes ahead of UTC, which is not {project.zone}: set "
        "MP_TIME_ZONE to the project's zone, unless it was another one on that day."
    )


def _astray(day: date, minutes: int, zone: ZoneInfo) -> int:
    """Return the minutes by which a measured offset misses the zone's, on a day of a change too."""
    ends = (datetime.combine(day, time(), zone), datetime.combine(day, time(23, 59), zone))
    offsets = [(end.utcoffset() or timedelta()) // timedelta(minutes=1) for end in ends]
    return min((minutes - offset for offset in offsets), key=abs)
