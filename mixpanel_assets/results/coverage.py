"""Which days are stored: a row per table and day, and their calendar as SVG and HTML."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from html import escape
from itertools import groupby
from typing import Literal

from mixpanel_assets.results.base import Result, ResultWithDataFrame, Table

CoverageStatus = Literal[
    "complete",
    "empty",
    "open",
    "partial",
    "stale",
    "failed",
    "never loaded",
    "not available",
    "expired",
    "only ours",
]


@dataclass(frozen=True)
class Look:
    """How a status is drawn, and what it means.

    Attributes:
        symbol: Where there is no color.
        color: As in HTML.
        is_stored: Whether such a day has a full square; others have a small one.
        meaning: In a clause.
    """

    symbol: str
    color: str
    is_stored: bool
    meaning: str


_FEWEST_WEEKS = 4  # of a month whose name has room
MOST_WEEKS = 54  # that a year can have, the first and the last one in part

# In the order of legends.
LOOKS: Mapping[CoverageStatus, Look] = {
    "complete": Look("#", "#2da44e", True, "stored completely"),
    "stale": Look("~", "#8fce9b", True, "stored before Mixpanel stopped taking late events"),
    "open": Look(">", "#54aeff", True, "stored before its end"),
    "empty": Look("0", "#c5cbd2", True, "Mixpanel sent nothing, which a second response confirmed"),
    "partial": Look("/", "#e3b341", True, "stored in part"),
    "only ours": Look("*", "#8250df", True, "stored, and Mixpanel has none of it any more"),
    "failed": Look("!", "#cf222e", False, "not stored, because the last attempt failed"),
    "never loaded": Look(
        ".", "#8c959f", False, "not stored; never requested, or deleted from this copy since"
    ),
    "not available": Look("-", "#bf8700", False, "not stored, beyond the reach of the plan"),
    "expired": Look("x", "#57606a", False, "not stored, and Mixpanel has deleted it"),
}


@dataclass(frozen=True, repr=False)
class CoveredDay(Result):
    """One day of a table.

    Attributes:
        table: The table in schema `mixpanel`.
        day: The export day of events, or the day of a snapshot of profiles.
        row_count: Rows stored.
        fetched_at: When the day was loaded; aware, UTC; None if it never was.
    """

    table: str
    day: date
    status: CoverageStatus
    row_count: int
    fetched_at: datetime | None

    def __str__(self) -> str:
        when = f", {self.fetched_at:%Y-%m-%d %H:%M} UTC" if self.fetched_at else ""
        return f"{self.day}: {self.status}, {self.row_count:,} rows{when}"


@dataclass(frozen=True, repr=False)
class CoverageResult(ResultWithDataFrame):
    """The days of tables, from the first to the last one wanted; a notebook shows their calendar.

    Attributes:
        days: By table and day.
    """

    days: tuple[CoveredDay, ...]

    @property
    def counts(self) -> dict[str, dict[CoverageStatus, int]]:
        """The number of days by table and status."""
        return {table: counts_of(days) for table, days in self.by_table()}

    def by_table(self) -> Iterator[tuple[str, list[CoveredDay]]]:
        """Yield each table with its days in order."""
        for table, days in groupby(self.days, lambda day: day.table):
            yield table, list(days)

    def ranges(self) -> list[dict[str, str | int]]:
        """Return consecutive days of a table with one status as one row, in order."""
        return [row for _, days in self.by_table() for row in _ranges(days)]

    def svg(self, *, details: bool = True) -> str:
        """Return the calendar of each table as an SVG image; a column is a week.

        Args:
            details: Whether each day says its rows and when it was loaded under the pointer, which
                takes 100 bytes a day.

        Example:
            >>> Path("coverage.svg").write_text(ws.coverage().svg())
        """
        drawing = _Drawing(details)
        tables = list(self.by_table())
        for table, days in tables:
            drawing.add(table if len(tables) > 1 else "", days)
        return drawing.finish()

    def html(self, title: str = "Coverage") -> str:
        """Return a page with the calendars, and with the ranges of days by status.

        Args:
            title: Of the page.
        """
        head = (name.replace("_", " ") for name in RANGE_COLUMNS)
        rows = "".join(_html_row("td", row.values()) for row in self.ranges())
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f"<title>{escape(title)}</title><style>body{{font:14px sans-serif;margin:2em}}"
            "svg{max-width:100%;height:auto}table{border-collapse:collapse;margin-top:2em}"
            "td,th{padding:2px 12px 2px 0;text-align:left}</style></head>"
            f"<body><h1>{escape(title)}</h1>{self.svg()}"
            f"<table>{_html_row('th', head)}{rows}</table></body></html>\n"
        )

    def _repr_html_(self) -> str:
        return self.svg()

    def _table(self) -> Table:
        rows = [(d.table, d.day, d.status, d.row_count, d.fetched_at) for d in self.days]
        return Table(("table", "day", "status", "row_count", "fetched_at"), rows)


def counts_of(days: Iterable[CoveredDay]) -> dict[CoverageStatus, int]:
    """Return the number of days by status, in the order of legends."""
    counts = Counter(day.status for day in days)
    return {status: counts[status] for status in LOOKS if counts[status]}


RANGE_COLUMNS = ("table", "first_day", "last_day", "days", "status", "row_count")


def _ranges(days: Iterable[CoveredDay]) -> Iterator[dict[str, str | int]]:
    for status, same in groupby(days, lambda day: day.status):
        group = list(same)
        first, last = group[0], group[-1]
        rows = sum(day.row_count for day in group)
        values = (first.table, f"{first.day}", f"{last.day}", len(group), status, rows)
        yield dict(zip(RANGE_COLUMNS, values, strict=True))


def _html_row(cell: str, values: Iterable[str | int]) -> str:
    texts = (f"{value:,}" if isinstance(value, int) else escape(value) for value in values)
    return f"<tr>{''.join(f'<{cell}>{text}</{cell}>' for text in texts)}</tr>"


@dataclass(frozen=True)
class Weeks:
    """Some weeks of a calendar; they are its columns, and begin on Monday.

    Attributes:
        year: The year of the first day.
        days: By week (from 0) and weekday (Monday is 0).
        months: The week in which each month begins, and its name in three characters. January has
            the number of its year, unless it is the first month.
    """

    year: int
    days: Mapping[tuple[int, int], CoveredDay]
    months: Sequence[tuple[int, str]]

    @property
    def number(self) -> int:
        """The number of columns, the empty ones before the first day included."""
        return max(week for week, _ in self.days) + 1


def calendar_of(days: Sequence[CoveredDay], most_weeks: int = MOST_WEEKS) -> list[Weeks]:
    """Return the days of a table as a calendar: a year at a time, if they do not fit at once.

    Args:
        days: Without gaps, in order, at least one.
        most_weeks: The most columns; less than a year of them begin with any month.
    """
    first, last = days[0].day, days[-1].day
    if _week(last, first) < most_weeks:
        return [_weeks(days, first)]
    if most_weeks >= MOST_WEEKS:
        # Each year begins with its first week, so that months stand below each other.
        years = groupby(days, lambda day: day.day.year)
        return [_weeks(list(of_year), date(year, 1, 1)) for year, of_year in years]
    parts = groupby(days, lambda day: _week(day.day, first) // most_weeks)
    return [_weeks(part := list(group), part[0].day) for _, group in parts]


def _weeks(days: Sequence[CoveredDay], begin: date) -> Weeks:
    months: dict[date, int] = {}
    for one in days:
        months.setdefault(one.day.replace(day=1), _week(max(begin, one.day.replace(day=1)), begin))
    names = [
        (week, f"{month:'%y}" if month.month == 1 and number else f"{month:%b}")
        for number, (month, week) in enumerate(months.items())
    ]
    if len(names) > 1 and names[1][0] < _FEWEST_WEEKS:
        del names[0]
    cells = {(_week(one.day, begin), one.day.weekday()): one for one in days}
    return Weeks(days[0].day.year, cells, names)


def _week(day: date, begin: date) -> int:
    """Return the column of a day: 0 for the week of the beginning."""
    return ((day - begin).days + begin.weekday()) // 7


WEEKDAYS = {0: "Mon", 3: "Thu", 6: "Sun"}  # that are labelled
_LABELS = 28  # pixels left of the days
_LINE = 13  # pixels of a line of text
_STEP = 14  # pixels from a day to the next one
_STORED, _NOT_STORED = 12, 6  # pixels of a day
_WIDTH = _LABELS + MOST_WEEKS * _STEP


class _Drawing:
    """An SVG image that grows downwards."""

    def __init__(self, details: bool) -> None:
        self._details = details
        self._y = 0
        self._texts: list[str] = []
        self._shapes: list[str] = []
        self._titles: list[str] = []

    def add(self, heading: str, days: Sequence[CoveredDay]) -> None:
        """Draw the calendar of a table, and its legend."""
        if heading:
            self._y += 2 * _LINE if self._y else _LINE
            self._text(0, self._y, heading)
            self._y += 4
        for weeks in calendar_of(days):
            self._draw(weeks)
        self._draw_legend(counts_of(days))

    def finish(self) -> str:
        """Return the image."""
        height = self._y
        titles = f'<g fill-opacity="0">{"".join(self._titles)}</g>' if self._titles else ""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
            f'viewBox="0 0 {_WIDTH} {height}">'
            f'<g style="font:10px sans-serif" fill="gray">{"".join(self._texts)}</g>'
            f"{''.join(self._shapes)}{titles}</svg>"
        )

    def _text(self, x: int, y: int, text: str) -> None:
        at = f'x="{x}" ' if x else ""
        self._texts.append(f'<text {at}y="{y}">{escape(text)}</text>')

    def _draw(self, weeks: Weeks) -> None:
        self._y += _LINE
        self._text(0, self._y - 3, str(weeks.year))
        for week, name in weeks.months:
            self._text(_LABELS + week * _STEP, self._y - 3, name)
        for weekday, name in WEEKDAYS.items():
            self._text(0, self._y + weekday * _STEP + _STEP // 2 + 3, name)
        by_status: dict[CoverageStatus, list[tuple[int, int]]] = {}
        for cell, day in sorted(weeks.days.items(), key=lambda item: item[0][::-1]):
            by_status.setdefault(day.status, []).append(cell)
        for status, cells in by_status.items():
            self._draw_days(status, cells)
        if self._details:
            for (week, weekday), day in weeks.days.items():
                self._titles.append(
                    f'<rect x="{_LABELS + week * _STEP}" y="{self._y + weekday * _STEP}" '
                    f'width="{_STEP}" height="{_STEP}"><title>{day}</title></rect>'
                )
        self._y += 7 * _STEP

    def _draw_days(self, status: CoverageStatus, cells: Sequence[tuple[int, int]]) -> None:
        """Draw days with one status, which are sorted by weekday and week."""
        # Equal days of a row are one dashed line: squares of their own would be ten times as long.
        size = _size(status)
        lines = []
        for weekday, weeks in _runs(cells):
            x = _LABELS + weeks[0] * _STEP + (_STEP - size) // 2
            y = self._y + weekday * _STEP + _STEP // 2
            lines.append(f"M{x} {y}h{(len(weeks) - 1) * _STEP + size}")
        dashes = f' stroke-dasharray="{size} {_STEP - size}"'
        self._shapes.append(
            f'<path stroke="{LOOKS[status].color}" stroke-width="{size}"{dashes} '
            f'd="{"".join(lines)}"/>'
        )

    def _draw_legend(self, counts: Mapping[CoverageStatus, int]) -> None:
        x, self._y = _LABELS, self._y + _LINE
        for status, days in counts.items():
            text = f"{status} {days:,}"
            width = 18 + 11 * len(text) // 2
            if x + width > _WIDTH and x > _LABELS:
                x, self._y = _LABELS, self._y + _LINE
            size = _size(status) * 2 // 3
            self._shapes.append(
                f'<path stroke="{LOOKS[status].color}" stroke-width="{size}" '
                f'd="M{x} {self._y - 3}h{size}"/>'
            )
            self._text(x + 12, self._y, text)
            x += width
        self._y += 4


def _size(status: CoverageStatus) -> int:
    return _STORED if LOOKS[status].is_stored else _NOT_STORED


def _runs(cells: Sequence[tuple[int, int]]) -> Iterator[tuple[int, list[int]]]:
    """Yield weekdays with consecutive weeks."""
    for weekday, of_weekday in groupby(cells, lambda cell: cell[1]):
        weeks = [week for week, _ in of_weekday]
        for _, run in groupby(enumerate(weeks), lambda item: item[1] - item[0]):
            yield weekday, [week for _, week in run]
