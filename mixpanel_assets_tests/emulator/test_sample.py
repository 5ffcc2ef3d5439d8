"""The data: a story that is the same every time, with everything that makes copies fail."""

import json
import math
import tracemalloc
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from mixpanel_assets.emulator.profiles import UserProfiles
from mixpanel_assets.emulator.sample import BLOCK_EVENTS, Shop
from mixpanel_assets.emulator.settings import EmulatorSettings
from mixpanel_assets.emulator.state import State
from mixpanel_assets.emulator.truth import Truth, deduplicated

from .conftest import NOW, SMALL, START
from .rows import key, settled, texts

DAYS = [START + timedelta(days=number) for number in range(14)]


def truth_of(**changes: object) -> Truth:
    return Truth(State(SMALL.but(**changes)))


def test_a_day_depends_on_seed_settings_and_day_only() -> None:
    """Two emulators have the same day after any requests; another seed has another day."""
    one, other = truth_of(), truth_of()
    list(other.lines(DAYS[9]))
    assert list(one.lines(DAYS[3])) == list(other.lines(DAYS[3]))
    assert list(one.lines(DAYS[3])) != list(truth_of(seed=8).lines(DAYS[3]))


def test_days_do_not_change_when_the_project_goes_on() -> None:
    """Neither a later end nor a later clock changes a day that is over."""
    later = truth_of(days=None, now=lambda: NOW + timedelta(days=400))
    assert list(truth_of().lines(DAYS[3])) == list(later.lines(DAYS[3]))


@pytest.mark.parametrize("count", [1, 10, 250, BLOCK_EVENTS + 17])
def test_exact_events_are_exact(count: int) -> None:
    """A day has exactly the requested number of events without duplicates."""
    truth = truth_of(exact_events=count, duplicates_rate=0.1)
    assert truth.count(DAYS[2]) == len(truth.events(DAYS[2])) == count


def test_exact_events_can_name_days() -> None:
    """Named days have their number, the others the usual volume."""
    truth = truth_of(exact_events={DAYS[1]: 33})
    assert truth.count(DAYS[1]) == 33
    assert truth.count(DAYS[2]) > 100


def test_the_shop_grows_and_rests_on_weekends() -> None:
    """The second month is busier than the first week, and Sundays are quieter than Fridays."""
    shop = State(SMALL.but(events_per_day=10_000)).shop
    weeks = [
        sum(shop.volume(START + timedelta(days=7 * week + day)) for day in range(7))
        for week in range(8)
    ]
    assert weeks[7] > weeks[0] * 1.2
    assert shop.volume(date(2024, 1, 7)) < shop.volume(date(2024, 1, 5)) * 0.9


@pytest.mark.slow
def test_people_sign_up_order_and_come_back() -> None:
    """Each sign-up has its own person, orders follow carts, and half the buyers are not new."""
    truth = truth_of(events_per_day=2000)
    rows = [row for day in DAYS for row in truth.events(day)]
    counts = Counter(row["event"] for row in rows)
    assert counts["Page View"] > counts["Added To Cart"] > counts["Order Completed"] > 100
    signed_up = [row["properties"]["distinct_id"] for row in rows if row["event"] == "Sign Up"]
    assert len(signed_up) == len(set(signed_up))
    buyers = {row["properties"]["distinct_id"] for row in rows if row["event"] == "Order Completed"}
    assert len(buyers - set(signed_up)) > len(buyers) / 2


def test_devices_become_users_when_they_sign_up() -> None:
    """The pages seen before a sign-up carry the id of the device they were sent with."""
    rows = [row["properties"] for row in truth_of().events(DAYS[3])]
    before = [own for own in rows if "$distinct_id_before_identity" in own]
    assert before
    for own in before:
        assert own["$distinct_id_before_identity"].startswith("$device:")
        assert not own["distinct_id"].startswith("$device:")


def test_repeats_are_of_every_kind() -> None:
    """Duplicates are unchanged, processed later, or under another id."""
    lines = list(truth_of(duplicates_rate=0.3, events_per_day=1000).lines(DAYS[3]))
    exact = [count for count in Counter(lines).values() if count > 1]
    groups: dict[object, list[dict[str, object]]] = {}
    for line in set(lines):
        record = json.loads(line)
        if key(record) is not None:
            groups.setdefault(key(record), []).append(record["properties"])
    several = [group for group in groups.values() if len(group) > 1]
    later = [group for group in several if len({own["mp_processing_time_ms"] for own in group}) > 1]
    renamed = [group for group in several if len({own["distinct_id"] for own in group}) > 1]
    assert exact
    assert later
    assert renamed


def test_no_repeats_when_the_rate_is_zero() -> None:
    """Without duplicates, the lines are the events."""
    truth = truth_of(duplicates_rate=0.0)
    assert truth.duplicates(DAYS[3]) == 0
    assert truth.totals()["lines"] == truth.totals()["events"]


def test_reused_insert_ids_do_not_merge() -> None:
    """A batch with one `$insert_id` for all rows is several events."""
    batch = [row for row in truth_of().events(DAYS[5]) if row["event"].startswith("Batch")]
    assert len(batch) == 4
    assert len({row["properties"]["$insert_id"] for row in batch}) == 1


def test_true_twins_stay_two() -> None:
    """Two identical rows without `$insert_id` are two events."""
    twins = [row for row in truth_of().events(DAYS[5]) if row["event"] == "Heartbeat"]
    assert len(twins) == 2
    assert twins[0] == twins[1]


def test_counting_agrees_with_reading() -> None:
    """The fast counts equal what reading every record in full gives, on every day."""
    truth = truth_of(duplicates_rate=0.2)
    for day in DAYS:
        rows = settled(json.loads(line) for line in truth.lines(day, time_in_ms=True))
        assert texts(rows) == texts(truth.events(day, time_in_ms=True))
        assert truth.count(day) == len(rows)
        assert truth.count_by_event(day) == Counter(row["event"] for row in rows)
        ids = {
            str(own) for row in rows if (own := row["properties"].get("distinct_id")) is not None
        }
        assert truth.users(day) == len(ids)


def test_the_newest_repeat_stays() -> None:
    """Of rows with one key, the one with the greatest processing time is kept, in any order."""

    def row(time: int, original: str, name: str) -> dict[str, object]:
        own = {"time": 5, "$insert_id": "x", "distinct_id": name, "mp_processing_time_ms": time}
        if original != name:
            own["$distinct_id_before_identity"] = original
        return {"event": "a", "properties": own}

    rows = [row(1, "d", "d"), row(3, "d", "u"), row(2, "d", "d")]
    assert list(deduplicated(rows)) == list(deduplicated(rows[::-1])) == [rows[1]]


def test_awkward_values_survive_as_sent() -> None:
    """The full set of odd rows is in the response, spelled as by real senders."""
    lines = b"\n".join(truth_of().lines(DAYS[5]))
    for text in (
        "\u2028", "\u2029", "\u0085", "Å", "хорошо", "🛒", r"\u0000\u0001", r'quo\"te',
        "18446744073709551617", "9007199254740993", "1e-7", "1.10,", "-0.0", "null",
        "the export was terminated early", '"Plan":"a","plan":"b"', '"":"empty name"',
        '"event":"not the event"', '"distinct_id":1234567890123456789', '"$insert_id":""',
    ):  # fmt: skip
        assert text.encode() in lines, text
    rows = [json.loads(line)["properties"] for line in lines.split(b"\n")]
    assert any("distinct_id" not in own for own in rows)
    assert any(own.get("distinct_id") == "" for own in rows)
    assert any("$insert_id" not in own for own in rows)
    assert {type(own["size"]) for own in rows if "size" in own} == {str, int, list}
    assert any(
        isinstance(own.get("minus_zero"), float) and math.copysign(1, own["minus_zero"]) < 0
        for own in rows
    )


def test_some_awkwardness_is_in_every_day() -> None:
    """Even without the full set, a day has letters beyond ASCII and rows without an id."""
    truth = truth_of(odd_content=False)
    rows = truth.events(DAYS[5])
    assert any("$insert_id" not in row["properties"] for row in rows)
    assert not any(row["event"].startswith("Odd") for row in rows)
    assert truth.unstorable(DAYS[3]) == []


def test_one_day_has_a_row_of_a_megabyte() -> None:
    """The third day has one row of about a megabyte, the others have none."""
    truth = truth_of()
    sizes = {day: max(map(len, truth.lines(day))) for day in DAYS}
    assert sizes[DAYS[2]] > 900_000
    assert max(size for day, size in sizes.items() if day != DAYS[2]) < 10_000


def test_half_a_surrogate_pair_on_some_days() -> None:
    """Every fifth day has one row with half a pair; a small day has none."""
    truth = truth_of()
    assert [len(truth.unstorable(day)) for day in DAYS[:10]] == [0, 0, 0, 1, 0, 0, 0, 0, 1, 0]
    assert truth_of(exact_events=50).unstorable(DAYS[3]) == []


def test_legacy_time_is_the_wall_clock_dressed_as_utc() -> None:
    """In a legacy project `time` is local and `$mp_api_timestamp_ms` is true UTC."""
    zone = "America/Los_Angeles"
    truth = truth_of(regime="legacy", zone=zone, odd_content=False)
    for row in truth.events(DAYS[4], time_in_ms=True):
        own = row["properties"]
        wall = datetime.fromtimestamp(own["time"] / 1000, UTC).replace(tzinfo=None)
        true = datetime.fromtimestamp(own["$mp_api_timestamp_ms"] / 1000, ZoneInfo(zone))
        assert wall.date() == DAYS[4]
        assert timedelta(0) < true.replace(tzinfo=None) - wall < timedelta(seconds=10)


def test_no_event_happens_in_the_hour_that_does_not_exist() -> None:
    """On the day clocks go forward, a legacy project has no times between two and three."""
    settings = EmulatorSettings(
        start=date(2024, 3, 1), days=20, exact_events=3000, regime="legacy",
        zone="America/Los_Angeles", odd_content=False, now=lambda: datetime(2024, 4, 1, tzinfo=UTC),
    )  # fmt: skip
    hours = Counter(
        datetime.fromtimestamp(row["properties"]["time"], UTC).hour
        for row in Truth(State(settings)).events(date(2024, 3, 10))
    )
    assert hours[2] == 0
    assert hours[1] > 0
    assert hours[3] > 0


def test_a_zone_change_leaves_rows_outside_their_day() -> None:
    """With `shifted_rows`, that many rows of a legacy day are dated before it."""
    truth = truth_of(regime="legacy", zone="Europe/Paris", shifted_rows=3)
    dates = [
        datetime.fromtimestamp(row["properties"]["time"], UTC).date()
        for row in truth.events(DAYS[4])
    ]
    assert dates.count(DAYS[3]) == 3
    assert dates.count(DAYS[4]) == len(dates) - 3


def test_profiles_are_as_many_as_asked_and_match_sign_ups() -> None:
    """The newest customers are those of the newest sign-ups, with a few oddities among them."""
    truth = truth_of(profiles=300)
    profiles = truth.profiles()
    ids = [profile["$distinct_id"] for profile in profiles]
    assert len(ids) == len(set(ids)) == 300
    signed_up = {
        row["properties"]["distinct_id"]
        for day in DAYS
        for row in truth.events(day)
        if row["event"] == "Sign Up"
    }
    assert signed_up <= set(ids)
    assert any(identity.isdecimal() for identity in ids)
    assert [profile["$properties"] for profile in profiles].count({}) == 1
    odd = truth_of(profiles=300, null_properties=True).profiles()
    assert [profile["$properties"] for profile in odd].count(None) == 1
    seen = [(profile["$properties"] or {}).get("$last_seen") for profile in profiles]
    assert 1 < seen.count(None) < 20
    assert all(text <= NOW.strftime("%Y-%m-%dT%H:%M:%S") for text in seen if text)
    assert len({text[:10] for text in seen if text}) > 5


@pytest.mark.parametrize("cut", [slice(0, 7), slice(290, 310), slice(298, None), slice(300, 400)])
def test_profiles_made_one_page_at_a_time_are_those_of_the_whole(cut: slice) -> None:
    """A page does not depend on what was made before it."""
    profiles = UserProfiles(Shop(SMALL), DAYS[-1], NOW, 300)
    assert profiles[cut] == list(profiles)[cut]
    assert profiles[-1] == list(profiles)[299]


def test_a_smaller_project_has_the_newest_profiles_of_a_larger_one() -> None:
    """However many profiles there are, the newest people are the same."""
    few, many = (UserProfiles(Shop(SMALL), DAYS[-1], NOW, count) for count in (50, 300))
    assert [one["$distinct_id"] for one in few] == [one["$distinct_id"] for one in many[250:]]


def test_a_million_profiles_take_the_memory_of_the_page_that_is_asked_for() -> None:
    """Only the profiles of the requested page are generated."""
    tracemalloc.start()
    try:
        state = State(SMALL.but(profiles=1_000_000, events_per_day=400_000))
        assert len(state.profiles()[500_000:501_000]) == 1000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000
