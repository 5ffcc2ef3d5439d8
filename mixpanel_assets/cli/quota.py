"""`mp quota`: what is spent and left of the request budget."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from mixpanel_assets.cli.invocation import current
from mixpanel_assets.cli.output import Format, print_records
from mixpanel_assets.client import ApiUsage, MixpanelAPIClient
from mixpanel_assets.settings import load_settings


def print_quota(output: Format | None, jq: str | None) -> None:
    """Print one line or record per API family, as this user's processes have used it."""
    out = Console(file=sys.stdout, highlight=False)
    settings = load_settings()
    with MixpanelAPIClient(
        current().project(),
        api_base_url=settings.api_base_url,
        budget=settings.budget(),
    ) as client:
        usage = client.quota()
        if output or jq:
            print_records([asdict(api) for api in usage], output or Format.JSON, jq)
            return
        title = f"Requests of {client.budget.project} in {usage[0].window_seconds:,.0f} s"
        out.print(_table(title, usage))
        for api in usage:
            if api.blocked_until:
                out.print(f"{api.api}: Mixpanel answered 429 and said to wait.")
        out.print(f"counted in {client.budget.place}", soft_wrap=True)


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
