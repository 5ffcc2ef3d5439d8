from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from mixpanel_assets.errors import IncompleteExportError
from mixpanel_assets.rules.lines import MAX_LINE_BYTES, TOO_LONG
from mixpanel_assets.warehouse.database import Database
from mixpanel_assets.warehouse.memory import in_bytes
from mixpanel_assets.warehouse.profile_pages import PageFile, _plain_row, stage_profiles
from mixpanel_assets.warehouse.profiles import kept_snapshot, replace_profiles
from mixpanel_assets.warehouse.project import prepare
from mixpanel_assets_tests.laws import siblings
from mixpanel_assets_tests.warehouse.conftest import DAY, as_line
from mixpanel_assets_tests.warehouse.profiles import (
    BAD,
    FAILED,
    NOON,
    profile,
    seen,
    store,
    store_days,
    store_pages,
)


def test_a_profile_becomes_a_row(warehouse):
    """`$last_seen` gets its column, everything else stays in properties."""
    zoned = datetime(2026, 3, 1, 13, tzinfo=timezone(timedelta(hours=1)))
    store(warehouse, [profile(**{"$last_seen": "2026-01-01T00:00:05", "plan": None})], at=zoned)
    row = ("u", '{"plan":null}', datetime(2026, 1, 1, 0, 0, 5), DAY, datetime(2026, 3, 1, 12))
    assert warehouse.query("FROM profiles") == [row]


@pytest.mark.parametrize(
    "last_seen",
    siblings(
        [
            "null",
            '"soon"',
            "5",
            '"epoch"',
            "{}",
            '"2024-13-01T00:00:00"',
            '"0001-01-01T00:00:00+05:00"',
            '"2024-01-01T00:00:00.1234567"',
        ],
        keep=3,
    ),
)
def test_an_unreadable_last_seen_stays_in_properties(warehouse, last_seen):
    """It never becomes 1970, never fails the page, and is not lost."""
    properties = f'{{"$last_seen":{last_seen},"a":1}}'
    store(warehouse, [f'{{"$distinct_id":"u","$properties":{properties}}}'.encode()])
    assert warehouse.query("SELECT last_seen, properties FROM profiles") == [(None, properties)]


@pytest.mark.parametrize(
    "last_seen",
    siblings(
        [
            "2024-01-01T00:00:00",
            "2024-01-01",
            "2024-01-01 00:00:00.000",
            "2024-01-01T00:00:00Z",
            "2024-01-01T05:00:00+05:00",
            "2023-12-31T19:00:00-0500",
        ],
        keep=3,
    ),
)
def test_last_seen_is_stored_in_utc(warehouse, last_seen):
    """An offset is reckoned in; without one the time is UTC already."""
    store(warehouse, [profile(**{"$last_seen": last_seen})])
    found = warehouse.query("SELECT last_seen, properties FROM profiles")
    assert found == [(datetime(2024, 1, 1), "{}")]


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        (b"12345678901234567890123", "12345678901234567890123"),
        (b"12.50", "12.50"),
        (b'"007"', "007"),
        (b'""', ""),
    ],
)
def test_a_distinct_id_is_text_with_its_digits(warehouse, sent, stored):
    """Mixpanel's own examples send a number."""
    store(warehouse, [b'{"$distinct_id":%s,"$properties":{}}' % sent], compress=True)
    assert warehouse.query("SELECT distinct_id FROM profiles") == [(stored,)]


@pytest.mark.parametrize(
    "body", [b'{"$distinct_id":"u","$properties":null}', b'{"$distinct_id":"u"}']
)
def test_missing_properties_are_empty(warehouse, body):
    """One odd profile costs no page."""
    report = store(warehouse, [body, profile("v")])
    assert report.row_count == 2
    assert warehouse.query("SELECT properties FROM profiles WHERE distinct_id = 'u'") == [("{}",)]


def test_values_keep_their_digits(warehouse):
    """A profile's numbers are stored as sent."""
    numbers = '{"a":0.12345678901234567890,"b":1e400,"c":18446744073709551616}'
    store(warehouse, [f'{{"$distinct_id":"u","$properties":{numbers}}}'.encode()])
    assert warehouse.query("SELECT properties FROM profiles") == [(numbers,)]


def test_the_last_page_wins(warehouse):
    """A profile on two pages is stored once, as the later page has it, and counted."""
    report = store(warehouse, [profile("u", n=1), profile("v")], [profile("u", n=2)])
    assert (report.row_count, report.received, report.duplicates_removed) == (2, 3, 1)
    found = warehouse.query("SELECT properties ->> 'n' FROM profiles WHERE distinct_id = 'u'")
    assert found == [("2",)]


def test_a_complete_snapshot_replaces_its_day(warehouse):
    """Profiles that are gone leave the day; other days stay."""
    store(warehouse, [profile("old")], day=DAY - timedelta(days=1))
    store(warehouse, [profile("u"), profile("gone")])
    report = store(warehouse, [profile("u"), profile("new")], expected_total=2, run_id="r")
    assert (report.status, report.rows_before, report.expected_total) == ("complete", 2, 2)
    found = warehouse.query(
        "SELECT distinct_id FROM profiles WHERE snapshot_date = ? ORDER BY 1", DAY
    )
    assert found == [("new",), ("u",)]
    assert warehouse.query("SELECT count(*) FROM profiles") == [(3,)]


def test_a_snapshot_that_does_not_add_up_is_partial(warehouse):
    """A page that came twice, in the place of another, does not pass for the whole."""
    store(warehouse, [profile("old")])
    report = store(warehouse, *[[profile("u"), profile("v")]] * 2, expected_total=4)
    assert (report.status, report.missing_rows, report.is_complete) == ("partial", 2, False)
    assert warehouse.query("SELECT distinct_id FROM profiles ORDER BY 1") == [
        ("old",),
        ("u",),
        ("v",),
    ]


def test_profiles_in_quarantine_count_as_come(warehouse):
    """They are accounted for, so the snapshot is whole."""
    bad = b'{"$distinct_id":"u","$properties":{"a":"\\ud800"}}'
    assert store(warehouse, [bad, profile("v")], expected_total=2).status == "complete"


def test_a_partial_snapshot_is_merged(warehouse):
    """Nothing that was there is lost to a page that did not come."""
    store(warehouse, [profile("u", n=1), profile("v")])
    report = store(warehouse, [profile("u", n=2), profile("w")], failed_pages=FAILED)
    assert (report.status, report.row_count, report.failed_pages) == ("partial", 3, FAILED)
    found = warehouse.query("SELECT distinct_id, properties ->> 'n' FROM profiles ORDER BY 1")
    assert found == [("u", "2"), ("v", None), ("w", None)]
    assert warehouse.query("SELECT status, scope, failed_pages FROM mixpanel._days") == [
        ("partial", "all", [1, 3])
    ]


def test_an_empty_snapshot_is_empty(warehouse):
    """A project without profiles is complete and empty."""
    report = store(warehouse, [], expected_total=0)
    assert (report.status, report.row_count) == ("empty", 0)
    assert warehouse.query("SELECT status FROM mixpanel._days") == [("empty",)]


def current(warehouse):
    return [
        row[0] for row in warehouse.query("SELECT distinct_id FROM profiles_current ORDER BY 1")
    ]


def test_current_profiles_are_the_newest_ones(warehouse):
    """The newest row per id is current; a profile that the newest full snapshot lacks is not."""
    yesterday, later = DAY - timedelta(days=1), NOON + timedelta(hours=1)
    store(
        warehouse, [profile("u", n=1), profile("gone")], day=yesterday, at=NOON - timedelta(days=1)
    )
    store(warehouse, [profile("u", n=2), profile("v")])
    assert current(warehouse) == ["u", "v"]
    store(warehouse, [profile("w")], day=yesterday, at=later, failed_pages={1: "it broke"})
    store(warehouse, [profile("x")], at=later, failed_pages={1: "it broke"})
    assert current(warehouse) == ["u", "v", "w", "x"]
    found = warehouse.query(
        "SELECT properties ->> 'n' FROM profiles_current WHERE distinct_id = 'u'"
    )
    assert found == [("2",)]
    store(warehouse, [], day=DAY + timedelta(days=1), at=later + timedelta(hours=1))
    assert current(warehouse) == []


def test_without_a_full_snapshot_everybody_is_current(warehouse):
    """A partial snapshot hides no profile."""
    store(warehouse, [profile("u")], failed_pages={1: "it broke"})
    assert current(warehouse) == ["u"]


def test_a_profile_that_is_no_text_goes_to_quarantine(warehouse):
    """Half a surrogate pair keeps one profile out, not its page."""
    bad = b'{"$distinct_id":"u","$properties":{"a":"\\ud800"}}'
    report = store(warehouse, [bad, profile("v")])
    assert (report.row_count, report.quarantined) == (1, 1)
    found = warehouse.query("SELECT table_name, day, line FROM mixpanel._quarantine")
    assert found == [("profiles", DAY, bad)]


@pytest.mark.parametrize(
    "line",
    siblings(
        [
            b"5",
            b'{"$distinct_id":"u","$properties":{"a":"' + b"a" * MAX_LINE_BYTES,
            b'[{"$distinct_id":"u"}]',
            b"{}",
            b'{"$distinct_id":null}',
            b'{"$distinct_id":"u",',
            b'{"$distinct_id":"u","$properties":[{}]}',
        ],
        keep=4,
    ),
    ids=range(7),
)
def test_a_line_that_is_no_profile_fails_the_load(warehouse, line):
    """A broken page is fetched again, and the day keeps what it had."""
    store(warehouse, [profile("u")])
    with pytest.raises(IncompleteExportError, match="not a profile"):
        store(warehouse, [profile("v"), line])
    assert warehouse.query("SELECT distinct_id FROM profiles") == [("u",)]


def kept(warehouse, scope):
    with warehouse.database.read() as connection:
        return kept_snapshot(connection, DAY, scope)


def test_a_full_snapshot_is_kept_from_a_narrower_one(warehouse):
    """It cannot be taken again; another full one may replace it."""
    store(warehouse, [profile("u"), profile("v")], expected_total=2)
    report = kept(warehouse, "seen_on_day")
    assert (report.kept, report.scope, report.status, report.row_count) == (
        True,
        "all",
        "complete",
        2,
    )
    assert kept(warehouse, "all") is None


def test_profiles_of_a_day_are_not_kept(warehouse):
    """They can be requested again."""
    store(warehouse, [profile("u")], scope="seen_on_day")
    assert kept(warehouse, "seen_on_day") is None


def test_a_partial_full_snapshot_is_kept_too(warehouse):
    """It cannot be taken again either, and holds more than those seen on its day."""
    store(warehouse, [profile("u")], failed_pages={1: "it broke"})
    report = kept(warehouse, "seen_on_day")
    assert (report.kept, report.status) == (True, "partial")


@pytest.mark.parametrize(
    ("bad", "good", "allowed"), [(1, 1, True), (2, 198, True), (3, 200, False)]
)
def test_a_snapshot_may_have_few_lines_in_quarantine(warehouse, bad, good, allowed):
    """One, or 1 %; with more the pages are not to be trusted, and nothing changes."""
    lines = [BAD % n for n in range(bad)] + [profile(f"u{n}") for n in range(good)]
    if allowed:
        assert store(warehouse, lines).quarantined == bad
        return
    store(warehouse, [profile("old")])
    with pytest.raises(IncompleteExportError, match="3 of the 203 lines received"):
        store(warehouse, lines)
    assert warehouse.query("SELECT distinct_id FROM profiles") == [("old",)]


def test_a_day_whose_only_profile_is_in_quarantine_is_not_empty(warehouse):
    """Mixpanel sent something."""
    assert store(warehouse, [BAD % 1]).status == "complete"


def test_of_a_name_that_comes_twice_the_last_value_is_stored(warehouse):
    """Spaces and escapes between the names do not matter."""
    properties = '{"a": 1,"a":2, "\\u0061":3,"ключ":4}'
    line = f'{{"$distinct_id":"u","$properties":{properties}}}'.encode()
    store(warehouse, [line])
    found = warehouse.query("SELECT properties FROM profiles")
    assert found == [('{"a":3,"ключ":4}',)]


def test_a_page_that_is_gone_is_to_be_fetched_again(warehouse):
    """A page that was deleted before the load raises an error that says to run it again."""
    page = PageFile(warehouse.folder / "nowhere", NOON)
    with pytest.raises(IncompleteExportError, match="run it again"):
        store_pages(warehouse, [page])


def test_a_damaged_page_changes_nothing(warehouse):
    """Half a gzip file is no page."""
    store(warehouse, [profile("old")])
    path = warehouse.folder / "page"
    path.write_bytes(b"\x1f\x8b\x08\x00")
    with pytest.raises(IncompleteExportError, match="cannot be read"):
        store_pages(warehouse, [PageFile(path, NOON)])
    assert warehouse.query("SELECT distinct_id FROM profiles") == [("old",)]


def test_no_page_at_all_changes_nothing(warehouse):
    """If every page failed, the error names the reason and the stored rows are kept."""
    store(warehouse, [profile("old")])
    with pytest.raises(IncompleteExportError, match="it broke"):
        store(warehouse, failed_pages={0: "it broke"})
    assert warehouse.query("SELECT distinct_id FROM profiles") == [("old",)]


def test_what_fails_to_come_is_counted(warehouse):
    """Failed pages are reported apart from the number of missing profiles."""
    report = store(warehouse, [profile("u")], expected_total=3, failed_pages={1: "it broke"})
    assert (report.missing_rows, report.failed_pages) == (2, {1: "it broke"})
    assert store(warehouse, [profile("u")], expected_total=1).missing_rows == 0


def test_a_complete_answer_can_be_merged(warehouse):
    """It is complete, and yet deletes nothing."""
    store(warehouse, [profile("old")])
    report = store(warehouse, [profile("u")], expected_total=1, merge=True)
    assert (report.status, report.row_count) == ("complete", 2)
    assert current(warehouse) == ["old", "u"]


def test_merging_keeps_what_is_in_quarantine(warehouse):
    """A line that did not come again is not forgotten; one that did is there once."""
    store(warehouse, [BAD % 1, profile("v")])
    store(warehouse, [BAD % 1, profile("v")], failed_pages={1: "it broke"})
    report = store(warehouse, [BAD % 2, profile("v")], failed_pages={1: "it broke"})
    assert report.quarantined == 2
    assert warehouse.query("SELECT line FROM mixpanel._quarantine ORDER BY ALL") == [
        (BAD % 1,),
        (BAD % 2,),
    ]


def test_a_line_in_quarantine_stands_for_no_other_profile(warehouse):
    """Its profile came once more, whole, so one of the three never came."""
    bad = b'{"$distinct_id":"u","$properties":{"a":"\\ud800"}}'
    assert store(warehouse, [bad], [profile("u"), profile("v")], expected_total=3).missing_rows == 1


@pytest.mark.parametrize(
    "line", [b'{"$distinct_id":"\\ud800"}', b"\xff", b'{"$distinct_id":"\xff"}']
)
def test_a_profile_whose_id_is_no_text_counts_as_come(warehouse, line):
    """It is in quarantine, so it is accounted for."""
    assert store(warehouse, [line, profile("v")], expected_total=2).missing_rows == 0


@contextmanager
def staged_page(database: Database, lines: Iterable[bytes]) -> Iterator[tuple[Any, Any]]:
    """Stage one page of a full snapshot; yield DuckDB's connection, too."""
    path = database.path.parent / "page"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    with (
        database.staging() as connection,
        stage_profiles(
            connection, [PageFile(path, NOON)], days=[DAY], scope="all", zone="UTC"
        ) as staged,
    ):
        yield connection, staged


def settings(connection) -> tuple[float, int]:
    """Return the bytes and threads that DuckDB may use."""
    limit, threads = connection.execute(
        "SELECT current_setting('memory_limit'), current_setting('threads')"
    ).fetchone()
    return in_bytes(limit), threads


def test_large_profiles_are_staged_apart(warehouse):
    """DuckDB reads 2,048 rows at once, so that it holds few large ones at a time."""
    lines = [as_line(profile(f"u{n}", a="a" * 600_000)) for n in range(5)]
    rowids = "SELECT count(*), count(DISTINCT rowid // 2048) FROM {}"
    with staged_page(warehouse.database, lines) as (connection, staged):
        assert connection.execute(rowids.format(staged.table)).fetchall() == [(5, 2)]


def test_profiles_are_staged_with_little_memory(tmp_path):
    """The rest is left for other work of the process."""
    database = Database(tmp_path / "mixpanel.duckdb", memory_limit="900MB")
    with staged_page(database, [as_line(profile())]) as (connection, _):
        assert settings(connection)[0] == pytest.approx(192e6, rel=0.001)


def test_large_profiles_get_the_memory_that_they_need(tmp_path):
    """Of DuckDB's own limit, and one thread."""
    database = Database(tmp_path / "mixpanel.duckdb", memory_limit="900MB")
    lines = [as_line(profile(f"u{n}", a="a" * 1_050_000)) for n in range(33)]
    with staged_page(database, lines) as (connection, staged):
        assert staged.tallies[DAY].rows == 33
        limit, threads = settings(connection)
        assert (limit, threads) == (pytest.approx(900e6 * 7 / 8, rel=0.001), 1)


def test_the_load_leaves_the_memory_limit_as_it_was(warehouse):
    """Only while it stages does it use less."""
    path = warehouse.folder / "page"
    path.write_bytes(b"")
    with warehouse.database.write() as connection:
        prepare(connection, warehouse.project)
        before = settings(connection)
        pages = [PageFile(path, NOON)]
        with stage_profiles(connection, pages, days=[DAY], scope="all", zone="UTC") as staged:
            replace_profiles(connection, staged)
        assert settings(connection) == before


def test_a_profile_that_is_too_long_is_in_quarantine(warehouse):
    """The beginning of its line is kept, and it counts as one profile."""
    line = b'{"$distinct_id":"u","$properties":{"a":"%b"}}' % (b"a" * MAX_LINE_BYTES)
    report = store(warehouse, [line, profile("v")], expected_total=2)
    assert (report.status, report.row_count, report.quarantined) == ("complete", 1, 1)
    found = warehouse.query("SELECT reason, line_bytes FROM mixpanel._quarantine")
    assert found == [(TOO_LONG, len(line))]


def test_large_lines_in_quarantine_can_count_for_another_day(warehouse):
    """A full snapshot of the first requested day is kept, and nothing else comes with them."""
    next_day = DAY + timedelta(days=1)
    store(warehouse, [profile("u")], day=DAY)
    lines = [
        b'{"$distinct_id":"u","$properties":{"a":"\\ud800%b"}}' % (b"a" * size)
        for size in (2_200_000, 1)
    ]
    days = [seen(f"v{number}", next_day) for number in range(200)]
    store_days(warehouse, [*lines, *days], days=[DAY, next_day], scope="seen_on_day")
    found = warehouse.query(
        "SELECT day, line FROM mixpanel._quarantine ORDER BY octet_length(line) DESC"
    )
    assert found == [(next_day, line) for line in lines]


@pytest.mark.parametrize("last_seen", ["2026-03-01T12:00:00", "soon"])
@pytest.mark.parametrize("value", [1, "a", None, [{"b": {}}], {"c": 2}])
def test_a_usual_line_is_read_in_one_step(last_seen, value):
    """Four times as fast, with the same result."""
    record = profile(**{"$last_seen": last_seen, "a": value})
    line = json.dumps(record, separators=(",", ":")).encode()
    assert _plain_row(line) == PageFile(Path("page"), NOON).row(line)


@pytest.mark.parametrize(("levels", "is_plain"), [(240, True), (260, False)])
def test_a_line_that_may_be_too_deep_is_read_in_parts(levels, is_plain):
    """It may have to be quarantined."""
    line = b'{"$distinct_id":"u","$properties":{"a":%b%b}}' % (b"[" * levels, b"]" * levels)
    assert (_plain_row(line) is not None) is is_plain


def test_the_time_of_a_page_is_utc():
    """Whatever its zone is; without one it is UTC already."""
    path, noon = Path("page"), datetime(2026, 3, 1, 12)
    for moment in (noon, NOON, NOON.astimezone(timezone(timedelta(hours=5)))):
        assert PageFile(path, moment).fetched_at_utc == noon


@pytest.mark.parametrize(
    "text",
    [
        *("20240101", "20240101T000000", "2024-W01-1", "2024-01-01T00:00:00.1234567"),
        *("2024-01-01T00", "2024-01-01T00:00:00+05:30:10", "2024-02-30", "9999-12-31T23:59-01:00"),
    ],
)
def test_other_ways_to_write_a_time_are_no_last_seen(text):
    """Python reads some of them; to take them would lose digits, or fail at the ends of time."""
    line = b'{"$distinct_id":"u","$properties":{"$last_seen":"%b"}}' % text.encode()
    properties = f'{{"$last_seen":"{text}"}}'
    assert PageFile(Path("page"), NOON).row(line) == ("u", properties, None)


def test_odd_profiles_are_stored_as_sent_or_in_quarantine(warehouse):
    """An id is the text of what was sent; what no table holds is there byte for byte."""
    ids = [b"true", b'{"a": 1.50}', b"[1]", b"1e400", b"-0", b"1" * 5000, b"1.50"]
    stored = [b'{"$distinct_id":%b,"$properties":{"n":1.10}}' % sent for sent in ids]
    twice = b'{"$distinct_id":"x","$distinct_id":"u","$properties":5,"$properties":{"n":1.10}}'
    deep = b"[" * 510 + b"]" * 510
    refused = [
        b'{"$distinct_id":"r1","$properties":{"a":"\xff"}}',
        b'{"$distinct_id":"r2","$properties":{"a":%b}}' % deep,
        b'{"$distinct_id":"r3","$properties":{"a":"\t"}}',
    ]
    many = [profile(f"p{number}") for number in range(300)]  # 1 % may be bad
    report = store(warehouse, [*many, *stored, b"", twice, *refused])
    assert (report.row_count, report.quarantined) == (300 + len(ids) + 1, 3)
    found = warehouse.query(
        "SELECT distinct_id FROM profiles WHERE properties = '{\"n\":1.10}' ORDER BY 1"
    )
    assert found == sorted([(sent.decode(),) for sent in ids] + [("u",)])
    lines = warehouse.query("SELECT line, line_bytes FROM mixpanel._quarantine ORDER BY 1")
    assert lines == [(line, len(line)) for line in sorted(refused)]
