"""What `mp plan`, `mp quota`, `mp doctor` and `mp clean` print."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from mixpanel_assets.cli.exits import GENERAL
from mixpanel_assets.cli.invocation import current
from mixpanel_assets.cli.output import Format, print_line, print_record, print_records
from mixpanel_assets.client import ApiUsage
from mixpanel_assets.loading.doctor import doctor
from mixpanel_assets.loading.plan import Plan
from mixpanel_assets.results.choices import RefetchChoice
from mixpanel_assets.settings import load_settings


def print_plan(
    from_date: date | None,
    to_date: date | None,
    *,
    refetch: RefetchChoice | None,
    database: Path | None,
    output: Format | None,
    jq: str | None,
) -> None:
    """Print requests, time, rows, bytes and free disk: one per line, or as a record."""
    with current().workspace(database, asks=False) as workspace:
        if from_date and refetch is None:
            refetch = "stale"
        plan = workspace.plan(from_date, to_date, refetch=refetch)
    if output or jq:
        print_record(plan.to_dict(), output or Format.JSON, jq)
        return
    out = Console(file=sys.stdout, highlight=False)
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("days", f"{plan.days:,}")
    table.add_row("requests", f"{plan.requests:,}{_at_least(plan)}")
    table.add_row("time", _time(plan))
    table.add_row("rows", _about(plan.estimated_rows, "", 1))
    table.add_row("download", _about(plan.estimated_bytes, " MB", 1_000_000))
    if plan.expired:
        table.add_row("expired", f"{plan.expired:,} days are not requested (MP_RETENTION_DAYS)")
    if plan.only_here:
        table.add_row("only here", f"{plan.only_here:,} days that Mixpanel has deleted")
    table.add_row("free disk", f"{plan.free_disk_bytes / 1_000_000:,.0f} MB")
    out.print(table)


def _at_least(plan: Plan) -> str:
    if plan.estimated_bytes is None:
        return " or more; no day has been loaded yet"
    return ", one more if days come without events" if plan.confirming else ""


def _time(plan: Plan) -> str:
    if not plan.seconds:
        return "no wait; the request budget has room"
    return f"about {timedelta(minutes=round(plan.seconds / 60))} of waiting for the request budget"


def _about(number: int | None, unit: str, divisor: int) -> str:
    return (
        "unknown; no day has been loaded yet"
        if number is None
        else (f"about {number / divisor:,.0f}{unit}")
    )


def print_quota(output: Format | None, jq: str | None) -> None:
    """Print one line or record per API family, as this user's processes have used it."""
    out = Console(file=sys.stdout, highlight=False)
    with load_settings().client(current().project()) as client:
        usage = client.quota()
        if output or jq:
            print_records([asdict(api) for api in usage], output or Format.JSON, jq)
            return
        title = f"Requests of {client.budget.project} in {usage[0].window_seconds:,.0f} s"
        out.print(_table(title, usage))
        for api in usage:
            if api.blocked_until:
                out.print(f"{api.api}: Mixpanel answered 429 and said to wait.")
        out.print(f"counted in {client.budget.store}", soft_wrap=True)


def _table(title: str, usage: Sequence[ApiUsage]) -> Table:
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


def print_findings(database: Path | None, output: Format | None, jq: str | None) -> None:
    """Print the findings, and end with 1 if one is a failure."""
    settings = None
    if database is not None:
        settings = load_settings().model_copy(update={"database": database})
    findings = doctor(current().account, settings=settings)
    if output or jq:
        print_records([finding.to_dict() for finding in findings], output or Format.JSON, jq)
    else:
        for finding in findings:
            print_line(str(finding))
    if any(finding.status == "fail" for finding in findings):
        raise typer.Exit(GENERAL)


def clean_spool(
    older_than_days: int, database: Path | None, output: Format | None, jq: str | None
) -> None:
    """Delete answers older than that many days, and print what was deleted and kept."""
    with current().workspace(database) as workspace:
        cleaned = workspace.clean(timedelta(days=older_than_days))
    if output or jq:
        print_record(asdict(cleaned), output or Format.JSON, jq)
        return
    typer.echo(
        f"deleted {cleaned.deleted:,} ({cleaned.deleted_bytes / 1_000_000:,.1f} MB), "
        f"kept {cleaned.kept:,}"
    )
