"""`mp clean`: delete what failed loads left on the disk, say what went."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import typer

from mixpanel_assets.cli.invocation import current
from mixpanel_assets.workspace import Workspace


def clean_spool(older_than_days: int, database: Path | None) -> None:
    """Delete answers older than that many days, and print what was deleted and kept."""
    with Workspace(credentials=current().credentials(), path=database) as workspace:
        cleaned = workspace.clean(timedelta(days=older_than_days))
    typer.echo(
        f"deleted {cleaned.deleted:,} ({cleaned.deleted_bytes / 1_000_000:,.1f} MB), "
        f"kept {cleaned.kept:,}"
    )
