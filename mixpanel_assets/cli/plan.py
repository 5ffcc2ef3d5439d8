"""`mp plan`: what a load will take, said before anything moves."""

from __future__ import annotations

import sys
from datetime import date, timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mixpanel_assets.cli.invocation import current
from mixpanel_assets.cli.output import Format, print_record
from mixpanel_assets.loading.plan import Plan
from mixpanel_assets.results.choices import RefetchChoice


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
