"""`mp clean`: delete what failed loads left on the disk, say what went."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import typer

from mixpanel_assets.cli.invocation import current
from mixpanel_assets.cli.output import Format, print_record


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
