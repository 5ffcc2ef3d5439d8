"""`mp sync`: load days of events and today's profiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mixpanel_assets.cli.exits import InvalidArgumentsError
from mixpanel_assets.cli.invocation import current, explain_interrupt
from mixpanel_assets.cli.options import (
    DatabaseOption,
    OptionalFromOption,
    OptionalToOption,
    RefetchOption,
)
from mixpanel_assets.cli.output import Answer, print_answer, print_line
from mixpanel_assets.errors import IncompleteExportError, MixpanelDataError
from mixpanel_assets.results.choices import RefetchChoice
from mixpanel_assets.rules.days import counted, days_between, describe_days

if TYPE_CHECKING:
    from mixpanel_assets.warehouse import DayReport, ProfileReport
    from mixpanel_assets.workspace import Workspace


def sync(
    from_date: OptionalFromOption = None,
    to_date: OptionalToOption = None,
    refetch: RefetchOption = None,
    accept_smaller: Annotated[
        bool,
        typer.Option(
            "--accept-smaller",
            help="Remove stored rows that Mixpanel does not send any more, instead of keeping "
            "them. Loads every day of the range.",
        ),
    ] = False,
    database: DatabaseOption = None,
    profiles: Annotated[bool, typer.Option(help="Also load a snapshot of all profiles.")] = True,
) -> None:
    """Load days of events, and today's profiles, as the Dagster assets do.

    Without days it keeps the database up to date. It loads today, each day since the first stored
    one (or MP_START_DATE) that is missing, failed or had not ended when it was loaded, days of the
    last month for which Mixpanel counts late events, and each day once after MP_SETTLE_DAYS.
    Mixpanel's counts cost two query requests. Without access to them, days are loaded until
    MP_SETTLE_DAYS after their end. Days that were fetched too early more than 31 days ago are
    listed, but not loaded.

    Without --to, the range ends today. After an interruption, the same command continues. While the
    hourly request budget is used up, it waits.

    Credentials come from --account, else MP_USERNAME, MP_SECRET, MP_PROJECT_ID and MP_REGION,
    else MP_ACCOUNT or the default account of the config file (`mp auth`).

    Example: mp sync --from 2024-01-01 --to 2024-01-07
    """
    if to_date and not from_date:
        raise typer.BadParameter("--to needs --from.")
    from mixpanel_assets.cli.progress import show_days, show_pages
    from mixpanel_assets.loading.plan import is_expired

    wants_records = bool(current().output or current().jq)
    loaded: set[date] = set()
    with (
        explain_interrupt(lambda: _describe_loaded(loaded, refetch)),
        # A load of years takes hours, because of the requests that an hour has: it waits for them.
        current().workspace(database, max_wait_seconds=None) as workspace,
        _records() if wants_records else nullcontext(_Lines()) as report,
    ):
        if accept_smaller and from_date:
            refetch = refetch or "all"
        days, treatment = _days(workspace, from_date, to_date, refetch)
        with show_days(len(days), lines=wants_records) as progress:

            def on_stored(day: DayReport) -> None:
                loaded.add(day.day)
                progress.stored(day)
                report.day(day)

            def on_kept(days: Sequence[DayReport]) -> None:
                expired = is_expired(days[0].day, workspace.settings.horizon())
                report.kept(_describe_kept(len(days), expired=expired))
                for day in days:
                    progress.kept(day)

            incomplete: IncompleteExportError | None = None
            try:
                workspace.sync_events(
                    days=days,
                    refetch=treatment,
                    accept_smaller=accept_smaller,
                    on_day=on_stored,
                    on_kept=on_kept,
                    on_arrival=progress.arrived,
                )
            except IncompleteExportError as error:
                # Raised after the profiles: those of today can be fetched only today.
                incomplete = error
        if profiles:
            with _after_events(bool(loaded), incomplete), show_pages(each=False) as show:
                report.snapshot(workspace.sync_profiles(on_page_complete=show))
        report.path(workspace.db_path)
        if incomplete:
            raise incomplete


def _describe_loaded(days: set[date], refetch: RefetchChoice | None) -> str:
    if not days:
        return "Nothing was stored, and the database is unchanged."
    again = "all days again" if refetch == "all" else "what is missing"
    first, last = min(days), max(days)
    shown = f"1 complete day, {first}"
    if first != last:
        shown = f"{len(days):,} complete days, {first} to {last}"
    return f"Stored events of {shown}. Other days are unchanged. The same command loads {again}."


def _describe_kept(days: int, *, expired: bool) -> str:
    them = "it" if days == 1 else "them"
    reason = f"--refetch all loads {them} again"
    if expired:
        reason = "not requested from Mixpanel (MP_RETENTION_DAYS)"
    return f"{counted(days, 'day')} kept; {reason}"


def _days(
    workspace: Workspace,
    from_date: date | None,
    to_date: date | None,
    refetch: RefetchChoice | None,
) -> tuple[Sequence[date], RefetchChoice]:
    """Return the days, and which of them to load. Without --from, print what is loaded."""
    from mixpanel_assets.loading.days_behind import read_too_early

    if from_date:
        last = to_date or workspace.settings.today()
        if from_date > last:
            raise InvalidArgumentsError(f"--from {from_date} is after {last}, the current day.")
        return days_between(from_date, last), refetch or "stale"
    days_due = workspace.days_due()
    if refetch:
        return days_between(days_due.first, days_due.today), refetch
    to_sync = workspace.days_to_sync()
    if to_sync.message:
        current().note(to_sync.message)
    current().note(f"Loading {describe_days(to_sync.days)}.")
    if days_due.left:
        command = f"`mp sync --from {days_due.left[0]} --to {days_due.left[-1]}`"
        too_early = read_too_early(days_due.left, workspace.settings.settle_days)
        current().note(f"{too_early}. {command} loads them again.")
    return to_sync.days, "all"


def _rest(report: DayReport) -> str:
    """Return the lines that could not be stored, and the changes of rows that were not sent."""
    quarantined = f"  in quarantine {report.quarantined:,}" if report.quarantined else ""
    return quarantined + _changes(report)


def _changes(report: DayReport) -> str:
    """Return the changes of rows that the response did not contain."""
    if report.is_only_here:
        return f"  vanished and kept {report.row_count:,}, as Mixpanel sent no event of this day"
    numbers = {"vanished and kept": report.rows_vanished, "removed": report.rows_removed}
    return "".join(f"  {what} {rows:,}" for what, rows in numbers.items() if rows)


class _Lines:
    """Prints each day and table as soon as it is stored."""

    def day(self, report: DayReport) -> None:
        self._print(
            f"{report.day}  {report.row_count:>10,} events  {report.status}"
            f"  duplicates removed {report.duplicates_removed:,}{_rest(report)}"
        )

    def kept(self, message: str) -> None:
        self._print(message)

    def snapshot(self, report: ProfileReport) -> None:
        self._print(f"profiles    {report.row_count:>10,} rows    {report.status}")

    def path(self, path: Path | None) -> None:
        self._print(f"in {path}")

    def _print(self, line: str) -> None:
        # A reader may close stdout; the load continues.
        with suppress(BrokenPipeError):
            print_line(line)


class _Records(_Lines):
    """Collects a record for each stored day and table."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def day(self, report: DayReport) -> None:
        self._add("events", report.day, report)

    def kept(self, message: str) -> None:
        current().note(message)

    def snapshot(self, report: ProfileReport) -> None:
        self._add("profiles", report.snapshot_date, report)

    def path(self, path: Path | None) -> None:
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
def _records() -> Iterator[_Records]:
    """Yield a report that is printed at the end, also after an error."""
    report = _Records()
    try:
        yield report
    finally:
        # Days without events are stored after later ones.
        report.records.sort(key=lambda record: (record["table"], record["day"]))
        print_answer(Answer(report.records), current().output, current().jq)


@contextmanager
def _after_events(has_stored: bool, events_error: MixpanelDataError | None) -> Iterator[None]:
    """Print the error of the events if the block raises another one, which would hide it."""
    try:
        yield
    except MixpanelDataError as error:
        if events_error:
            current().show(events_error)
        if isinstance(error, IncompleteExportError):
            error.partial = error.partial or has_stored
        raise
