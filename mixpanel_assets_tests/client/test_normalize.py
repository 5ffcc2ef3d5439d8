"""Normalized records equal stored rows: one law holds the Python path and the SQL together."""

import gzip
import json
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from functools import cache

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_assets.client import MixpanelAPIClient, normalize_event, normalize_profile
from mixpanel_assets.client.normalize import EventNormalizer
from mixpanel_assets.client.verdict import RecordVerdict
from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets.emulator.truth import deduplicated
from mixpanel_assets.warehouse.project import ProjectIdentity
from mixpanel_assets.warehouse.vanished import Reload
from mixpanel_assets_tests.conftest import PLENTY
from mixpanel_assets_tests.laws import new_folder, siblings
from mixpanel_assets_tests.warehouse.conftest import DAY, DAY_MS, START_MS, Warehouse
from mixpanel_assets_tests.warehouse.test_load_laws import LAW, dumps, events, properties, text

LAST = DAY + timedelta(days=2)
KEYS = ["event_name", "event_time", "distinct_id", "insert_id", "properties"]
ZONES = ["America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kolkata"]


@cache
def warehouse(zone: str | None = None) -> Warehouse:
    project = ProjectIdentity("1234", "eu", "legacy", zone) if zone else ProjectIdentity("1", "eu")
    return Warehouse(new_folder(), project)


def stored(lines: list[bytes], zone: str | None = None, **days: date) -> list[dict]:
    """Load the lines and return the rows in the shape of normalized events."""
    where = warehouse(zone)
    # The warehouse is shared by all examples, whose days are to hold nothing of those before.
    where.load(lines, reload=Reload(accept_smaller=True), **(days or {"to_date": LAST}))
    rows = where.query(f"SELECT {', '.join(KEYS)} FROM events WHERE event_date >= DATE '{DAY}'")
    found = [dict(zip(KEYS, row, strict=True)) for row in rows]
    for row in found:
        row["event_time"] = row["event_time"].replace(tzinfo=UTC)
        row["properties"] = json.loads(row["properties"])
    return found


def normalized(lines: list[bytes], zone: str | None = None) -> list[dict]:
    """Return what a normalized stream makes of the lines."""
    normalizer = EventNormalizer(zone)
    judge = RecordVerdict(normalizer.convert, gzip=False)
    blocks = [*judge.feed(b"\n".join(lines)), *judge.finish()]
    return [record for block in blocks for record in block]


def without_repeats(lines: list[bytes]) -> list[bytes]:
    """Return the lines that a load keeps; ties are broken by content there, so few are needed."""
    records = [json.loads(line) for line in lines]
    kept = {id(record) for record in deduplicated(records)}
    return [line for line, record in zip(lines, records, strict=True) if id(record) in kept]


def canonical(records: list[dict]) -> list[str]:
    return sorted(json.dumps(record, sort_keys=True, default=str) for record in records)


def twins_apart(records: list[dict]) -> tuple[list[str], Counter]:
    """Return the records without their made ids, and the made ids.

    Which of two twins has which number depends on the order of arrival in a stream and on
    their content in the warehouse; the ids themselves are the same.
    """
    made = Counter(record["insert_id"] for record in records if is_made(record))
    return canonical([{**r, "insert_id": None} if is_made(r) else r for r in records]), made


def is_made(record: dict) -> bool:
    return len(record["insert_id"]) == 36 and record["insert_id"][14] == "8"


ids = st.one_of(
    text,
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.decimals(-9, 9, places=2),
    st.floats(0.5, 9),
)
fixed = st.fixed_dictionaries(
    {"time": st.integers(START_MS, START_MS + 3 * DAY_MS - 1)},
    optional={"distinct_id": ids, "mp_processing_time_ms": st.integers(START_MS, START_MS + 9)},
)


@LAW
@given(st.lists(st.tuples(fixed, ids, properties), max_size=6))
def test_a_normalized_event_equals_the_stored_row(drawn):
    """Whatever ids and properties an event has, stream and table say the same of it."""
    lines = []
    for n, (head, insert_id, others) in enumerate(drawn):
        own_time = head["time"] // 10 * 10 + n  # no two are repeats
        fields = {**head, "time": own_time, "$insert_id": insert_id, **others}
        lines.append(dumps({"event": "A", "properties": fields}))
    assert canonical(normalized(lines)) == canonical(stored(lines))


@LAW
@given(st.lists(events(days=3), max_size=10))
def test_made_ids_and_twins_are_those_of_the_table(records):
    """Events without an id get the same ids as in the table, each twin its own."""
    lines = [json.dumps(record).encode() for record in records]
    named = [r for r in records if r["properties"].get("$insert_id")]
    plain = [line for line, r in zip(lines, records, strict=True) if r not in named]
    assert twins_apart(normalized(plain)) == twins_apart(stored(plain))


@LAW
@given(st.sampled_from(ZONES), st.lists(st.integers(0, 366 * 24 * 4), min_size=1, max_size=50))
def test_wall_clocks_are_read_as_duckdb_reads_them(zone, quarters):
    """In a legacy project every quarter of an hour of a year has the table's `event_time`."""
    start = datetime(2024, 1, 1, tzinfo=UTC)
    times = [int((start + timedelta(minutes=15 * n)).timestamp() * 1000) for n in quarters]
    with duckdb.connect() as connection:
        found = connection.execute(
            "SELECT (make_timestamp_ms(ms) AT TIME ZONE ?) AT TIME ZONE 'UTC' "
            "FROM (SELECT unnest(?::BIGINT[]) AS ms)",
            [zone, times],
        ).fetchall()
    ours = [
        normalize_event({"event": "A", "properties": {"time": ms}}, local_zone=zone)["event_time"]
        for ms in times
    ]
    assert ours == [row[0].replace(tzinfo=UTC) for row in found]


@pytest.mark.parametrize(
    ("zone", "wall_clock", "expected"),
    [
        ("America/New_York", "2024-03-10T02:30", "2024-03-10T07:30"),  # skipped: read as before
        ("America/New_York", "2024-11-03T01:30", "2024-11-03T06:30"),  # twice: the later one
        ("Europe/Berlin", "2024-03-31T02:30", "2024-03-31T01:30"),
        ("Europe/Berlin", "2024-10-27T02:30", "2024-10-27T01:30"),
        ("Asia/Kolkata", "2024-06-01T05:30", "2024-06-01T00:00"),
    ],
)
def test_the_hours_when_clocks_change_have_one_reading(zone, wall_clock, expected):
    """The table's event_time and the stream's are both this one."""
    ms = int(datetime.fromisoformat(wall_clock).replace(tzinfo=UTC).timestamp() * 1000)
    line = dumps({"event": "A", "properties": {"time": ms, "$insert_id": "i"}})
    day = datetime.fromisoformat(wall_clock).date()
    [ours] = normalized([line], zone)
    where = warehouse(zone)
    where.load([line], from_date=day)
    found = where.query(f"SELECT event_time FROM events WHERE event_date = DATE '{day}'")
    assert ours["event_time"] == datetime.fromisoformat(expected).replace(tzinfo=UTC)
    assert ours["event_time"].replace(tzinfo=None) == found[0][0]


@pytest.fixture(scope="module", params=[None, "Europe/Berlin"])
def odd_days(request):
    """Five days of every awkward row there is, as `utc` and as `legacy` project."""
    regime = "legacy" if request.param else "utc"
    settings = EmulatorSettings(
        start=DAY, days=5, regime=regime, zone=request.param or "UTC", duplicates_rate=0.05
    )
    with Emulator(settings) as emulator:
        emulator.faults.add(Fault("odd-content", day=DAY))
        yield emulator, request.param


@pytest.mark.parametrize("staged", siblings([True, False], keep=1))
def test_streams_of_odd_days_equal_the_table(staged, odd_days, credentials, tmp_path):
    """Emoji, lone surrogates aside, huge numbers, missing ids, a megabyte: all as stored.

    What differs is said in the documentation: repeats come again, and the lines that the
    table keeps in quarantine are yielded.
    """
    emulator, zone = odd_days
    days = {"from_date": DAY, "to_date": DAY + timedelta(days=4)}
    with MixpanelAPIClient(credentials, api_base_url=emulator.base_url, budget=PLENTY) as client:
        [spool] = client.event_export(**days, directory=tmp_path)
        streamed = list(client.stream_events(**days, staged=staged, local_zone=zone))
    lines = gzip.decompress(spool.path.read_bytes()).splitlines()
    assert len(streamed) == len(lines)
    storable = [line for line in lines if b"\\ud83d here" not in line]
    assert len(storable) < len(lines)
    rows = stored(storable, zone, **days)
    kept = normalized(without_repeats(storable), zone)
    assert twins_apart(kept) == twins_apart(rows)
    everything = normalized(lines, zone)
    assert twins_apart(streamed) == twins_apart(everything)


def test_normalizing_changes_nothing_it_was_given():
    """The raw event is still raw afterwards."""
    raw = {"event": "A", "properties": {"time": START_MS, "distinct_id": 7, "x": 1}}
    before = json.dumps(raw)
    normalize_event(raw)
    assert json.dumps(raw) == before


@pytest.mark.parametrize(
    "time", [None, "2024-01-01", "1767225600000", True, 1.5, 0, 5, -1, 253_402_300_800_000, 10**30]
)
def test_what_is_no_moment_is_none(time):
    """A missing, textual, fractional or absurd `time` is None, never 1970."""
    normalizer = EventNormalizer()
    event = normalizer({"event": "A", "properties": {"time": time}})
    assert event["event_time"] is None
    assert normalizer.timeless == 1
    assert "time" not in event["properties"]


def test_milliseconds_are_kept_to_the_end_of_the_calendar():
    """No float rounds the last digits, and no zone leads out of the calendar."""
    raw = {"event": "A", "properties": {"time": 253_402_214_399_999}}
    last = datetime(9999, 12, 30, 23, 59, 59, 999_000, tzinfo=UTC)
    assert normalize_event(raw)["event_time"] == last
    behind = normalize_event(raw, local_zone="America/New_York")["event_time"]
    assert behind == last + timedelta(hours=5)


@pytest.mark.parametrize(
    ("sent", "text_of_it"),
    [('"0012"', "0012"), ("12", "12"), ("1.10", "1.10"), ("1e3", "1e3"), ("true", "true")],
)
def test_ids_are_text(sent, text_of_it):
    """A number sent as id keeps its digits."""
    line = f'{{"event":"A","properties":{{"distinct_id":{sent},"$insert_id":{sent}}}}}'.encode()
    [event] = normalized([line])
    assert (event["distinct_id"], event["insert_id"]) == (text_of_it, text_of_it)


def test_twins_are_counted_anew_for_other_days():
    """The number of a twin is its number within the day."""
    normalizer = EventNormalizer()
    raw = {"event": "A", "properties": {"time": START_MS}}
    first, second = normalizer(raw)["insert_id"], normalizer(raw)["insert_id"]
    third = normalizer(raw)["insert_id"]
    assert len({first, second, third}) == 3
    normalizer.begin_days()
    assert normalizer(raw)["insert_id"] == first


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (
            {"$distinct_id": "u", "$properties": {"$last_seen": "2024-01-03T10:00:00", "n": 1}},
            {"distinct_id": "u", "last_seen": "2024-01-03T10:00:00", "properties": {"n": 1}},
        ),
        (
            {"$distinct_id": 12, "$properties": None},
            {"distinct_id": "12", "last_seen": None, "properties": {}},
        ),
        ({"$distinct_id": "u"}, {"distinct_id": "u", "last_seen": None, "properties": {}}),
    ],
)
def test_a_normalized_profile_has_three_keys(raw, expected):
    """`last_seen` is text as sent, None when absent."""
    assert normalize_profile(raw) == expected


@pytest.mark.parametrize(
    ("processed", "hour"),
    [("08:31", 8), ("09:31", 9), (None, 9)],
    ids=["first", "second", "unknown"],
)
def test_an_hour_that_clocks_repeat_is_told_apart_by_when_it_was_processed(processed, hour):
    """01:30 in California on 5 November 2023 was 08:30 and 09:30 UTC."""
    wall_clock = datetime(2023, 11, 5, 1, 30, tzinfo=UTC)
    properties = {"time": int(wall_clock.timestamp() * 1000)}
    if processed:
        moment = datetime.fromisoformat(f"2023-11-05T{processed}:00+00:00")
        properties["mp_processing_time_ms"] = int(moment.timestamp() * 1000)
    event = normalize_event({"event": "e", "properties": properties}, local_zone="US/Pacific")
    assert event["event_time"] == datetime(2023, 11, 5, hour, 30, tzinfo=UTC)
