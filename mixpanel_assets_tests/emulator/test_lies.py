"""Reports that count other events than the export sends."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest

from mixpanel_assets.emulator import Emulator, Fault

from .conftest import START, Opened
from .rows import export, records

DAY = START + timedelta(days=4)


def counts(http: httpx.Client, *names: str) -> dict[str, int]:
    """Return what `/events` counts on the day."""
    params = {**http.params, "event": json.dumps(names), "from_date": str(DAY), "to_date": str(DAY)}
    values = http.get("/api/query/events", params=params).json()["data"]["values"]
    return {name: row[str(DAY)] for name, row in values.items() if row.get(str(DAY))}


def sent(http: httpx.Client, name: str) -> int:
    """Return how many lines the export has of an event."""
    return sum(one["event"] == name for one in records(export(http, DAY)))


def listed(http: httpx.Client) -> list[str]:
    return http.get("/api/query/events/names", params=http.params).json()


@pytest.mark.parametrize(
    ("kind", "in_export", "in_reports"),
    [("forwarded-rows", 3, 0), ("repeated-rows", 4, 1), ("late-release", 0, 3)],
)
def test_rows_that_one_side_has(
    emulator: Emulator, http: httpx.Client, kind: Any, in_export: int, in_reports: int
) -> None:
    """Forwarded rows, repeats with another time, and rows that the export releases later."""
    emulator.faults.add(Fault(kind, day=DAY, count=3, text="Odd One", skip=kind == "late-release"))
    assert counts(http, "Odd One").get("Odd One", 0) == in_reports
    assert sent(http, "Odd One") == in_export
    assert sent(http, "Odd One") == max(in_export, in_reports)
    assert counts(http, "Odd One").get("Odd One", 0) == in_reports


def test_hidden_deleted_and_wrong_counts(emulator: Emulator, http: httpx.Client) -> None:
    """The export is as before; the data dictionary and the list of names know hidden events."""
    before = counts(http, "Page View", "Search", "Order Completed")
    lines = export(http, DAY).content.count(b"\n")
    emulator.faults.add(
        Fault("hidden-event", text="Order Completed"),
        Fault("deleted-events", day=DAY, text="Search", count=1),
        Fault("wrong-count", day=DAY, count=-2),
    )
    now = counts(http, "Page View", "Search", "Order Completed")
    assert now.get("Search", 0) == before["Search"] - 1
    assert now["Page View"] == before["Page View"] - 2
    assert "Order Completed" not in now
    assert "Order Completed" not in listed(http)
    assert export(http, DAY).content.count(b"\n") == lines
    path = f"/api/app/projects/{emulator.project_id}/schemas/event"
    entries = http.get(path, params={}).json()["results"]
    metadata = {one["name"]: one["schemaJson"]["metadata"]["com.mixpanel"] for one in entries}
    assert [name for name, one in metadata.items() if one.get("hidden")] == ["Order Completed"]


def test_only_the_most_common_names_are_known(emulator: Emulator, http: httpx.Client) -> None:
    """The limit is set while it runs, also from another process."""
    most = listed(http)[:2]
    response = http.post("/emulator/names", json={"limit": 2})
    assert response.json() == {"limit": 2}
    assert listed(http) == most
    assert set(counts(http, *most, "Search")) == set(most)
    assert http.post("/emulator/names", json={"limit": -1}).status_code == 400
    emulator.name_limit = None
    assert http.get("/emulator/names").json() == {"limit": None}


def test_custom_and_merged_events(opened: Callable[..., Opened]) -> None:
    """Reports count a custom event beside its members, and a merged one in their place."""
    _, plain = opened()
    before = counts(plain, "Search", "Page View", "Sign Up")
    _, http = opened(
        custom_events={"Any": ("Search", "Page View")},
        merged_events={"Search": "Look Up"},
        hidden_events_counted=True,
    )
    now = counts(http, "Search", "Page View", "Any", "Look Up")
    both = before["Search"] + before["Page View"]
    assert now == {
        "Page View": before["Page View"],
        "Any": both,
        "Look Up": before["Search"],
    }
    assert {"Any", "Look Up"} <= set(listed(http))
    assert "Search" not in listed(http)
