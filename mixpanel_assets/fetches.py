"""Named tables: days of events that somebody wants beside the assets, whole or not at all."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime
from typing import Any

from mixpanel_assets.client import STREAMED_DAYS, MixpanelAPIClient, Spool
from mixpanel_assets.errors import ConfigError, DatabaseNotFoundError
from mixpanel_assets.fetch_results import FetchResult
from mixpanel_assets.loads import project_identity
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import (
    EVENTS,
    Database,
    check_name,
    make_way,
    prepare,
    replace_events,
)


def fetch_events(
    client: MixpanelAPIClient,
    database: Database,
    settings: Settings,
    *,
    name: str,
    from_date: date | str,
    to_date: date | str,
    events: Sequence[str] | None,
    where: str | None,
    replace: bool,
) -> FetchResult:
    """Make a table of the events of some days, in one transaction.

    Everything is on disk and checked before the database is opened; see
    `Workspace.fetch_events`.
    """
    check_name(name)
    filters = {
        key: value for key, value in (("events", events), ("where", where)) if value is not None
    }
    if name == EVENTS.name and filters:
        raise ConfigError(
            "The table `events` holds whole days. Choose another name for a part of them."
        )
    legacy = settings.time_regime == "legacy"
    answers = client.staged_events(
        from_date=from_date,
        to_date=to_date,
        events=events,
        where=where,
        days_per_request=1 if legacy else settings.days_per_request or STREAMED_DAYS,
        spool_directory=settings.spool_path(client.credentials.project_id),
    )
    with suppress(DatabaseNotFoundError), database.read() as connection:
        if not replace:
            make_way(connection, name, replace=False)
    started = time.monotonic()
    spools: list[Spool] = []
    try:
        spools.extend(answers)
        rows = _store(client, database, settings, spools, name, filters, replace=replace)
    finally:
        for spool in spools:
            spool.discard()
    return FetchResult(
        table=name,
        rows=rows,
        type="events",
        duration_seconds=round(time.monotonic() - started, 3),
        date_range=(str(spools[0].from_date), str(spools[-1].to_date)),
        fetched_at=datetime.now(UTC),
    )


def _store(
    client: MixpanelAPIClient,
    database: Database,
    settings: Settings,
    spools: Sequence[Spool],
    name: str,
    filters: Mapping[str, Any],
    *,
    replace: bool,
) -> int:
    project = project_identity(client.credentials, settings)
    run_id, today = uuid.uuid4().hex, settings.today()
    rows = 0
    with database.write() as connection:
        prepare(connection, project)
        make_way(connection, name, replace=replace)
        for spool in spools:
            days = replace_events(
                connection,
                spool.path,
                from_date=spool.from_date,
                to_date=spool.to_date,
                lines=spool.lines,
                project=project,
                received_bytes=spool.received_bytes,
                requests=spool.requests,
                run_id=run_id,
                open_days=[today],
                table=name,
                filters=filters,
            )
            rows += sum(day.row_count for day in days)
    return rows
