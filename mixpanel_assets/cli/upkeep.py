"""`mp plan`, `mp quota`, `mp doctor` and `mp clean`: what to expect, and what to clean up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from mixpanel_assets.cli.exits import GENERAL
from mixpanel_assets.cli.invocation import current
from mixpanel_assets.cli.options import (
    DatabaseOption,
    OptionalFromOption,
    OptionalToOption,
    RefetchOption,
)
from mixpanel_assets.cli.output import Answer

if TYPE_CHECKING:
    from rich.table import Table

    from mixpanel_assets.client import ApiUsage
    from mixpanel_assets.loading.plan import Plan


def plan(
    from_date: OptionalFromOption = None,
    to_date: OptionalToOption = None,
    refetch: RefetchOption = None,
    database: DatabaseOption = None,
) -> Answer:
    """Show the cost of `mp sync` with the same options. Sends no request.

    Example: mp plan --from 2023-01-01 --to 2024-12-31
    """
    if to_date and not from_date:
        raise typer.BadParameter("--to needs --from.")
    if from_date and refetch is None:
        refetch = "stale"
    with current().workspace(database, sends_requests=False) as workspace:
        plan = workspace.plan(from_date, to_date, refetch=refetch)
    return Answer(plan.to_dict(), text=[_plan_table(plan)])


def _plan_table(plan: Plan) -> Table:
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("days", f"{plan.days:,}")
    table.add_row("requests", f"{plan.requests:,}{_at_least(plan)}")
    table.add_row("time", _time(plan))
    table.add_row("rows", _estimate(plan.estimated_rows, "", 1))
    table.add_row("download", _estimate(plan.estimated_bytes, " MB", 1_000_000))
    if plan.expired:
        table.add_row("expired", f"{plan.expired:,} days are not requested (MP_RETENTION_DAYS)")
    if plan.only_here:
        table.add_row("only here", f"{plan.only_here:,} days that Mixpanel has deleted")
    table.add_row("free disk", f"{plan.free_disk_bytes / 1_000_000:,.0f} MB")
    return table


def _at_least(plan: Plan) -> str:
    if plan.estimated_bytes is None:
        return " or more; no day has been loaded yet"
    return ", one more if days have no events" if plan.confirming else ""


def _time(plan: Plan) -> str:
    if not plan.seconds:
        return "no wait; the request budget is sufficient"
    return f"about {timedelta(minutes=round(plan.seconds / 60))} of waiting for the request budget"


def _estimate(number: int | None, unit: str, divisor: int) -> str:
    if number is None:
        return "unknown; no day has been loaded yet"
    return f"about {number / divisor:,.0f}{unit}"


def quota() -> Answer:
    """Show the used and remaining request budget. Sends no request.

    It counts the requests of all processes with the same MP_STATE_DIR. Requests of other users and
    programs are not known; MP_BUDGET_RESERVE leaves some of the budget for them.

    Example: mp quota
    """
    from mixpanel_assets.settings import load_settings

    with load_settings().client(current().project()) as client:
        usage = client.quota()
        title = f"Requests of {client.budget.project} in {usage[0].window_seconds:,.0f} s"
        printed: list[str | Table] = [_usage_table(title, usage)]
        printed += [
            f"{api.api}: Mixpanel sent 429 with a time to wait."
            for api in usage
            if api.blocked_until
        ]
        printed.append(f"counted in {client.budget.store}")
    return Answer([asdict(api) for api in usage], text=printed)


def _usage_table(title: str, usage: Sequence[ApiUsage]) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("API")
    for heading in ("used", "left", "limit"):
        table.add_column(heading, justify="right")
    table.add_column("next request, UTC")
    table.add_column("all free again, UTC")
    for api in usage:
        numbers = (f"{number:,}" for number in (api.used, api.left, api.limit))
        table.add_row(api.api, *numbers, _when(api.next_slot_at), _when(api.refills_at))
    table.add_row("app", "", "", "none", "now", "now")
    return table


def _when(moment: datetime | None) -> str:
    if moment is None:
        return "now"
    minutes = math.ceil((moment - datetime.now(UTC)).total_seconds() / 60)
    return f"{moment:%H:%M:%S}, in {max(1, minutes)} min"


def doctor(database: DatabaseOption = None) -> Answer:
    """Check credentials, access, clocks, budget and database. Exits with 1 if a check fails.

    Costs no request of the query budget, and changes nothing.

    Example: mp doctor
    """
    from mixpanel_assets.loading.doctor import doctor
    from mixpanel_assets.settings import load_settings

    settings = None
    if database is not None:
        settings = load_settings().model_copy(update={"database": database})
    findings = doctor(current().account, settings=settings)
    has_failed = any(finding.status == "fail" for finding in findings)
    return Answer(
        findings,
        text=[str(finding) for finding in findings],
        error=typer.Exit(GENERAL) if has_failed else None,
    )


def tidy(
    keep_days: Annotated[
        int, typer.Option(min=0, max=36_500, help="For how many days old rows can be read.")
    ] = 7,
    delete_unknown: Annotated[
        bool,
        typer.Option(
            "--delete-unknown",
            help="Also delete the files of the data path that the lake does not know and that are "
            "older than a day. Nothing else may be kept in the data path.",
        ),
    ] = False,
    database: DatabaseOption = None,
) -> Answer:
    """Merge small files of a lake, and delete those that no kept snapshot needs.

    Example: mp tidy --keep-days 30
    """
    with current().open_stored(database, read_only=False) as workspace:
        tidied = workspace.storage.database.tidy(keep_days=keep_days, delete_unknown=delete_unknown)
    return Answer(asdict(tidied), text=[str(tidied)])


def migrate(
    to: Annotated[str, typer.Option(help="Where to: a path, or the location of a lake.")],
    data_path: Annotated[
        str | None,
        typer.Option(help="The folder or s3:// prefix of the lake's files; default: MP_DATA_PATH."),
    ] = None,
    database: DatabaseOption = None,
) -> Answer:
    """Copy the database into an empty file or lake, and compare both day by day.

    The database is kept as it is, and nothing else writes to it meanwhile. Started again, a copy
    continues where it stopped.

    Example: mp migrate --to 'ducklake:postgres:dbname=lake host=db' --data-path s3://bucket/lake
    """
    from mixpanel_assets.rules.location import is_lake, parse_location
    from mixpanel_assets.settings import load_settings
    from mixpanel_assets.warehouse import database_at, move

    settings = load_settings()
    # MP_DATA_PATH is the source's if that is a lake.
    of_target = None if is_lake(database or settings.database) else settings.data_path
    target = database_at(
        parse_location(to, data_path or of_target),
        memory_limit=settings.memory_limit,
        lock_timeout=settings.lock_timeout,
        on_wait=current().note,
    )
    with current().open_stored(database, read_only=False) as workspace:
        source = workspace.storage.database
        moved = move(
            source, target, lambda one: current().note(f"{one.schema}.{one.table}: {one.rows:,}")
        )
        rows = sum(table.rows for table in moved)
        done = f"Copied {len(moved)} tables with {rows:,} rows to {target.place}; both are equal."
        kept = f"{source.place} is kept. Set MP_DATABASE to the new place."
    return Answer([asdict(table) for table in moved], text=[done, kept])


def clean(
    older_than: Annotated[
        int, typer.Option(min=0, max=36_500, help="Keep responses of this many days.")
    ] = 7,
    everything: Annotated[
        bool, typer.Option("--all", help="Delete all, except those of the last hour or in use.")
    ] = False,
    database: DatabaseOption = None,
) -> Answer:
    """Delete responses that failed loads left on the disk. The database is not changed.

    Example: mp clean --all
    """
    days = 0 if everything else older_than
    with current().workspace(database) as workspace:
        cleaned = workspace.clean(timedelta(days=days))
    megabytes = cleaned.deleted_bytes / 1_000_000
    message = f"deleted {cleaned.deleted:,} ({megabytes:,.1f} MB), kept {cleaned.kept:,}"
    return Answer(asdict(cleaned), text=[message])
