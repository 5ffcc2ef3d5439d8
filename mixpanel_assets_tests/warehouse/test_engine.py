"""The storage engine: tables whole or not at all, and temporary files that go."""

import json
import signal
import subprocess
import sys
import tempfile
import threading
import tracemalloc
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_assets import StorageEngine, TableMetadata, Workspace
from mixpanel_assets.client.normalize import EventNormalizer, normalize_event, normalize_profile
from mixpanel_assets.errors import (
    ConfigError,
    DatabaseLockedError,
    DatabaseNotFoundError,
    IncompleteExportError,
    QueryError,
    StorageError,
    TableExistsError,
    TableNotFoundError,
)
from mixpanel_assets.warehouse import ProjectIdentity
from mixpanel_assets.warehouse.files import PREFIX
from mixpanel_assets_tests.laws import examples, siblings

FETCHED = datetime(2024, 2, 1, 12, tzinfo=UTC)
EVENTS = TableMetadata("events", FETCHED, "2024-01-01", "2024-01-02")
PROFILES = TableMetadata("profiles", FETCHED)
START = datetime(2024, 1, 1, tzinfo=UTC)
NAMES = [
    "it's",
    'quo"ted',
    "a b",
    "_own",
    "é",
    "a;DROP TABLE x",
    "",
    "main.x",
    "events",
    "Profiles",
]


def event(number=0, **changes):
    record = {
        "event_name": "Visit",
        "event_time": START + timedelta(seconds=number),
        "distinct_id": f"user-{number % 3}",
        "insert_id": f"id-{number}",
        "properties": {"number": number},
    }
    return record | changes


def profile(who="ada", **changes):
    return {"distinct_id": who, "last_seen": "2024-01-01T10:00:00", "properties": {}} | changes


@pytest.fixture
def storage(tmp_path):
    """A database in a file."""
    with StorageEngine(tmp_path / "shop.duckdb") as storage:
        yield storage


@pytest.fixture(params=siblings(["file", "memory", "ephemeral"], keep=2))
def each_kind(request, tmp_path):
    """Each kind of database, for what opens, closes or limits it."""
    kinds = {
        "file": lambda: StorageEngine(tmp_path / "shop.duckdb"),
        "ephemeral": StorageEngine.ephemeral,
        "memory": StorageEngine.memory,
    }
    with kinds[request.param]() as storage:
        yield storage


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """A temporary directory of this test's own; what the storage has there."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return lambda: list(folder.glob(f"{PREFIX}*"))


def rows_of(storage, table):
    return storage.execute_rows(f"SELECT * FROM {table} ORDER BY ALL")


def test_events_become_a_table_that_is_known(each_kind):
    """Rows, ledger and metadata come together."""
    metadata = TableMetadata(
        "events", FETCHED, "2024-01-01", "2024-01-02", filter_events=["Visit"], filter_where="x"
    )
    assert each_kind.create_events_table("visits", map(event, range(5)), metadata) == 5
    assert each_kind.get_metadata("visits") == metadata
    [info] = each_kind.list_tables()
    assert (info.name, info.type, info.row_count, info.fetched_at) == (
        "visits",
        "events",
        5,
        FETCHED,
    )
    assert each_kind.execute_rows(
        "SELECT day, status, row_count FROM mixpanel._days ORDER BY 1"
    ) == [
        (date(2024, 1, 1), "complete", 5),
        (date(2024, 1, 2), "empty", 0),
    ]
    [known] = each_kind.execute_rows("FROM _metadata")
    assert known == (
        "visits",
        "events",
        FETCHED.replace(tzinfo=None),
        date(2024, 1, 1),
        date(2024, 1, 2),
        5,
    )


def test_profiles_become_a_table_that_is_known(each_kind):
    """The later of two records of a profile stays; the metadata comes back as it was given."""
    metadata = TableMetadata(
        "profiles",
        FETCHED,
        filter_cohort_id="7",
        filter_output_properties=["plan"],
        filter_group_id="-5",
        filter_behaviors='[{"window": "7d"}]',
    )
    people = [profile(), profile("bob", last_seen=None), profile(properties={"plan": "pro"})]
    assert each_kind.create_profiles_table("people", people, metadata) == 2
    assert each_kind.get_metadata("people") == metadata
    assert rows_of(each_kind, "people") == [
        ("ada", '{"plan":"pro"}', datetime(2024, 1, 1, 10)),
        ("bob", "{}", None),
    ]


def test_nothing_makes_an_empty_table(storage):
    """Days without events are known to be empty; without days, the table is known all the same."""
    assert storage.create_events_table("none", [], EVENTS) == 0
    assert storage.create_events_table("dateless", [], TableMetadata("events", FETCHED)) == 0
    assert storage.create_profiles_table("nobody", [], PROFILES) == 0
    assert [table.name for table in storage.list_tables()] == ["dateless", "nobody", "none"]
    assert rows_of(storage, "none") == []


def test_without_days_only_days_with_events_are_known(storage):
    """A gap between two days is not claimed to be empty."""
    records = [event(0), event(1, event_time=START + timedelta(days=9))]
    storage.create_events_table("visits", records, TableMetadata("events", FETCHED))
    days = storage.execute_rows("SELECT day FROM mixpanel._days ORDER BY ALL")
    assert days == [(date(2024, 1, 1),), (date(2024, 1, 10),)]


def test_days_that_were_not_over_are_open(storage):
    """The day of fetching, and any after it, may still get events."""
    metadata = TableMetadata("events", START + timedelta(hours=20), "2023-12-31", "2024-01-01")
    storage.create_events_table("visits", [event()], metadata)
    statuses = storage.execute_rows("SELECT status FROM mixpanel._days ORDER BY day")
    assert statuses == [("empty",), ("open",)]


def test_repeats_go_and_twins_stay(storage):
    """An event that came twice with its id is one; two without an id are two."""
    raw = {"event": "Visit", "properties": {"time": 1704067200000, "distinct_id": "ada"}}
    older = event(properties={"mp_processing_time_ms": 1, "plan": "old"})
    newer = event(properties={"mp_processing_time_ms": 2, "plan": "new"})
    records = [newer, older, normalize_event(raw), normalize_event(raw)]
    assert storage.create_events_table("visits", records, EVENTS) == 3
    assert storage.execute_scalar("SELECT count(DISTINCT insert_id) FROM visits") == 3
    plans = storage.execute_rows("SELECT properties->>'plan' FROM visits WHERE insert_id = 'id-0'")
    assert plans == [("new",)]


def test_of_keys_that_are_the_same_name_the_last_one_counts(storage):
    """As in lines that Mixpanel sends, on every level."""
    properties = {"plan": {1: "a", "1": "b", "2": "c"}}
    records = [event(insert_id=None, properties=properties)]
    storage.create_events_table("visits", records, EVENTS)
    found = storage.execute_scalar("SELECT properties->'plan' FROM visits")
    assert found.replace(" ", "") == '{"1":"b","2":"c"}'


def test_what_cannot_be_stored_is_quarantined(storage):
    """An event without a time, or with half a character, is kept aside as in a load."""
    records = [event(number) for number in range(300)]
    records += [event(998, event_time=None), event(999, properties={"name": "\ud800"})]
    assert storage.create_events_table("visits", records, EVENTS) == 300
    assert storage.execute_scalar("SELECT count(*) FROM mixpanel._quarantine") == 2


def test_too_many_of_them_leave_nothing(storage):
    """More than 1 % is no accident."""
    records = [event(number, event_time=None) for number in range(5)]
    with pytest.raises(IncompleteExportError):
        storage.create_events_table("visits", records, EVENTS)
    assert not storage.table_exists("visits")
    assert storage.list_tables() == []


def test_a_source_that_fails_leaves_nothing(storage):
    """Whole or not at all: no table, no ledger, no file."""

    def broken():
        yield event()
        raise OSError("the line went dead")

    for create in (storage.create_events_table, storage.create_profiles_table):
        metadata = EVENTS if create == storage.create_events_table else PROFILES
        with pytest.raises(OSError, match="went dead"):
            create(
                "visits", (profile() if metadata is PROFILES else one for one in broken()), metadata
            )
    assert not storage.table_exists("visits")
    assert storage.list_tables() == []


@pytest.mark.parametrize(
    ("record", "said"),
    siblings(
        [
            ({"event": "Visit", "properties": {}}, "its keys are not"),
            (event(other=1), "its keys are not"),
            (["Visit"], "it is not a dict"),
            (event(event_name=None), "`event_name`"),
            (event(event_time="2024-01-01"), "`event_time` is not a datetime"),
            (event(event_time=START + timedelta(microseconds=1)), "finer than a millisecond"),
            (event(distinct_id=5), "`distinct_id`"),
            (event(insert_id=5), "`insert_id`"),
            (event(properties=None), "`properties`"),
            (event(properties={1: 2}), "`properties`"),
            (event(properties={"time": 5}), "'time'"),
            (event(properties={"x": float("nan")}), "JSON"),
            (event(properties={"x": START}), "datetime"),
            (event(event_time=START - timedelta(days=1)), "2023-12-31"),
        ],
        keep=5,
    ),
)
def test_what_is_no_event_is_refused(record, said):
    """The error says which record it is and what is wrong with it."""
    with StorageEngine.memory() as storage:
        with pytest.raises(StorageError, match=said):
            storage.create_events_table("visits", [event(), record], EVENTS)
        assert storage.list_tables() == []


def test_what_is_no_profile_is_refused():
    """A record without an id, with a number as `last_seen`, or of an event raises an error."""
    with StorageEngine.memory() as storage:
        for record in (profile(distinct_id=None), profile(last_seen=5), event()):
            with pytest.raises(StorageError, match="Record 1"):
                storage.create_profiles_table("people", [record], PROFILES)


@pytest.mark.parametrize("name", siblings(NAMES, keep=4))
def test_hostile_names_are_refused_before_anything_is_drawn(name):
    """The error is raised before the first record is read."""
    drawn = []
    with StorageEngine.memory() as storage:
        with pytest.raises(ConfigError):
            storage.create_events_table(name, (drawn.append(1) for _ in "x"), EVENTS)
        with pytest.raises(ConfigError):
            storage.create_profiles_table(name, (drawn.append(1) for _ in "x"), PROFILES)
    assert not drawn


@pytest.mark.parametrize("name", siblings(["select", "table", "Group", "order", "1st"], keep=2))
def test_keywords_are_names_like_others(name, storage):
    """They only have to be quoted in queries."""
    storage.create_events_table(name, [event()], EVENTS)
    assert rows_of(storage, f'"{name}"')
    storage.drop_table(name)
    assert not storage.table_exists(name)


def test_a_table_that_is_there_stays(storage):
    """A second one of that name is refused before anything is drawn."""
    storage.create_events_table("visits", [event()], EVENTS)
    for name in ("visits", "VISITS"):
        with pytest.raises(TableExistsError):
            storage.create_events_table(name, iter(lambda: pytest.fail("drawn"), None), EVENTS)
    assert len(rows_of(storage, "visits")) == 1


def test_metadata_must_fit():
    """Of the right kind, with both ends of its days or none."""
    with StorageEngine.memory() as storage:
        for metadata in (
            PROFILES,
            TableMetadata("events", FETCHED, "2024-01-01"),
            TableMetadata("events", FETCHED, "2024-01-02", "2024-01-01"),
            TableMetadata("events", FETCHED, "2024-13-01", "2024-01-01"),
        ):
            with pytest.raises(ConfigError):
                storage.create_events_table("visits", [], metadata)


def test_dropping_takes_everything_or_nothing(storage):
    """Table, days and quarantine go together; one unknown name keeps them all."""
    storage.create_events_table("visits", [event(), event(1, event_time=None)], EVENTS)
    storage.create_profiles_table("people", [profile()], PROFILES)
    with pytest.raises(TableNotFoundError, match=r"nothing.*people, .*visits"):
        storage.drop("visits", "nothing")
    assert storage.drop("VISITS", "people", "visits") == ["visits", "people"]
    assert storage.list_tables() == []
    for table in ("_days", "_event_counts", "_quarantine"):
        assert storage.execute_scalar(f"SELECT count(*) FROM mixpanel.{table}") == 0


def test_dropping_all_keeps_what_was_not_loaded(each_kind):
    """Loaded tables of one kind or of both are dropped; a table made by hand is kept."""
    each_kind.execute("CREATE TABLE main.mine AS SELECT 42 AS answer")
    each_kind.create_events_table("visits", [event()], EVENTS)
    each_kind.create_profiles_table("people", [profile()], PROFILES)
    assert each_kind.drop_all("profiles") == ["people"]
    assert each_kind.drop_all() == ["visits"]
    assert each_kind.execute_scalar("FROM mine") == 42


@pytest.mark.parametrize(
    "name", siblings(["_days", "_metadata", "profiles_current", "_project"], keep=2)
)
def test_our_own_tables_are_not_dropped(name, storage):
    """`drop` refuses the tables of the package."""
    storage.create_events_table("visits", [event()], EVENTS)
    with pytest.raises(ConfigError):
        storage.drop(name)


def test_an_assets_table_is_emptied_only_when_it_is_named(emulator, credentials, tmp_path):
    """`drop_all` leaves `events`; `drop` takes its rows and days, and it can be loaded again."""
    options = Workspace(credentials=credentials, path=tmp_path / "shop.duckdb").settings
    options = options.model_copy(update={"api_base_url": emulator.base_url})
    with Workspace(credentials=credentials, settings=options) as workspace:
        workspace.sync_events(date(2024, 1, 1), date(2024, 1, 1))
        with StorageEngine(workspace.db_path) as storage:
            before = rows_of(storage, "events")
            assert storage.drop_all() == []
            assert rows_of(storage, "events") == before
            assert storage.drop_all(assets=True) == ["events"]
            assert rows_of(storage, "events") == []
            assert storage.list_tables() == []
        workspace.sync_events(date(2024, 1, 1), date(2024, 1, 1))
        with StorageEngine(workspace.db_path) as storage:
            assert rows_of(storage, "events") == before
            assert storage.drop("events") == ["events"]


def test_answers_come_in_four_forms(each_kind):
    """Rows with names, a frame, tuples, one value."""
    sql = "SELECT range AS n FROM range(?) ORDER BY ALL"
    assert each_kind.execute(sql, [2]).to_dicts() == [{"n": 0}, {"n": 1}]
    assert list(each_kind.execute_df(sql, [2])["n"]) == [0, 1]
    assert each_kind.execute_rows(sql, [2]) == [(0,), (1,)]
    assert each_kind.execute_scalar(sql, [2]) == 0
    assert each_kind.execute_scalar(sql, [0]) is None


def test_only_execute_changes_anything(each_kind):
    """Questions cannot write, and a statement that fails is undone with those before it."""
    each_kind.execute("CREATE TABLE main.mine (n INTEGER)")
    for ask in (each_kind.execute_df, each_kind.execute_rows, each_kind.execute_scalar):
        with pytest.raises(QueryError):
            ask("INSERT INTO mine VALUES (1)")
    with pytest.raises(QueryError):
        each_kind.execute("INSERT INTO mine VALUES (1); SELECT * FROM nowhere")
    assert rows_of(each_kind, "mine") == []


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELEC 1", "Parser Error"),
        ("SELECT nobody", "nobody"),
        ("SELECT * FROM nowhere", "nowhere"),
        ("SELECT 'x'::INTEGER", "Conversion Error"),
        ("SELECT * FROM 'missing.csv'", "missing.csv"),
    ],
)
def test_a_wrong_statement_is_said_in_duckdbs_words(sql, said, storage):
    """It is the question's fault, not the file's."""
    storage.execute("SELECT 1")
    with pytest.raises(QueryError, match=said) as caught:
        storage.execute_rows(sql)
    assert caught.value.code == "QUERY_FAILED"
    assert "status" not in str(caught.value.to_dict())


def test_a_connection_sees_what_the_engine_does(each_kind):
    """Both ways work together, in either order."""
    each_kind.create_events_table("visits", [event()], EVENTS)
    assert each_kind.connection is each_kind.connection
    assert each_kind.connection.execute("SELECT count(*) FROM visits").fetchall() == [(1,)]
    each_kind.connection.execute("CREATE TABLE main.mine AS SELECT 42 AS answer")
    assert each_kind.execute_scalar("FROM mine") == 42
    each_kind.create_events_table("later", [event()], EVENTS)
    assert each_kind.connection.execute("SELECT count(*) FROM later").fetchall() == [(1,)]
    assert each_kind.drop_all() == ["later", "visits"]


def test_a_file_is_shared_between_calls(tmp_path):
    """An idle engine does not lock the file; an open connection does."""
    path = tmp_path / "shop.duckdb"
    with StorageEngine(path) as one, StorageEngine(path, lock_timeout=0) as other:
        one.create_events_table("visits", [event()], EVENTS)
        other.create_events_table("others", [event()], EVENTS)
        assert one.connection
        in_thread(lambda: locked_out(other.execute_rows, "SELECT 1"))
    with StorageEngine(path, read_only=True) as one, StorageEngine(path, lock_timeout=0) as other:
        assert one.connection
        in_thread(lambda: other.execute_rows("SELECT 1"))
        in_thread(lambda: locked_out(other.execute, "SELECT 1"))


def locked_out(call, *arguments):
    with pytest.raises(DatabaseLockedError):
        call(*arguments)


def in_thread(call):
    failed = []

    def run():
        try:
            call()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert not failed, failed


def test_a_file_opened_to_read_is_only_read(tmp_path):
    """A missing file is an error, and nothing can be changed in one that is there."""
    path = tmp_path / "shop.duckdb"
    with pytest.raises(DatabaseNotFoundError):
        StorageEngine.open_existing(path)
    assert list(tmp_path.glob("shop*")) == []
    with StorageEngine(path) as storage:
        storage.create_events_table("visits", [event()], EVENTS)
    with StorageEngine.open_existing(path) as storage:
        assert storage.path == path
        assert storage.execute_scalar("SELECT count(*) FROM visits") == 1
        with pytest.raises(QueryError, match="read-only"):
            storage.execute("DROP TABLE visits")
        for change in (storage.drop_all, lambda: storage.create_events_table("x", [], EVENTS)):
            with pytest.raises(ConfigError, match="read_only=False"):
                change()
        with pytest.raises(QueryError, match="read-only"):
            in_duckdb(storage)


def in_duckdb(storage):
    with storage.read() as connection:
        connection.execute("DROP TABLE visits")


def test_an_engine_that_only_looks_makes_no_file(tmp_path):
    """A file is made by the first write."""
    with StorageEngine(tmp_path / "new" / "shop.duckdb") as storage:
        assert storage.list_tables() == []
        assert not storage.table_exists("visits")
        with pytest.raises(DatabaseNotFoundError):
            storage.execute_rows("SELECT 1")
    assert not (tmp_path / "new").exists()


def test_a_closed_engine_says_so(each_kind):
    """An engine can be closed twice; a query after that raises an error."""
    each_kind.close()
    each_kind.cleanup()
    for ask in (lambda: each_kind.execute_rows("SELECT 1"), lambda: each_kind.connection):
        with pytest.raises(StorageError, match="closed"):
            ask()


def test_another_projects_file_is_refused(tmp_path):
    """An engine of a project compares it with the file's, and one without takes the file's."""
    path = tmp_path / "shop.duckdb"
    with StorageEngine(path, project=ProjectIdentity("1", "us")) as storage:
        storage.create_events_table("visits", [event()], EVENTS)
    with (
        StorageEngine(path, project=ProjectIdentity("2", "us")) as storage,
        pytest.raises(ConfigError, match="holds project 1"),
    ):
        storage.create_events_table("others", [event()], EVENTS)
    with StorageEngine(path) as storage:
        storage.create_events_table("others", [event()], EVENTS)


@pytest.mark.slow
@pytest.mark.parametrize("count", siblings([5_000, 20_000], keep=1))
def test_memory_stays_constant(count):
    """Thousands of events of 4 kB are never in Python's memory at once."""
    text = "x" * 4000
    with StorageEngine.ephemeral() as storage:
        tracemalloc.start()
        data = (event(number, properties={"text": f"{number}{text}"}) for number in range(count))
        assert storage.create_events_table("visits", data, EVENTS) == count
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 8_000_000


# What comes back -------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
names = texts.filter(lambda name: name not in ("time", "distinct_id", "$insert_id"))
records = st.fixed_dictionaries(
    {
        "event_name": texts,
        "event_time": st.integers(0, 172_799_999).map(
            lambda ms: START + timedelta(milliseconds=ms)
        ),
        "distinct_id": st.none() | texts,
        "insert_id": st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
        "properties": st.dictionaries(names, values, max_size=4),
    }
)
seen = st.none() | st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)).map(datetime.isoformat)
people = st.fixed_dictionaries(
    {
        "distinct_id": texts,
        "last_seen": seen,
        "properties": st.dictionaries(
            texts.filter(lambda name: name != "$last_seen"), values, max_size=4
        ),
    }
)
anything = examples(10)


@pytest.fixture(scope="module")
def engine():
    with StorageEngine.memory() as engine:
        yield engine


@anything
@given(st.lists(records, max_size=6, unique_by=lambda record: record["insert_id"]))
def test_any_events_come_back_as_they_were(engine, events):
    """Texts, numbers of any size, nulls and nesting: equal as values."""
    engine.drop_all()
    assert engine.create_events_table("any", events, EVENTS) == len(events)
    found = [
        {
            "event_name": name,
            "event_time": moment.replace(tzinfo=UTC),
            "distinct_id": who,
            "insert_id": insert_id,
            "properties": json.loads(properties),
        }
        for name, moment, who, insert_id, properties in engine.execute_rows('FROM "any"')
    ]
    assert sorted(found, key=lambda one: one["insert_id"]) == sorted(
        events, key=lambda one: one["insert_id"]
    )


@anything
@given(st.lists(people, max_size=6, unique_by=lambda record: record["distinct_id"]))
def test_any_profiles_come_back_as_they_were(engine, profiles):
    """Every property and every `last_seen` is read back as it was stored."""
    engine.drop_all()
    assert engine.create_profiles_table("any", profiles, PROFILES) == len(profiles)
    found = {
        who: (json.loads(properties), last_seen)
        for who, properties, last_seen in engine.execute_rows('FROM "any"')
    }
    assert found == {
        one["distinct_id"]: (
            one["properties"],
            one["last_seen"] and datetime.fromisoformat(one["last_seen"]),
        )
        for one in profiles
    }


def test_streamed_events_equal_loaded_ones(credentials, settings):
    """What the stream yields makes the rows that a load makes, repeats and made ids included."""
    day = date(2024, 1, 3)
    metadata = TableMetadata("events", FETCHED, "2024-01-03", "2024-01-03")
    with Workspace(credentials=credentials, settings=settings) as workspace:
        workspace.sync_events(day, day)
        with (
            StorageEngine(workspace.db_path) as storage,
            workspace.stream_events(from_date=day, to_date=day) as stream,
        ):
            storage.create_events_table("streamed", stream, metadata)
            assert values_of(storage, "streamed") == values_of(storage, "events")


def values_of(storage, table):
    columns = "insert_id, event_name, event_time, distinct_id, properties"
    rows = storage.execute_rows(f"SELECT {columns} FROM {table}")
    return sorted((*row[:-1], json.dumps(json.loads(row[-1]), sort_keys=True)) for row in rows)


def test_streamed_profiles_are_all_there(emulator, client):
    """Each profile of the project is a row."""
    with StorageEngine.memory() as storage, client.stream_profiles() as stream:
        count = storage.create_profiles_table("people", stream, PROFILES)
        who = {name for (name,) in storage.execute_rows("SELECT distinct_id FROM people")}
    truth = emulator.truth.profiles()
    assert count == len(truth)
    assert len(who) == count


BERLIN = ProjectIdentity("1", "eu", "legacy", "Europe/Berlin")


def test_legacy_moments_stay_what_they_are():
    """Days are the project's, and the hour that clocks show twice is told by the processing."""
    raw = [
        {"event": "A", "properties": {"time": ms, "mp_processing_time_ms": done, "$insert_id": i}}
        for ms, done, i in (
            (1729994400000, 1729990000000, "first"),  # 02:00 on the wall, before the change
            (1729994400000, 1729999999000, "second"),
        )
    ]
    normalized = [EventNormalizer("Europe/Berlin")(one) for one in raw]
    metadata = TableMetadata(
        "events", datetime(2024, 11, 5, tzinfo=UTC), "2024-10-27", "2024-10-27"
    )
    with StorageEngine.memory(project=BERLIN) as storage:
        storage.create_events_table("visits", normalized, metadata)
        found = storage.execute_rows("SELECT event_time FROM visits ORDER BY insert_id")
        assert [moment.replace(tzinfo=UTC) for (moment,) in found] == [
            one["event_time"] for one in normalized
        ]
        untold = event(event_time=datetime(2024, 10, 27, 0, 30, tzinfo=UTC))
        with pytest.raises(StorageError, match="show twice"):
            storage.create_events_table("others", [untold], metadata)


# Temporary files -------------------------------------------------------------------------


def test_a_temporary_database_goes_when_it_is_closed(temporary):
    """The folder is deleted when the block ends, also with an error."""
    with StorageEngine.ephemeral() as storage:
        assert storage.path.exists()
        assert temporary() == [storage.path.parent]
        assert storage.path.parent.stat().st_mode & 0o77 == 0
    assert temporary() == []
    with pytest.raises(ValueError, match="why not"), StorageEngine.ephemeral():
        raise ValueError("why not")
    assert temporary() == []
    storage = StorageEngine.memory()
    storage.cleanup()
    assert temporary() == []


def test_records_on_their_way_leave_nothing_behind(temporary):
    """Neither when they are stored nor when their source fails."""
    with StorageEngine.ephemeral() as storage:
        storage.create_events_table("visits", [event()], EVENTS)
        with pytest.raises(ZeroDivisionError):
            storage.create_events_table("others", (1 / 0 for _ in "x"), EVENTS)
        assert temporary() == [storage.path.parent]


HOLD = """
import sys, time
from mixpanel_assets import StorageEngine
storage = StorageEngine.ephemeral()
{then}
print(storage.path, flush=True)
sys.stdin.read() or sys.exit({code})
"""


def holder(then="", code=0):
    return subprocess.Popen(
        [sys.executable, "-c", HOLD.format(then=then, code=code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def ended(process, number=None):
    """Wait until it holds a database, end it, and return where that was."""
    with process:
        said = process.stdout.readline().strip()
        assert said, "it ended before it held one"
        path = Path(said)
        assert path.exists()
        if number:
            process.send_signal(number)
        else:
            process.stdin.close()
        process.wait(300)
    return path


@pytest.mark.parametrize("then", siblings(["storage.connection", ""], keep=1))
def test_a_temporary_database_goes_with_its_process(temporary, then):
    """A normal end, SIGTERM and SIGINT leave nothing."""
    for number in (None, signal.SIGTERM, signal.SIGINT):
        process = holder(then)
        assert not ended(process, number).parent.exists()
        assert process.returncode == (-number if number else 0)
        assert temporary() == []


@pytest.mark.slow
def test_a_programs_own_handler_is_left_alone(temporary):
    """It decides how the process ends."""
    then = "import signal; assert signal.getsignal(15) is not signal.SIG_DFL"
    process = holder(then)
    ended(process)
    assert process.returncode == 0
    own = "import signal; signal.signal(15, lambda *_: sys.exit(7)); "
    own += "before = signal.getsignal(15); StorageEngine.ephemeral().close(); "
    own += "assert signal.getsignal(15) is before"
    process = holder(own)
    assert not ended(process, signal.SIGTERM).parent.exists()
    assert process.returncode == 7


def test_what_a_killed_process_leaves_goes_with_the_next_start(temporary):
    """The folder of a living process stays, whatever its age."""
    living = holder()
    used = Path(living.stdout.readline().strip())
    left = ended(holder(), signal.SIGKILL)
    assert left.exists()
    with StorageEngine.ephemeral() as storage:
        assert not left.parent.exists()
        assert used.exists()
        assert set(temporary()) == {used.parent, storage.path.parent}
    with living:
        living.stdin.close()


def test_foreign_folders_are_left_alone(temporary, tmp_path):
    """A link or a file of that name is not followed."""
    folder = Path(tempfile.gettempdir())
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "kept").touch()
    (folder / f"{PREFIX}link").symlink_to(precious)
    (folder / f"{PREFIX}file").touch()
    StorageEngine.ephemeral().close()
    assert (precious / "kept").exists()
    assert len(temporary()) == 2


def test_a_fork_leaves_its_parents_database_alone(temporary):
    """Only the process that made it removes it."""
    then = "import os, signal\nif os.fork() == 0: os.kill(os.getpid(), signal.SIGTERM)\nos.wait()"
    process = holder(then)
    path = Path(process.stdout.readline().strip())
    assert path.exists()
    with process:
        process.stdin.close()
    assert process.returncode == 0
    assert temporary() == []


def test_normalized_profiles_are_taken_as_they_are():
    """What the client's normalizer returns is what the engine takes."""
    raw = {"$distinct_id": 5, "$properties": {"$last_seen": "2024-01-01T00:00:00", "plan": None}}
    with StorageEngine.memory() as storage:
        storage.create_profiles_table("people", [normalize_profile(raw)], PROFILES)
        assert rows_of(storage, "people") == [("5", '{"plan":null}', datetime(2024, 1, 1))]
