"""`mp sync`: load days, say what was stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import Any

from mixpanel_assets.cli.exits import InvalidArgumentsError
from mixpanel_assets.cli.invocation import current, told_what_is_kept
from mixpanel_assets.cli.output import Format, print_line, print_records
from mixpanel_assets.cli.progress import days_shown, pages_shown
from mixpanel_assets.errors import IncompleteExportError, MixpanelDataError
from mixpanel_assets.loading.days_behind import read_too_early
from mixpanel_assets.loading.plan import is_expired
from mixpanel_assets.results.choices import RefetchChoice
from mixpanel_assets.rules.days import days_between, ranges_of, shown
from mixpanel_assets.warehouse import DayReport, ProfileReport
from mixpanel_assets.workspace import Workspace


def sync_days(
    from_date: date | None,
    to_date: date | None,
    *,
    refetch: RefetchChoice | None,
    accept_smaller: bool,
    database: Path | None,
    profiles: bool,
    output: Format | None,
    jq: str | None,
) -> None:
    """Load the days, both ends included; progress goes to stderr, what was stored to stdout."""
    loaded: set[date] = set()
    with (
        told_what_is_kept(lambda: _loaded(loaded, refetch)),
        current().workspace(database) as workspace,
        _told(output, jq) as tell,
    ):
        if accept_smaller and from_date:
            refetch = refetch or "all"
        days, treatment = _asked(workspace, from_date, to_date, refetch)
        with days_shown(len(days), lines=bool(output or jq)) as show:

            def stored(report: DayReport) -> None:
                loaded.add(report.day)
                show.stored(report)
                tell.day(report)

            def kept(reports: Sequence[DayReport]) -> None:
                expired = is_expired(reports[0].day, workspace.settings.horizon())
                tell.kept(_kept(len(reports), expired=expired))
                for report in reports:
                    show.kept(report)

            incomplete: IncompleteExportError | None = None
            try:
                workspace.sync_events(
                    days=days,
                    refetch=treatment,
                    accept_smaller=accept_smaller,
                    on_day=stored,
                    on_kept=kept,
                    on_arrival=show.arrived,
                )
            except IncompleteExportError as error:
                incomplete = error  # today's profiles can be read today only
            except MixpanelDataError:
                if loaded:
                    current().note(_loaded(loaded, refetch))
                raise
        if profiles:
            with (
                _shown_first(incomplete),
                _partial_if(bool(loaded)),
                pages_shown(each=False) as draw,
            ):
                tell.snapshot(workspace.sync_profiles(on_page_complete=draw))
        tell.place(workspace.db_path)
        if incomplete:
            raise incomplete


def _loaded(days: set[date], refetch: RefetchChoice | None) -> str:
    if not days:
        return "Nothing was stored; the database is as it was."
    first, last = min(days), max(days)
    again = "loads every day again" if refetch == "all" else "loads what is missing"
    return (
        f"Events of {len(days):,} whole days are stored, {first} to {last}; the rest is as it was. "
        f"The same command {again}."
    )


def _kept(days: int, *, expired: bool) -> str:
    them = "it" if days == 1 else "them"
    why = f"--refetch all loads {them} again"
    if expired:
        why = f"Mixpanel is not asked for {them} (MP_RETENTION_DAYS)"
    return f"{days:,} day{'' if days == 1 else 's'} kept; {why}"


def _asked(
    workspace: Workspace,
    from_date: date | None,
    to_date: date | None,
    refetch: RefetchChoice | None,
) -> tuple[Sequence[date], RefetchChoice]:
    """Return the days that are meant and which of them to load; say so without --from."""
    if from_date:
        last = to_date or workspace.settings.today()
        if from_date > last:
            raise InvalidArgumentsError(f"--from {from_date} is after {last}, the current day.")
        return days_between(from_date, last), refetch or "stale"
    due = workspace.days_due()
    if refetch:
        return days_between(due.first, due.today), refetch
    current().note(f"Loading {shown(ranges_of(due.days))}.")
    if due.left:
        said = read_too_early(due.left, workspace.settings.settle_days)
        command = f"`mp sync --from {due.left[0]} --to {due.left[-1]}`"
        current().note(f"{said}. {command} loads them again.")
    return due.days, "all"


def _changed(report: DayReport) -> str:
    """Say what became of stored rows that did not come, and why a day that is gone stays."""
    if report.is_only_here:
        return f"  vanished and kept {report.row_count:,}, as Mixpanel sent no event of this day"
    numbers = {"vanished and kept": report.rows_vanished, "removed": report.rows_removed}
    return "".join(f"  {what} {rows:,}" for what, rows in numbers.items() if rows)


class _Lines:
    """Says each thing as soon as it is stored; whoever reads may stop reading."""

    def day(self, report: DayReport) -> None:
        self._say(
            f"{report.day}  {report.row_count:>10,} events  {report.status}"
            f"  repeats removed {report.duplicates_removed:,}{_changed(report)}"
        )

    def kept(self, told: str) -> None:
        self._say(told)

    def snapshot(self, report: ProfileReport) -> None:
        self._say(f"profiles    {report.row_count:>10,} rows    {report.status}")

    def place(self, path: Path | None) -> None:
        self._say(f"in {path}")

    def _say(self, line: str) -> None:
        with suppress(BrokenPipeError):  # the load goes on
            print_line(line)


class _Records(_Lines):
    """Gathers what is stored, one record per day and table."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def day(self, report: DayReport) -> None:
        self._add("events", report.day, report)

    def kept(self, told: str) -> None:
        current().note(told)

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
                "rows_vanished": getattr(report, "rows_vanished", None),
                "rows_removed": getattr(report, "rows_removed", None),
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
def _shown_first(earlier: MixpanelDataError | None) -> Iterator[None]:
    """Show an earlier error if the block raises another one, which would hide it."""
    try:
        yield
    except MixpanelDataError:
        if earlier:
            current().show(earlier)
        raise


@contextmanager
def _partial_if(stored: bool) -> Iterator[None]:
    """Let an incomplete answer say that something else of the same command is stored."""
    try:
        yield
    except IncompleteExportError as error:
        error.partial = error.partial or stored
        raise
