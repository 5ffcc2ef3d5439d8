"""`mp sync`: load days, say what was stored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import Any

import typer

from mixpanel_assets.cli.interrupts import told_what_is_kept
from mixpanel_assets.cli.invocation import current
from mixpanel_assets.cli.output import Format, print_records
from mixpanel_assets.cli.progress import days_shown, pages_shown
from mixpanel_assets.currency import days_behind
from mixpanel_assets.errors import IncompleteExportError
from mixpanel_assets.warehouse import DayReport, ProfileReport
from mixpanel_assets.workspace import Workspace


def sync_days(
    from_date: date | None,
    to_date: date | None,
    *,
    database: Path | None,
    profiles: bool,
    output: Format | None,
    jq: str | None,
) -> None:
    """Load the days, both ends included; progress goes to stderr, what was stored to stdout."""
    kept: list[date] = []
    with (
        told_what_is_kept(lambda: _kept(kept)),
        current().workspace(database) as workspace,
        _told(output, jq) as tell,
    ):
        first, last = _days(workspace, from_date, to_date)
        asked = max(0, (last - first).days + 1)
        with days_shown(asked, lines=bool(output or jq)) as show:

            def stored(report: DayReport) -> None:
                kept.append(report.day)
                show(report)
                tell.day(report)

            reports = workspace.sync_events(first, last, on_day=stored)
        if profiles:
            with _partial_if(bool(reports)), pages_shown(each=False) as draw:
                tell.snapshot(workspace.sync_profiles(on_page_complete=draw))
        tell.place(workspace.db_path)


def _kept(days: list[date]) -> str:
    if not days:
        return "Nothing was stored; the database is as it was."
    first, last = min(days), max(days)
    return (
        f"Events of {len(days):,} whole days are stored, {first} to {last}; the rest is as it was. "
        "The same command loads what is missing."
    )


def _days(workspace: Workspace, from_date: date | None, to_date: date | None) -> tuple[date, date]:
    if from_date:
        return from_date, to_date or workspace.settings.today()
    first, last = days_behind(workspace.storage.database, workspace.settings)
    current().note(f"Loading {first} to {last}.")
    return first, last


class _Lines:
    """Says each thing as soon as it is stored; whoever reads may stop reading."""

    def day(self, report: DayReport) -> None:
        self._say(
            f"{report.day}  {report.row_count:>10,} events  {report.status}"
            f"  repeats removed {report.duplicates_removed:,}"
        )

    def snapshot(self, report: ProfileReport) -> None:
        self._say(f"profiles    {report.row_count:>10,} rows    {report.status}")

    def place(self, path: Path | None) -> None:
        self._say(f"in {path}")

    def _say(self, line: str) -> None:
        with suppress(BrokenPipeError):  # the load goes on
            typer.echo(line)


class _Records(_Lines):
    """Gathers what is stored, one record per day and table."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def day(self, report: DayReport) -> None:
        self._add("events", report.day, report)

    def snapshot(self, report: ProfileReport) -> None:
        self._add("profiles", report.snapshot_date, report)

    def place(self, path: Path | None) -> None:
        current().note(f"in {path}")

    def _add(self, table: str, day: date, report: DayReport | ProfileReport) -> None:
        self.records.append(
            {
                "table": table,
                "day": day,
                "status": report.status,
                "row_count": report.row_count,
                "duplicates_removed": report.duplicates_removed,
                "quarantined": report.quarantined,
            }
        )


@contextmanager
def _told(output: Format | None, jq: str | None) -> Iterator[_Lines]:
    """Yield who tells; records are printed at the end, also those stored before an error."""
    if not (output or jq):
        yield _Lines()
        return
    told = _Records()
    try:
        yield told
    finally:
        # Days without events are settled after later ones.
        ordered = sorted(told.records, key=lambda record: (record["table"], record["day"]))
        print_records(ordered, output or Format.JSON, jq)


@contextmanager
def _partial_if(stored: bool) -> Iterator[None]:
    """Let an incomplete answer say that something else of the same command is stored."""
    try:
        yield
    except IncompleteExportError as error:
        error.partial = error.partial or stored
        error.details["partial"] = error.partial
        raise
