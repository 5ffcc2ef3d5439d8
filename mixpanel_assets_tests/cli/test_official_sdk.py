"""The official Python SDK sends, `mp sync` stores: the tables hold what was sent."""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import duckdb
import mixpanel
import pytest

from mixpanel_assets.emulator import Emulator, EmulatorSettings

# Days that ended so lately that `mp sync` reads them again, and `track` still takes their events.
NOW = datetime.now(UTC)
FIRST, LAST = (NOW - timedelta(days=4)).date(), (NOW - timedelta(days=1)).date()
DAYS = ("--from", str(FIRST), "--to", str(LAST))
NOTHING = EmulatorSettings(start=FIRST, days=0, profiles=0, now=lambda: NOW)

Sent = dict[str, Any]


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """A project that holds what clients send and nothing else."""
    with Emulator(NOTHING) as started:
        yield started


def client(emulator: Emulator, *, imports: bool = False) -> mixpanel.Mixpanel:
    """Return the SDK as its documentation sets it up, with the emulator's addresses."""
    account = mixpanel.ServiceAccountCredentials(
        emulator.username, emulator.secret, str(emulator.project_id)
    )
    consumer = mixpanel.BufferedConsumer(
        events_url=f"{emulator.base_url}/track",
        people_url=f"{emulator.base_url}/engage",
        groups_url=f"{emulator.base_url}/groups",
        import_url=f"{emulator.base_url}/import",
        credentials=account if imports else None,
    )
    return mixpanel.Mixpanel(emulator.project_token, consumer)


def events(count: int, day: date, kind: str) -> list[Sent]:
    """Return events of a day, spread over it, with values of every type."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
    return [
        {
            "distinct_id": f"user-{number % 40}",
            "event": ("Viewed", "Ordered", "Ünïcode 🛒")[number % 3],
            "time": round(start + number * 80_000 / count + 0.001 * number, 3),
            "$insert_id": f"{kind}-{day}-{number}",
            "n": number,
            "price": number / 8,
            "text": f"Å {number} \u2028",
            "paid": number % 2 == 0,
            "nothing": None,
            "items": [{"sku": "A1", "qty": number}],
        }
        for number in range(count)
    ]


def track(sdk: mixpanel.Mixpanel, sent: list[Sent]) -> None:
    for one in sent:
        own = {name: one[name] for name in one if name not in ("distinct_id", "event")}
        sdk.track(one["distinct_id"], one["event"], own)
    sdk._consumer.flush()


def in_table(database: str) -> list[Sent]:
    """Return the stored events as they were sent: without what the SDK and the server add."""
    added = ("mp_lib", "$lib_version", "$import", "mp_processing_time_ms")
    with duckdb.connect(database, read_only=True) as connection:
        rows = connection.sql(
            "SELECT event_name, epoch_ms(event_time), distinct_id, insert_id, properties"
            " FROM mixpanel.events"
        ).fetchall()
    found = []
    for event, milliseconds, identity, insert_id, properties in rows:
        own = {
            name: value
            for name, value in json.loads(properties).items()
            if name not in added and not name.startswith("$mp_")
        }
        ids = {"event": event, "distinct_id": identity, "$insert_id": insert_id}
        found.append({**own, **ids, "time": milliseconds / 1000})
    return found


def bag(sent: list[Sent]) -> list[str]:
    return sorted(json.dumps(one, sort_keys=True) for one in sent)


def test_the_table_is_what_was_sent(emulator, variables, mp_here):
    """1,000 events, 50 of them sent twice and 20 late into a day that was stored already."""
    sdk = client(emulator)
    in_time = [
        one for number in range(4) for one in events(245, FIRST + timedelta(days=number), "in-time")
    ]
    track(sdk, in_time)
    track(sdk, in_time[::20] + in_time[1:2])
    done = mp_here("sync", *DAYS, "--no-profiles")
    assert done.code == 0, done.stderr
    assert bag(in_table(variables["MP_DATABASE"])) == bag(in_time)
    late = events(20, FIRST + timedelta(days=1), "late")
    track(sdk, late)
    done = mp_here("sync", *DAYS, "--no-profiles")
    assert done.code == 0, done.stderr
    stored = in_table(variables["MP_DATABASE"])
    assert len(stored) == len(in_time) + len(late) == 1_000
    assert bag(stored) == bag(in_time + late)
    totals = emulator.truth.totals()
    assert (totals["events"], totals["lines"], totals["duplicates"]) == (1_000, 1_050, 50)


def test_an_event_that_was_sent_again_is_stored_as_it_came_last(emulator, variables, mp_here):
    """The same event with another value is one event, whether it was stored in between or not."""
    sdk = client(emulator, imports=True)
    (one,) = events(1, FIRST, "again")
    for price, synced in ((1, True), (2, False), (3, True)):
        own = {**one, "price": price}
        sdk.import_data(None, own.pop("distinct_id"), own.pop("event"), own.pop("time"), own)
        sdk._consumer.flush()
        if synced:
            assert mp_here("sync", *DAYS, "--no-profiles").code == 0
            assert bag(in_table(variables["MP_DATABASE"])) == bag([{**one, "price": price}])


@pytest.mark.parametrize("merging", ["simplified", "original"])
def test_merged_people_are_stored_under_their_new_id(
    tmp_path, variables, mp_here, emulator, merging
):
    """What a device did before it was known is re-keyed in stored days when they are read again."""
    with Emulator(NOTHING.but(id_merge=merging)) as emulator:
        here = {"MP_API_BASE_URL": emulator.base_url}
        sdk = client(emulator, imports=True)
        device = "0190f3a2-7c1b-4d2e-9f00-aabbccddeeff"
        (one,) = events(1, FIRST, "anonymous")
        own = {name: one[name] for name in ("time", "$insert_id")}
        if merging == "simplified":
            sdk.track("", "Viewed", own | {"$device_id": device})
        else:
            sdk.track(device, "Viewed", own)
        sdk._consumer.flush()
        assert mp_here("sync", *DAYS, "--no-profiles", **here).code == 0
        before = in_table(variables["MP_DATABASE"])[0]["distinct_id"]
        if merging == "simplified":
            login = {"time": own["time"] + 86_400, "$device_id": device, "$user_id": "u1"}
            sdk.track("u1", "Login", login)
        else:
            sdk.merge(None, device, "u1")
        sdk._consumer.flush()
        assert mp_here("sync", *DAYS, "--no-profiles", **here).code == 0
        stored = {row["$insert_id"]: row for row in in_table(variables["MP_DATABASE"])}
        row = stored[own["$insert_id"]]
        (true,) = [
            event["properties"]
            for event in emulator.truth.events(FIRST)
            if event["properties"]["$insert_id"] == own["$insert_id"]
        ]
        assert row["distinct_id"] == true["distinct_id"]
        assert row.get("$distinct_id_before_identity") == true.get("$distinct_id_before_identity")
        assert emulator.state.received.identities.canonical(before) == row["distinct_id"]
        if merging == "simplified":
            assert (before, row["distinct_id"]) == (f"$device:{device}", "u1")


def test_profiles_are_stored_as_they_were_set(emulator, variables, mp_here):
    """What the SDK does to profiles of users and groups is in the tables."""
    sdk = client(emulator)
    for number in range(60):
        sdk.people_set(f"user-{number}", {"$name": f"Ünïcode {number}", "n": number})
    sdk.people_increment("user-1", {"n": 10})
    sdk.people_append("user-2", {"list": "a"})
    sdk.people_union("user-2", {"list": ["a", "b"]})
    sdk.people_remove("user-2", {"list": "a"})
    sdk.people_set_once("user-3", {"n": 0, "first": "2024-01-01T00:00:00"})
    sdk.people_unset("user-4", ["n"])
    sdk.people_delete("user-5")
    sdk.group_set("team", "blue", {"size": 3})
    sdk._consumer.flush()
    number = emulator.truth.data_group_id("team")
    done = mp_here("sync", *DAYS, MP_GROUPS=json.dumps({"teams": number}))
    assert done.code == 0, done.stderr
    with duckdb.connect(variables["MP_DATABASE"], read_only=True) as connection:
        rows = connection.sql("SELECT distinct_id, properties FROM mixpanel.profiles").fetchall()
    stored = {identity: json.loads(properties) for identity, properties in rows}
    true = {one["$distinct_id"]: one["$properties"] for one in emulator.truth.profiles()}
    for own in (*stored.values(), *true.values()):
        own.pop("$last_seen", None)  # has a column of its own
    assert stored == true
    assert len(true) == 59
    assert stored["user-1"]["n"] == 11
    assert stored["user-2"]["list"] == ["b"]
    assert stored["user-3"] | {"n": 3} == stored["user-3"]
    assert "n" not in stored["user-4"]


def test_old_events_need_another_address(emulator):
    """`track` refuses what is older than five days, `import_data` does not."""
    old = {"time": NOW.timestamp() - 6 * 86_400}
    sdk = client(emulator, imports=True)
    sdk.track("u1", "Old", old)
    with pytest.raises(mixpanel.MixpanelException, match=r"properties\.time"):
        sdk._consumer.flush()
    sdk = client(emulator, imports=True)
    sdk.import_data(None, "u1", "Old", old["time"])
    sdk._consumer.flush()
    assert emulator.truth.totals()["events"] == 1
