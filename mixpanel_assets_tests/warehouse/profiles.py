"""Profiles as they come and how tests store them."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from typing import Any

from mixpanel_assets.warehouse.ledger import ProfileReport
from mixpanel_assets.warehouse.profile_pages import PageFile, stage_profiles
from mixpanel_assets.warehouse.profiles import replace_profiles
from mixpanel_assets.warehouse.project import prepare
from mixpanel_assets_tests.warehouse.conftest import DAY, Warehouse, as_line

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
BAD = b'{"$distinct_id":"bad%d","$properties":{"a":"\\ud800"}}'
FAILED = {3: "it broke", 1: "it broke too"}


def profile(distinct_id="u", **properties):
    return {"$distinct_id": distinct_id, "$properties": properties}


def seen(distinct_id, day, **properties):
    return profile(distinct_id, **{"$last_seen": f"{day}T12:00:00"}, **properties)


def store(warehouse: Warehouse, *pages: Any, day=DAY, **options: Any) -> ProfileReport:
    (report,) = store_days(warehouse, *pages, days=[day], **options)
    return report


def store_days(
    warehouse: Warehouse, *pages: Any, days, at=NOON, compress=False, **options: Any
) -> list[ProfileReport]:
    """Store pages of the lines that are given."""
    files = []
    for number, page in enumerate(pages):
        body = b"".join(as_line(line) + b"\n" for line in page)
        path = warehouse.folder / f"page-{number}"
        path.write_bytes(gzip.compress(body) if compress else body)
        files.append(PageFile(path, at))
    return store_pages(warehouse, files, days=days, **options)


def store_pages(
    warehouse: Warehouse, files: list[PageFile], *, days=(DAY,), scope="all", **options: Any
) -> list[ProfileReport]:
    """Stage pages, then store them in a transaction."""
    zone = warehouse.project.day_zone
    with (
        warehouse.database.staging() as memory,
        stage_profiles(memory, files, days=days, scope=scope, zone=zone) as staged,
        warehouse.database.write(memory) as connection,
    ):
        prepare(connection, warehouse.project)
        return replace_profiles(connection, staged, **options)
