from __future__ import annotations

import json
from datetime import date, datetime, timedelta

import pytest

from mixpanel_assets.client import normalize_event
from mixpanel_assets.errors import ConfigError, IncompleteExportError
from mixpanel_assets.rules.lines import ReceivedDays
from mixpanel_assets.rules.made_ids import made_id
from mixpanel_assets.warehouse.events import mark_days, stage_days
from mixpanel_assets.warehouse.lines import ShiftedRowsError
from mixpanel_assets.warehouse.project import ProjectIdentity
from mixpanel_assets_tests.laws import siblings
from mixpanel_assets_tests.warehouse.conftest import (
    ACCEPT_SMALLER,
    DAY,
    DAY_MS,
    START_MS,
    Warehouse,
    event,
)

NEXT_DAY = DAY + timedelta(days=1)


def test_an_event_becomes_a_row_with_every_column(warehouse):
    """Fixed values get their columns, everything else stays in properties as it was."""
    warehouse.load(
        [
            event(
                "Order",
                START_MS + 1,
                distinct_id="u",
                **{"$insert_id": "i", "mp_processing_time_ms": START_MS + 5, "Plan": None},
            )
        ]
    )
    (row,) = warehouse.rows()
    assert row == (
        "Order",
        datetime(2026, 3, 1, 0, 0, 0, 1000),
        "u",
        "i",
        f'{{"mp_processing_time_ms":{START_MS + 5},"Plan":null}}',
        DAY,
        datetime(2026, 3, 1, 0, 0, 0, 5000),
        START_MS + 1,
    )


def test_every_asked_day_is_reported_in_order(warehouse):
    """Days without events are reported as empty, and all of them stand in the ledger."""
    reports = warehouse.load(
        [event(), event(time=START_MS + 2 * DAY_MS)], to_date=DAY + timedelta(days=3)
    )
    assert [report.status for report in reports] == ["complete", "empty", "complete", "empty"]
    assert [report.day for report in reports] == [DAY + timedelta(days=n) for n in range(4)]
    ledger = warehouse.query("SELECT day, status, row_count FROM mixpanel._days ORDER BY day")
    assert ledger == [(report.day, report.status, report.row_count) for report in reports]


def test_an_empty_file_is_an_export_without_events(warehouse):
    """Zero bytes are accepted; a stored row stays unless the caller lets it go."""
    warehouse.load([event()])
    (report,) = warehouse.load([])
    assert (report.status, report.rows_before, report.row_count) == ("complete", 1, 1)
    (report,) = warehouse.load([], reload=ACCEPT_SMALLER)
    assert (report.status, report.rows_before, report.row_count) == ("empty", 1, 0)
    assert warehouse.rows() == []


def test_gzip_is_known_by_its_bytes(warehouse):
    """A gzip file loads whatever it is called."""
    spool = warehouse.spool([event(n=number) for number in range(3)], compress=True)
    renamed = spool.rename(spool.with_name("part"))
    (report,) = warehouse.store(ReceivedDays(renamed, DAY, DAY, 3, names_once=True))
    assert report.row_count == 3


def test_a_day_that_is_not_over_is_open(warehouse):
    """An open day says so, with or without events."""
    reports = warehouse.load([event()], to_date=NEXT_DAY, open_days=[DAY, NEXT_DAY])
    assert [report.status for report in reports] == ["open", "open"]


def test_a_report_counts_by_event_and_hour(warehouse):
    """Counts by event and by UTC hour add up to the day's rows, in report and ledger."""
    (report,) = warehouse.load(
        [event("A"), event("A", START_MS + 3_600_000), event("B", START_MS + 86_399_999)]
    )
    assert report.event_counts == {"A": 2, "B": 1}
    assert report.hour_counts == (1, 1, *[0] * 21, 1)
    counts = warehouse.query("SELECT event_name, row_count FROM mixpanel._event_counts ORDER BY 1")
    assert counts == [("A", 2), ("B", 1)]


def test_bytes_are_shared_by_rows_and_requests_counted_once(warehouse):
    """The shares of a packed request add up to what was received."""
    reports = warehouse.load(
        [event(n=1), event(n=2), event(time=START_MS + DAY_MS)],
        to_date=NEXT_DAY,
        received_bytes=100,
        requests=2,
        run_id="run",
    )
    assert [report.bytes for report in reports] == [66, 34]
    assert [report.requests for report in reports] == [2, 0]
    assert warehouse.query("SELECT DISTINCT run_id FROM mixpanel._days") == [("run",)]


def test_metadata_has_one_row_per_table(warehouse):
    """`_metadata` has exactly the documented columns."""
    warehouse.load([event(), event(time=START_MS + DAY_MS)], to_date=NEXT_DAY)
    with warehouse.database.read() as connection:
        found = connection.execute("SELECT * EXCLUDE fetched_at FROM _metadata")
        assert found.fetchall() == [("events", "events", DAY, NEXT_DAY, 2)]
        names = [column[0] for column in connection.execute("FROM _metadata").description]
    assert names == ["table_name", "type", "fetched_at", "from_date", "to_date", "row_count"]


@pytest.mark.parametrize(
    ("sent", "stored"),
    siblings(
        [
            ("5", "5"),
            ('"5"', "5"),
            ("12345678901234567890123", "12345678901234567890123"),
            ("12.50", "12.50"),
            ("1e5", "1e5"),
            ('""', ""),
            ("null", None),
            ('"a\\u0000b"', "a\0b"),
            ('"\\ud83d\\ude00"', "😀"),
        ],
        keep=3,
    ),
)
def test_a_distinct_id_is_text_with_its_digits(warehouse, sent, stored):
    """A number keeps its digits, null is NULL, an empty text stays one."""
    line = f'{{"event":"a","properties":{{"time":{START_MS},"distinct_id":{sent}}}}}'
    warehouse.load([line.encode()])
    assert warehouse.query("SELECT distinct_id FROM events") == [(stored,)]


def test_an_absent_distinct_id_is_null(warehouse):
    """Absent is NULL, not an empty text."""
    warehouse.load([event()])
    assert warehouse.query("SELECT distinct_id FROM events") == [(None,)]


@pytest.mark.parametrize(
    "properties",
    siblings(
        [
            "{}",
            '{"":1,"a.b":{"time":2,"x":null},"a\\"b":3,"a\\\\b":4,"Time":5,"TIME":6}',
            '{"n":18446744073709551616,"m":-9223372036854775809,"z":-0.0}',
            '{"f":0.12345678901234567890,"e":1e400,"s":1e-400,"g":1.10,"h":1E+2}',
            '{"k\\u0000":"v\\u0000","u":"\\u00e9\\u2028"}',
            '{"a":1,"a":2}',
            '{"text":"\\"time\\":1,","list":[{"distinct_id":null}],"$distinct_id":null}',
        ],
        keep=3,
    ),
)
def test_properties_read_back_as_sent(warehouse, properties):
    """No value, name or null is changed, whatever it is."""
    inside = properties[1:-1]
    fixed = f'"time":{START_MS},"distinct_id":"u","$insert_id":"i"'
    line = f'{{"event":"a","properties":{{{fixed}{"," if inside else ""}{inside}}}}}'
    warehouse.load([line.encode()])
    ((stored, keys),) = warehouse.query("SELECT properties, json_keys(properties) FROM events")
    exact = {"parse_float": str, "parse_int": str} if "e400" in properties else {}
    assert json.loads(stored, **exact) == json.loads(properties, **exact)
    assert set(keys) == set(json.loads(properties))


@pytest.mark.parametrize(
    "time",
    siblings(
        [
            "null",
            '"5"',
            f'"{START_MS}"',
            "true",
            "1.5",
            "0",
            "-5",
            "1e400",
            "1e30",
            "99999999999999",
            "9999999999999999",
            "9223372036854775807",
            "-9223372036854775808",
        ],
        keep=5,
    ),
)
def test_an_absurd_time_goes_to_quarantine(warehouse, time):
    """A `time` that is none never becomes 1970; the line is kept with its reason."""
    line = f'{{"event":"a","properties":{{"time":{time}}}}}'.encode()
    (report,) = warehouse.load([event(), line])
    assert (report.row_count, report.quarantined) == (1, 1)
    ((day, kept, reason),) = warehouse.query("SELECT day, line, reason FROM mixpanel._quarantine")
    assert (day, kept) == (DAY, line)
    assert "`time`" in reason


def test_a_time_that_is_a_whole_float_is_accepted(warehouse):
    """`1772323200000.0` is the same time as without the fraction."""
    warehouse.load([event(time=float(START_MS))])
    assert warehouse.query("SELECT time_raw FROM events") == [(START_MS,)]


@pytest.mark.parametrize(
    "line",
    [
        b'{"event":"a\\ud800","properties":{"time":%d}}' % (START_MS + DAY_MS),
        b'{"event":"a","properties":{"time":%d,"\\udc00":1}}' % (START_MS + DAY_MS),
        b'{"event":"a","properties":{"time":%d,"x":"\xff"}}' % (START_MS + DAY_MS),
    ],
)
def test_a_line_that_duckdb_refuses_goes_to_quarantine(warehouse, line):
    """One line that is no text keeps none of the others out, and counts for its own day."""
    reports = warehouse.load([event(n=1), line, event(n=2)], to_date=NEXT_DAY, compress=True)
    assert [report.quarantined for report in reports] == [0, 1]
    assert reports[0].row_count == 2
    assert warehouse.query("SELECT line FROM mixpanel._quarantine") == [(line,)]


def test_too_many_unstorable_lines_fail_the_day(warehouse):
    """Above one line and 1 %, the day is not to be trusted and keeps what it had."""
    warehouse.load([event()])
    lines = [event(n=number) for number in range(300)]
    warehouse.load([*lines, *[event(time=0)] * 3])
    with pytest.raises(IncompleteExportError, match="4 of the 303 lines"):
        warehouse.load([*lines[:-1], *[event(time=0)] * 4])
    assert len(warehouse.rows()) == 300


@pytest.mark.parametrize(
    "line",
    siblings(
        [
            b"5",
            b"[1]",
            b"null",
            b"",
            b"{}",
            b'{"event":5,"properties":{"time":%d}}' % START_MS,
            b'{"event":"a"}',
            b'{"event":"a","properties":[]}',
            b'{"event":"a","properties":{"time":%d}' % START_MS,
            b'{"event":"a","properties":{"time":%d}}terminated early' % START_MS,
            b'{"error":"export terminated early"}',
        ],
        keep=4,
    ),
)
def test_a_line_that_is_no_event_fails_the_load(warehouse, line):
    """DuckDB would take most of these as records; here they prove a broken export."""
    warehouse.load([event(kept=True)])
    before = warehouse.rows()
    with pytest.raises(IncompleteExportError):
        warehouse.load([event(), line])
    assert warehouse.rows() == before


@pytest.mark.parametrize("lines", [1, 3])
def test_a_wrong_number_of_lines_fails_the_load(warehouse, lines):
    """Fewer or more lines than were counted while receiving are not the export."""
    with pytest.raises(IncompleteExportError, match="lines"):
        warehouse.load([event(n=1), event(n=2)], lines=lines)


def test_a_cut_gzip_file_fails_the_load(warehouse):
    """DuckDB 1.5 accepts a gzip stream without its end; the lines do not add up then."""
    spool = warehouse.spool([event(n=number) for number in range(2000)], compress=True)
    spool.write_bytes(spool.read_bytes()[:-900])
    with pytest.raises(IncompleteExportError):
        warehouse.store(ReceivedDays(spool, DAY, DAY, 2000, names_once=True))


def test_a_processed_copy_is_newer_than_one_without_a_time(warehouse):
    """The order of the copies does not matter."""
    processed = [{"mp_processing_time_ms": START_MS}, {"mp_processing_time_ms": START_MS + 1}, {}]
    for number, order in enumerate([(0, 1, 2), (2, 1, 0)]):
        copies = [event(**{"$insert_id": "i", "n": n, **processed[n]}) for n in order]
        warehouse.load(copies, from_date=DAY, table=f"t{number}")
        assert warehouse.query(f"SELECT properties ->> 'n' FROM t{number}") == [("1",)]


def test_equal_events_without_an_id_are_numbered(warehouse):
    """From 0, on each day and beside others."""
    records = [event(n=1)] * 3 + [event(n=2)] * 2 + [event(n=3), event(time=START_MS + DAY_MS, n=1)]
    warehouse.load(records, to_date=NEXT_DAY)
    found = warehouse.query("SELECT event_date, insert_id FROM events")
    copies = [(START_MS, 1, 0), (START_MS, 1, 1), (START_MS, 1, 2), (START_MS, 2, 0)]
    copies += [(START_MS, 2, 1), (START_MS, 3, 0), (START_MS + DAY_MS, 1, 0)]
    assert sorted(found) == sorted(
        (DAY if time == START_MS else NEXT_DAY, made_id("Visit", time, None, {"n": n}, twin=twin))
        for time, n, twin in copies
    )


def test_a_load_takes_its_staged_rows_out_of_memory(warehouse):
    """A process that loads for months would keep them all."""
    received = ReceivedDays(warehouse.spool([event()]), DAY, DAY, 1, names_once=True)
    with warehouse.database.staging() as connection:
        databases = "SELECT database_name FROM duckdb_databases() ORDER BY ALL"
        before = connection.execute(databases).fetchall()
        with stage_days(connection, received, project=warehouse.project):
            assert connection.execute(databases).fetchall() != before
        assert connection.execute(databases).fetchall() == before


def test_a_file_that_duckdb_cannot_open_fails_the_load(warehouse):
    """It is no gzip file, though it begins like one: the error names it."""
    warehouse.load([event(kept=True)])
    before = warehouse.rows()
    spool = warehouse.folder / "damaged"
    spool.write_bytes(b"\x1f\x8b\x00 no such method of compression")
    with pytest.raises(IncompleteExportError, match="cannot be read from damaged"):
        warehouse.store(ReceivedDays(spool, DAY, DAY, 1, names_once=True))
    assert warehouse.rows() == before


def test_rows_of_other_days_are_loud(warehouse):
    """In the utc regime a row outside the requested days names its day and fails the load."""
    with pytest.raises(IncompleteExportError, match=r"1 rows belong to other days: 2026-03-02"):
        warehouse.load([event(), event(time=START_MS + DAY_MS)])


def test_a_named_table_has_the_documented_columns(warehouse):
    """Tables of a workspace live in `main`, grow by what is new and stand in the metadata."""
    warehouse.load([event(time=START_MS + DAY_MS)], to_date=NEXT_DAY, table="mine")
    warehouse.load([event("A"), event("B")], table="mine", filters={"where": "x"})
    with warehouse.database.read() as connection:
        names = [column[0] for column in connection.execute("FROM main.mine").description]
    assert names == ["event_name", "event_time", "distinct_id", "insert_id", "properties"]
    found = warehouse.query("SELECT event_name FROM mine ORDER BY event_time, event_name")
    assert found == [("A",), ("B",), ("Visit",)]
    rows = warehouse.query("SELECT table_name, row_count FROM _metadata")
    assert rows == [("mine", 3)]
    assert warehouse.rows() == []
    entries = warehouse.query(
        "SELECT filters, row_count FROM mixpanel._days WHERE day = ? ORDER BY ALL", DAY
    )
    assert entries == [('{"where": "x"}', 2), (None, 0)]


@pytest.mark.parametrize("name", ["profiles", "_days", "_mine"])
def test_a_name_of_ours_cannot_be_taken(warehouse, name):
    """A named table never hides a table of this package."""
    with pytest.raises(ConfigError, match="taken"):
        warehouse.load([event()], table=name)


LEGACY = ProjectIdentity("1234", "us", "legacy", "America/Los_Angeles")


def test_legacy_time_is_the_projects_wall_clock(tmp_path):
    """`time` is read as a wall clock; winter and summer differ by their offsets."""
    legacy = Warehouse(tmp_path, LEGACY)
    legacy.load([event(time=START_MS)])
    summer = date(2026, 7, 1)
    days = (summer - DAY).days
    legacy.load([event(time=START_MS + days * DAY_MS)], from_date=summer)
    found = legacy.query("SELECT event_date, event_time FROM events ORDER BY 1")
    assert found == [(DAY, datetime(2026, 3, 1, 8)), (summer, datetime(2026, 7, 1, 7))]


def test_shifted_legacy_rows_belong_to_the_one_asked_day(tmp_path):
    """A zone change leaves rows of another date; requested alone, the day keeps and counts them."""
    legacy = Warehouse(tmp_path, LEGACY)
    records = [event(), event(time=START_MS - 1)]
    with pytest.raises(ShiftedRowsError):
        legacy.load(records, to_date=NEXT_DAY)
    (report,) = legacy.load(records)
    assert (report.row_count, report.shifted_rows) == (2, 1)
    assert legacy.query("SELECT DISTINCT event_date FROM events") == [(DAY,)]
    assert legacy.query("SELECT shifted_rows FROM mixpanel._days") == [(1,)]


@pytest.mark.parametrize("days", [-200, -3, 3, 200])
def test_the_answer_of_another_day_is_no_zone_change(tmp_path, days):
    """Rows further off than zones can lie apart fail the load of a legacy day, too."""
    legacy = Warehouse(tmp_path, LEGACY)
    legacy.load([event(kept=True)])
    with pytest.raises(IncompleteExportError, match="no zone change explains") as caught:
        legacy.load([event(time=START_MS + days * DAY_MS)])
    assert not isinstance(caught.value, ShiftedRowsError)
    assert legacy.query("SELECT count(*) FROM events") == [(1,)]


def test_reloading_a_named_table_of_one_legacy_day_leaves_one_copy(tmp_path):
    """The shifted row is replaced too, though no column says with which day it was received."""
    legacy = Warehouse(tmp_path, LEGACY)
    for _ in range(2):
        legacy.load([event(), event(time=START_MS - 1)], table="mine")
    assert legacy.query("SELECT count(*) FROM mine") == [(2,)]


def test_named_tables_keep_the_shifted_rows_of_other_days(tmp_path):
    """A day that comes first takes away no row that another day brought under its date."""
    legacy = Warehouse(tmp_path, LEGACY)
    legacy.load([event(), event(time=START_MS + DAY_MS)], table="mine")
    legacy.load([event("Next", START_MS + DAY_MS)], from_date=NEXT_DAY, table="mine")
    assert legacy.query("SELECT count(*) FROM mine") == [(3,)]
    with pytest.raises(ConfigError, match="the whole table again"):
        legacy.load([event("Next", START_MS + DAY_MS)], from_date=NEXT_DAY, table="mine")
    assert legacy.query("SELECT count(*) FROM mine") == [(3,)]


def test_a_named_table_without_shifted_rows_takes_its_legacy_days_again(tmp_path):
    """Where every row has the date of its day, equal rows are one event."""
    legacy = Warehouse(tmp_path, LEGACY)
    records = [event(), event(time=START_MS + DAY_MS)]
    legacy.load(records, to_date=NEXT_DAY, table="mine")
    legacy.load(records[1:], from_date=NEXT_DAY, table="mine")
    assert legacy.query("SELECT count(*) FROM mine") == [(2,)]


def test_a_zone_change_moves_rows_by_up_to_two_days(tmp_path):
    """From one end of the world's zones to the other, a legacy day keeps its rows."""
    legacy = Warehouse(tmp_path, LEGACY)
    (report,) = legacy.load([event(time=START_MS + days * DAY_MS) for days in (-2, 0, 2)])
    assert (report.row_count, report.shifted_rows) == (3, 2)


@pytest.mark.parametrize(
    ("wall", "utc"),
    [
        (datetime(2026, 11, 1, 1, 30), datetime(2026, 11, 1, 9, 30)),
        (datetime(2026, 3, 8, 2, 30), datetime(2026, 3, 8, 10, 30)),
    ],
)
def test_the_hours_of_a_clock_change_are_read_one_way(tmp_path, wall, utc):
    """A time that passed twice is the later one; one that never was uses the old offset."""
    legacy = Warehouse(tmp_path, LEGACY)
    time = int((wall - datetime(1970, 1, 1)) / timedelta(milliseconds=1))
    legacy.load([event(time=time)], from_date=wall.date())
    legacy.load([event(time=time)], from_date=wall.date(), table="mine")
    legacy.load([event(time=time)], from_date=wall.date(), table="mine")
    assert legacy.query("SELECT event_time FROM mine") == [(utc,)]
    assert legacy.query("SELECT event_time FROM events") == [(utc,)]


@pytest.mark.parametrize(
    ("zone", "wall", "processed", "expected"),
    siblings(
        [
            ("America/Los_Angeles", "2026-11-01 01:30", "2026-11-01 08:30", "2026-11-01 08:30"),
            ("America/Los_Angeles", "2026-11-01 01:30", "2026-11-01 09:30", "2026-11-01 09:30"),
            ("America/Los_Angeles", "2026-11-01 03:30", "2026-11-01 09:30", "2026-11-01 11:30"),
            ("Australia/Lord_Howe", "2026-04-05 01:45", "2026-04-04 14:45", "2026-04-04 14:45"),
            ("Australia/Lord_Howe", "2026-04-05 01:45", "2026-04-04 15:15", "2026-04-04 15:15"),
            # By two hours, three, and seven.
            ("Antarctica/Troll", "2026-10-25 01:30", "2026-10-24 23:30", "2026-10-24 23:30"),
            ("Antarctica/Troll", "2026-10-25 01:30", "2026-10-25 01:30", "2026-10-25 01:30"),
            ("Antarctica/Casey", "2023-03-09 02:30", "2023-03-08 15:30", "2023-03-08 15:30"),
            ("Antarctica/Casey", "2023-03-09 02:30", "2023-03-08 18:30", "2023-03-08 18:30"),
            ("Antarctica/Vostok", "1994-01-31 20:30", "1994-01-31 13:30", "1994-01-31 13:30"),
            ("Antarctica/Vostok", "1994-01-31 20:30", "1994-01-31 20:30", "1994-01-31 20:30"),
        ],
        keep=4,
    ),
)
def test_an_hour_that_passed_twice_is_told_by_when_mixpanel_processed_it(
    tmp_path, zone, wall, processed, expected
):
    """An event cannot be processed before it happens, whatever amount clocks went back by."""
    legacy = Warehouse(tmp_path, ProjectIdentity("1234", "us", "legacy", zone))
    local = datetime.fromisoformat(wall)
    processed_ms = _milliseconds(datetime.fromisoformat(processed)) + 900
    record = event(time=_milliseconds(local), mp_processing_time_ms=processed_ms)
    legacy.load([record], from_date=local.date())
    ((event_time,),) = legacy.query("SELECT event_time FROM events")
    assert event_time == datetime.fromisoformat(expected)
    streamed = normalize_event(record, local_zone=zone)["event_time"]
    assert streamed.replace(tzinfo=None) == event_time


def test_an_event_that_clocks_show_twice_is_found_again_in_a_named_table(tmp_path):
    """Its reading moves by seven hours when Mixpanel processes it again; it is one event."""
    legacy = Warehouse(tmp_path, ProjectIdentity("1234", "us", "legacy", "Antarctica/Vostok"))
    local = datetime(1994, 1, 31, 20, 30)
    for processed in (datetime(1994, 1, 31, 13, 31), datetime(1994, 1, 31, 20, 31)):
        record = event(time=_milliseconds(local), mp_processing_time_ms=_milliseconds(processed))
        legacy.load([record], from_date=local.date(), table="mine")
    assert legacy.query("SELECT event_time FROM mine") == [(local,)]


def _milliseconds(moment):
    return int((moment - datetime(1970, 1, 1)) / timedelta(milliseconds=1))


def test_a_day_before_the_plans_horizon_is_noted_and_keeps_its_rows(warehouse):
    """`not available` is written only where nothing is stored."""
    warehouse.load([event()])
    with warehouse.database.write() as connection:
        stored, absent = mark_days(connection, [DAY, NEXT_DAY], "not available", run_id="r")
    assert (stored.status, stored.row_count, absent.row_count) == ("not available", 1, 0)
    ledger = warehouse.query("SELECT status, row_count FROM mixpanel._days ORDER BY day")
    assert ledger == [("complete", 1), ("not available", 0)]
    assert len(warehouse.rows()) == 1


def test_a_day_whose_only_event_is_in_quarantine_is_not_empty(warehouse):
    """Mixpanel sent something."""
    [report] = warehouse.load([b'{"event":"a\\ud800","properties":{"time":%d}}' % START_MS])
    assert (report.status, report.row_count, report.quarantined) == ("complete", 0, 1)


def digests(warehouse):
    return dict(warehouse.query("SELECT event_name, digest FROM mixpanel._event_counts"))


def test_a_digest_depends_on_the_rows_of_an_event_and_not_on_their_order(warehouse):
    """Nor on duplicates, on spaces between values, or on compression."""
    rows = [event(n=number, **{"$insert_id": f"i{number % 9}"}) for number in range(12)]
    rows += [event("Order", price=1.5), event("Order", price=1.5), event("Order", distinct_id="")]
    warehouse.load(rows)
    first = digests(warehouse)
    assert {len(digest) for digest in first.values()} == {32}
    spaced = [json.dumps(row, separators=(" , ", " : ")).encode() for row in reversed(rows)]
    warehouse.load([*spaced, rows[0]], compress=True)
    assert digests(warehouse) == first
    for changed in (event("Order"), event("Order", distinct_id=None), event("Order", n="")):
        warehouse.load([*rows[:-1], changed], reload=ACCEPT_SMALLER)
        assert digests(warehouse)["Visit"] == first["Visit"]
        assert digests(warehouse)["Order"] != first["Order"]


def test_a_digest_does_not_depend_on_who_read_the_lines(warehouse):
    """A name that comes twice anywhere in a file lets every line of it be read to the letter."""
    lines = [
        b'{"event":"Order","properties":{"time":%d,"price":21.90,"n":1e5,"f":2.0}}' % START_MS,
        b'{"event":"Order","properties":{"time":%d,"url":"a\\/b","name":"\\u00e9"}}' % START_MS,
        b'{"event":"Order","properties":{"time":%d,"n":12345678901234567890}}' % START_MS,
    ]
    warehouse.load(lines)
    first = digests(warehouse)
    twice = b'{"event":"Visit","properties":{"time":%d,"n":1,"n":2}}' % START_MS
    warehouse.load([*lines, twice])
    assert digests(warehouse)["Order"] == first["Order"]
