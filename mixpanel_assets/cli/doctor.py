"""`mp doctor`: what was looked at, one line each."""

from __future__ import annotations

from pathlib import Path

import typer

from mixpanel_assets.cli.exits import GENERAL
from mixpanel_assets.cli.invocation import current
from mixpanel_assets.cli.output import Format, print_line, print_records
from mixpanel_assets.loading.doctor import doctor
from mixpanel_assets.settings import load_settings


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
