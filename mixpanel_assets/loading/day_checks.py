"""Checks of one stored day of events: what is wrong or unusual about its rows.

A check that has too little to compare with passes and says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from statistics import median
from typing import Any, Literal, NamedTuple

from duckdb import DuckDBPyConnection as Connection
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mixpanel_assets.errors import ConfigError
from mixpanel_assets.results import Result
from mixpanel_assets.rules.days import counted, how_to_load
from mixpanel_assets.rules.zones import periods
from mixpanel_assets.settings import complaints
from mixpanel_assets.warehouse import (
    EVENTS,
    SCHEMA,
    DayReport,
    ProjectIdentity,
    RowFacts,
    SampledProperties,
    day_reports,
    quarantine_reasons,
    row_facts,
    sampled_properties,
    stored_project,
    time_contradictions,
)

ROWS_VANISHED = "rows_vanished"
_DAY = timedelta(days=1)
_WEEK = timedelta(days=7)
_FEWEST_WEEKS = 3  # of which the median is not one odd day
_MOST_SHOWN = 20
_MINUTE = timedelta(minutes=1)


class CheckThresholds(BaseModel):
    """When the checks of a day warn."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    quarantined_rows: int = Field(
        default=0, ge=0, description="Lines of a day that may be in the quarantine."
    )
    duplicate_share: float = Field(
        default=0.1, ge=0, le=1, description="Share of the received events that may be duplicates."
    )
    null_id_share: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Share of the events that may lack a `distinct_id`, and an `$insert_id`.",
    )
    volume_low: float = Field(
        default=0.5, ge=0, le=1, description="Fewer events than this share of the usual number."
    )
    volume_high: float = Field(
        default=2.0, ge=1, description="More events than this multiple of the usual number."
    )
    volume_rows: int = Field(
        default=100, ge=1, description="Days and events with fewer rows are not compared."
    )
    volume_weeks: int = Field(
        default=4,
        ge=3,
        le=52,
        description="The usual number is that of the same weekday in this number of weeks before.",
    )
    unexplained_events: int = Field(
        default=0,
        ge=0,
        description="Events of a day by which counts may differ from Mixpanel's own, unexplained.",
    )
    property_days: int = Field(
        default=3, ge=1, le=31, description="Days before with which properties are compared."
    )
    property_rows: int = Field(
        default=10,
        ge=2,
        description="Sampled rows in which a property must be expected before its absence counts.",
    )

    @classmethod
    def given(cls, **values: Any) -> CheckThresholds:
        """Return these thresholds; the others have their defaults.

        Args:
            **values: Fields of this class.

        Raises:
            ConfigError: A value cannot be used; the message names it.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            raise ConfigError(
                f"These thresholds of checks cannot be used. {complaints(error)}."
            ) from error


@dataclass(frozen=True, repr=False)
class CheckOutcome(Result):
    """The result of one check, of all days or of one.

    Attributes:
        check: Its name.
        passed: Whether nothing was found.
        detail: What was found, as a sentence.
        remedy: What to do; empty if nothing is needed.
        severity: `error` if rows are missing or wrong, `warn` if the day is unusual.
        day: The day; None for a check of all days.
        numbers: What was counted.
        rows: What was found, one row each.
    """

    check: str
    passed: bool
    detail: str
    remedy: str = ""
    severity: Literal["warn", "error"] = "warn"
    day: date | None = None
    numbers: Mapping[str, int | float] = field(default_factory=dict)
    rows: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Facts:
    """What is known of the days to check, and of those that they are compared with.

    Attributes:
        table: The table in schema `mixpanel`.
        asset: The key of its asset; None: that of the only project.
        project: How its times are read.
        reports: The ledger's, by day.
        rows: Counts of stored rows.
        reasons: Of lines in the quarantine.
        contradictions: What the events say against the time settings.
        properties: Samples, by day and event name.
        thresholds: When a check warns.
    """

    table: str
    asset: str | None
    project: ProjectIdentity
    reports: Mapping[date, DayReport]
    rows: Mapping[date, RowFacts]
    reasons: Mapping[date, Mapping[str, int]]
    contradictions: Mapping[date, str]
    properties: Mapping[date, Mapping[str, SampledProperties]]
    thresholds: CheckThresholds

    def how_to_load_again(self, day: date) -> str:
        """Return the ways to load a stored day again."""
        return how_to_load([day], self.table, again=True, asset=self.asset)


def _vanished(facts: Facts, report: DayReport) -> CheckOutcome:
    numbers = {"rows_vanished": report.rows_vanished}
    if not report.rows_vanished:
        said = f"Mixpanel still sent every stored row of {report.day}."
        return _passed(ROWS_VANISHED, report, said, numbers)
    shell = ""
    if (facts.asset or f"{SCHEMA}/{facts.table}") == f"{SCHEMA}/{EVENTS.name}":
        shell = f", or run `mp sync --accept-smaller --from {report.day} --to {report.day}`"
    return CheckOutcome(
        ROWS_VANISHED,
        False,
        f"Mixpanel does not send {report.rows_vanished:,} stored rows of {report.day} any more. "
        "They are kept, and `mixpanel._vanished` lists them.",
        f"To remove them, materialize the day with `accept_smaller: true`{shell}; `mp drop-day` "
        "removes the whole day.",
        day=report.day,
        numbers=numbers,
    )


def _quarantine(facts: Facts, report: DayReport) -> CheckOutcome:
    lines, day = report.quarantined, report.day
    reasons = facts.reasons.get(day, {})
    numbers = {"rows_quarantined": lines}
    if lines <= facts.thresholds.quarantined_rows:
        return _passed(
            "rows_quarantined", report, f"{counted(lines, 'line')} in the quarantine.", numbers
        )
    return CheckOutcome(
        "rows_quarantined",
        False,
        f"{counted(lines, 'line')} of {day} cannot be stored as events and "
        f"{'is' if lines == 1 else 'are'} in the quarantine: {'; '.join(list(reasons)[:3])}.",
        f"`FROM mixpanel._quarantine WHERE day = '{day}'` shows the bytes and the reason of each. "
        "Correct what sends them.",
        day=day,
        numbers=numbers,
        rows=[{"reason": reason, "lines": count} for reason, count in reasons.items()],
    )


def _duplicates(facts: Facts, report: DayReport) -> CheckOutcome:
    removed, limit = report.duplicates_removed, facts.thresholds.duplicate_share
    received = report.row_count - report.rows_vanished + removed
    share = removed / received if received else 0.0
    numbers = {"duplicates_removed": removed, "duplicate_share": round(share, 4)}
    said = (
        f"{share:.1%} of the events that Mixpanel sent for {report.day} were duplicates "
        f"({removed:,} of {received:,})"
    )
    if share <= limit:
        return _passed("duplicate_share", report, f"{said}.", numbers)
    return CheckOutcome(
        "duplicate_share",
        False,
        f"{said}, more than {limit:.0%}. The load has removed them.",
        "Look for an app or a server that sends events again after a success.",
        day=report.day,
        numbers=numbers,
    )


def _ids(facts: Facts, report: DayReport) -> CheckOutcome:
    day, limit = report.day, facts.thresholds.null_id_share
    rows = facts.rows.get(day, RowFacts())
    lacking = {"distinct_id": rows.without_distinct_id, "$insert_id": rows.without_insert_id}
    shares = {name: of.total() / max(rows.rows, 1) for name, of in lacking.items()}
    numbers = {
        "rows_without_distinct_id": rows.without_distinct_id.total(),
        "rows_without_insert_id": rows.without_insert_id.total(),
    }
    parts = [
        f"{shares[name]:.1%} have no `{name}` ({of.total():,} rows)" for name, of in lacking.items()
    ]
    detail = f"Of the events of {day}, {' and '.join(parts)}"
    if max(shares.values()) <= limit:
        return _passed("null_ids", report, f"{detail}.", numbers)
    found = [
        {"event": event, "without": name, "rows": count}
        for name, of in lacking.items()
        if shares[name] > limit
        for event, count in of.most_common(_MOST_SHOWN)
        if count
    ]
    return CheckOutcome(
        "null_ids",
        False,
        f"{detail}; {limit:.0%} may lack one. Most of them: {found[0]['event']}.",
        "Send both with each event: without a `distinct_id` an event belongs to no user, and "
        "without an `$insert_id` duplicates cannot be told from events.",
        day=day,
        numbers=numbers,
        rows=found,
    )


def _times(facts: Facts, report: DayReport) -> CheckOutcome:
    day, project = report.day, facts.project
    rows = facts.rows.get(day, RowFacts())
    known = {0}
    if project.regime == "legacy":
        around = periods(project.zone, day - _DAY, day + _DAY)
        known = {one.offset // _MINUTE for one in around}
    misread = sum(count for minutes, count in rows.ahead.items() if minutes not in known)
    numbers = {"rows_of_another_date": rows.elsewhere, "rows_with_wrong_event_time": misread}
    is_utc = project.regime == "utc"
    faults = []
    if rows.rows != report.row_count:
        faults.append(f"{day} has {rows.rows:,} rows, but {report.row_count:,} were loaded")
    if rows.elsewhere:
        faults.append(f"{rows.elsewhere:,} rows of {day} have a `time` of another date")
    if misread:
        faults.append(f"{misread:,} rows of {day} have an `event_time` that is not their `time`")
    if faults and (is_utc or misread or rows.rows != report.row_count):
        return CheckOutcome(
            "event_times",
            False,
            f"{' and '.join(faults)}. The table was changed after the load.",
            f"Load the day again: {facts.how_to_load_again(day)}.",
            "error",
            day,
            numbers,
        )
    if said := facts.contradictions.get(day):
        remedy = "Compare MP_TIME_REGIME and MP_TIME_ZONE with the settings of the project."
        return CheckOutcome("event_times", False, said, remedy, "warn", day, numbers)
    if faults:
        remedy = "Nothing is lost. The project's time zone was another one on that day."
        return CheckOutcome("event_times", False, f"{faults[0]}.", remedy, "warn", day, numbers)
    return _passed("event_times", report, f"Each `event_time` belongs to {day}.", numbers)


def _volume(facts: Facts, report: DayReport) -> CheckOutcome:
    day, limits = report.day, facts.thresholds
    if report.status == "open":
        return _passed("daily_volume", report, f"{day} had not ended when it was loaded.")
    weeks = (day - _WEEK * number for number in range(1, limits.volume_weeks + 1))
    before = [
        facts.reports[other]
        for other in weeks
        if other in facts.reports and facts.reports[other].status in ("complete", "empty")
    ]
    if len(before) < _FEWEST_WEEKS:
        said = f"{len(before)} of the last {limits.volume_weeks} same weekdays are stored"
        return _passed("daily_volume", report, f"Too little to compare with: {said}.")
    usual = median(one.row_count for one in before)
    moves = _moves(report, before)
    gone = [move.event for move in moves if not move.rows and move.usual >= limits.volume_rows]
    numbers = {"rows": report.row_count, "usual_rows": round(usual)}
    detail = f"{day} has {report.row_count:,} events; usual for a {day:%A} are {usual:,.0f}."
    if moves:
        detail += (
            f" `{moves[0].event}` moved most: {moves[0].rows:,} instead of {moves[0].usual:,}."
        )
    is_large = max(usual, report.row_count) >= limits.volume_rows
    is_odd = not limits.volume_low * usual <= report.row_count <= limits.volume_high * usual
    if not (is_large and is_odd) and not gone:
        return _passed("daily_volume", report, detail, numbers)
    if gone:
        detail += f" Not one event of: {', '.join(gone[:5])}."
    return CheckOutcome(
        "daily_volume",
        False,
        detail,
        "Look for a release, a campaign or an outage. If Mixpanel's own report has another "
        f"number, load the day again: {facts.how_to_load_again(day)}.",
        day=day,
        numbers=numbers,
        rows=[
            {"event": move.event, "rows": move.rows, "usual_rows": move.usual}
            for move in moves[:_MOST_SHOWN]
        ],
    )


class _Move(NamedTuple):
    """The rows of an event on a day, and the usual number."""

    event: str
    rows: int
    usual: int


def _moves(report: DayReport, before: Sequence[DayReport]) -> list[_Move]:
    """Return every event with another number than the usual one, the largest difference first."""
    names = {name for one in (report, *before) for name in one.event_counts}
    moves = (
        _Move(
            name,
            report.event_counts.get(name, 0),
            round(median(one.event_counts.get(name, 0) for one in before)),
        )
        for name in sorted(names)
    )
    different = (move for move in moves if move.rows != move.usual)
    return sorted(different, key=lambda move: -abs(move.rows - move.usual))


def _properties(facts: Facts, report: DayReport) -> CheckOutcome:
    day, limits = report.day, facts.thresholds
    before: dict[str, SampledProperties] = {}
    days = [day - _DAY * number for number in range(1, limits.property_days + 1)]
    for other in days:
        for event, sample in facts.properties.get(other, {}).items():
            before.setdefault(event, SampledProperties()).add(sample)
    now = facts.properties.get(day, {})
    compared = sorted(before.keys() & now.keys())
    numbers = {"events_compared": len(compared)}
    if not compared:
        said = "no event of the day is stored for the days before"
        return _passed("property_changes", report, f"Too little to compare with: {said}.", numbers)
    changes = [
        {"event": event, **change}
        for event in compared
        for change in _changes(before[event], now[event], limits.property_rows)
    ]
    numbers["changes"] = len(changes)
    if not changes:
        said = f"The properties of {len(compared):,} events are those of the days before."
        return _passed("property_changes", report, said, numbers)
    first = changes[0]
    return CheckOutcome(
        "property_changes",
        False,
        f"{len(changes):,} properties of {day} differ from the {len(days)} days before: "
        f"`{first['property']}` of `{first['event']}` is {first['change']} "
        f"({first['before']}, now {first['now']}).",
        "Queries of these properties may need a change. If it was not intended, look for a release "
        "of the app that sends them.",
        day=day,
        numbers=numbers,
        rows=changes[:_MOST_SHOWN],
    )


def _changes(
    before: SampledProperties, now: SampledProperties, fewest: int
) -> Iterator[dict[str, str]]:
    """Yield new, vanished and retyped properties of one event.

    A property counts as vanished if `fewest` rows of the day were expected to have it, and as new
    likewise.
    """
    for name in sorted(before.seen.keys() | now.seen.keys()):
        was, is_now = before.seen[name] / before.rows, now.seen[name] / now.rows
        change = {"property": name, "before": f"{was:.0%} of the rows", "now": f"{is_now:.0%}"}
        if not now.seen[name] and was * now.rows >= fewest:
            yield {**change, "change": "vanished"}
        elif not before.seen[name] and is_now * before.rows >= fewest <= now.seen[name]:
            yield {**change, "change": "new"}
        kinds = [_main_kind(sample.kinds.get(name), fewest) for sample in (before, now)]
        if all(kinds) and kinds[0] != kinds[1]:
            yield {
                "property": name,
                "before": f"{kinds[0]}",
                "now": f"{kinds[1]}",
                "change": "retyped",
            }


def _main_kind(kinds: Counter[str] | None, fewest: int) -> str | None:
    """Return the kind of nine of ten values; None if there is none, or too few values."""
    if not kinds or kinds.total() < fewest:
        return None
    kind, values = kinds.most_common(1)[0]
    return kind if values >= 0.9 * kinds.total() else None


def _passed(
    check: str, report: DayReport, detail: str, numbers: Mapping[str, int | float] | None = None
) -> CheckOutcome:
    return CheckOutcome(check, True, detail, day=report.day, numbers=numbers or {})


_CHECKS: dict[str, Callable[[Facts, DayReport], CheckOutcome]] = {
    ROWS_VANISHED: _vanished,
    "rows_quarantined": _quarantine,
    "duplicate_share": _duplicates,
    "null_ids": _ids,
    "event_times": _times,
    "daily_volume": _volume,
    "property_changes": _properties,
}
DAY_CHECKS = tuple(_CHECKS)


def check_days(
    connection: Connection,
    days: Sequence[date],
    *,
    table: str,
    asset: str | None = None,
    checks: Collection[str] = DAY_CHECKS,
    thresholds: CheckThresholds | None = None,
) -> list[CheckOutcome]:
    """Return the results of checks of days, by day; a day without rows passes them.

    Args:
        connection: Of a database that may be read.
        days: The days.
        table: Its name in schema `mixpanel`.
        asset: The key of its asset; None: that of the only project.
        checks: Names of the checks.
        thresholds: When a check warns.
    """
    facts = _facts(connection, days, table, asset, set(checks), thresholds or CheckThresholds())
    outcomes = []
    for day in sorted(days):
        report = facts.reports.get(day) if facts else None
        for name in _CHECKS:
            if name not in checks:
                continue
            if facts and report and (report.row_count or name == "rows_quarantined"):
                outcomes.append(_CHECKS[name](facts, report))
            else:
                said = f"No event is stored for {day}."
                outcomes.append(CheckOutcome(name, True, said, day=day))
    return outcomes


def _facts(
    connection: Connection,
    days: Sequence[date],
    table: str,
    asset: str | None,
    checks: Collection[str],
    thresholds: CheckThresholds,
) -> Facts | None:
    """Read what the checks need; None if nothing is stored."""
    project = stored_project(connection)
    if not days or not project:
        return None
    earliest = min(days) - _WEEK * thresholds.volume_weeks
    reports = day_reports(connection, earliest, max(days), table=table)
    stored = [day for day in days if day in reports and reports[day].row_count]
    around = {day - _DAY * ago for day in stored for ago in range(thresholds.property_days + 1)}
    sampled = sorted(day for day in around if day in reports and reports[day].row_count)
    times, ids = "event_times" in checks, "null_ids" in checks
    return Facts(
        table=table,
        asset=asset,
        project=project,
        reports=reports,
        rows=row_facts(connection, table, stored) if stored and (times or ids) else {},
        reasons=quarantine_reasons(connection, table, days),
        contradictions=(
            time_contradictions(connection, table, stored, project) if stored and times else {}
        ),
        properties=(
            sampled_properties(connection, table, sampled)
            if sampled and "property_changes" in checks
            else {}
        ),
        thresholds=thresholds,
    )
