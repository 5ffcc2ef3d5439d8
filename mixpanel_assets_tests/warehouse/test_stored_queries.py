"""Questions to stored events: the truth of the project is the oracle, missing days are an error."""

import json
import logging
import math
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from statistics import mean, pstdev, quantiles
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_assets import StorageEngine, TableMetadata, Workspace
from mixpanel_assets.client import make_credentials
from mixpanel_assets.emulator import Emulator, EmulatorSettings
from mixpanel_assets.errors import ConfigError, MissingDaysError, TableNotFoundError
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import ProjectIdentity, mark_days, prepare
from mixpanel_assets.warehouse.inspector import TableInspector
from mixpanel_assets.warehouse.stored_queries import StoredQueries
from mixpanel_assets_tests.laws import examples, siblings

FIRST, LAST = date(2024, 1, 1), date(2024, 1, 7)
WEEK = {"from_date": FIRST, "to_date": LAST}
START = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def storage(shared_emulator, tmp_path_factory):
    """A week of the shop, loaded as the asset does."""
    path = tmp_path_factory.mktemp("stored") / "warehouse.duckdb"
    options = Settings(
        api_base_url=shared_emulator.base_url,
        database=path,
        budget_export_per_hour=1000,
        budget_export_per_second=1000,
        state_dir=":memory:",
    )
    credentials = make_credentials(
        username=shared_emulator.username,
        secret=shared_emulator.secret,
        project_id=str(shared_emulator.project_id),
    )
    with Workspace(credentials=credentials, settings=options) as workspace:
        workspace.sync_events(FIRST, LAST)
    with StorageEngine(path) as storage:
        yield storage


@pytest.fixture
def queries(storage):
    with storage.read() as connection:
        yield StoredQueries(connection)


@pytest.fixture(scope="module")
def truth(shared_emulator):
    """Day and record of every event that can be stored."""
    found = []
    for number in range(7):
        day = FIRST + timedelta(days=number)
        refused = {id_of(line) for line in shared_emulator.truth.unstorable(day)}
        found += [
            (day, record)
            for record in shared_emulator.truth.events(day)
            if record["properties"].get("$insert_id") not in refused
        ]
    return found


def id_of(line):
    return json.loads(line)["properties"].get("$insert_id")


def values_of(truth, event, name):
    return [
        record["properties"].get(name, "missing") for _, record in truth if record["event"] == event
    ]


def kind_of(value):
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return {str: "string", list: "array", dict: "object", type(None): "null"}[type(value)]


def test_daily_counts_are_those_of_the_project(queries, truth):
    """The counts by day and name are exact, for all events and for some."""
    expected = Counter((str(day), record["event"]) for day, record in truth)
    result = queries.daily_counts(**WEEK)
    assert [(c.date, c.event, c.count) for c in result.counts] == [
        (*key, expected[key]) for key in sorted(expected, key=lambda k: (k[0], k[1].encode()))
    ]
    assert (result.from_date, result.to_date, result.events) == ("2024-01-01", "2024-01-07", None)
    some = queries.daily_counts(**WEEK, events=["Search", "Sign Up"])
    assert {c.event for c in some.counts} == {"Search", "Sign Up"}
    assert some.events == ("Search", "Sign Up")
    assert {(c.date, c.event): c.count for c in some.counts} == {
        key: count for key, count in expected.items() if key[1] in ("Search", "Sign Up")
    }


@pytest.mark.parametrize(
    ("event", "name"),
    [
        ("Page View", "$browser"),
        ("Page View", "$city"),
        ("Order Completed", "amount"),
        ("Sign Up", "plan"),
        ("Search", "nothing of the kind"),
    ],
)
def test_distributions_are_those_of_the_project(queries, truth, event, name):
    """Every value with its count, the most common first, and percentages that add up."""
    result = queries.property_distribution(event, name, **WEEK, limit=100_000)
    values = values_of(truth, event, name)
    expected = Counter((kind_of(value), value) for value in values)
    missing = expected.pop(("string", "missing"), 0)
    found = {(one.kind, one.value): one.count for one in result.values}
    assert found.pop(("missing", None), 0) == missing
    assert found == dict(expected)
    assert result.total_count == len(values) > 0
    assert sum(one.percentage for one in result.values) == pytest.approx(100)
    assert [one.count for one in result.values] == sorted(
        (one.count for one in result.values), reverse=True
    )
    assert result == queries.property_distribution(event, name, **WEEK, limit=100_000)
    top = queries.property_distribution(event, name, **WEEK, limit=2)
    assert top.values == result.values[:2]
    assert top.total_count == result.total_count


def test_numbers_are_summed_up(queries, truth):
    """Count, extremes, sum, mean, deviation and percentiles of all numbers."""
    event, name = a_numeric_property(truth)
    numbers = [float(v) for v in values_of(truth, event, name) if kind_of(v) == "number"]
    result = queries.numeric_summary(event, name, **WEEK)
    assert result.count == len(numbers) > 10
    assert (result.min, result.max) == (min(numbers), max(numbers))
    assert result.sum == pytest.approx(math.fsum(numbers))
    assert result.avg == pytest.approx(mean(numbers))
    assert result.stddev == pytest.approx(pstdev(numbers))
    cuts = quantiles(numbers, n=100, method="inclusive")
    assert list(result.percentiles) == [25, 50, 75, 90, 95, 99]
    for percentile, value in result.percentiles.items():
        assert value == pytest.approx(cuts[percentile - 1])
    ends = queries.numeric_summary(event, name, **WEEK, percentiles=[0, 100]).percentiles
    assert ends == {0: min(numbers), 100: max(numbers)}
    assert queries.numeric_summary(event, name, **WEEK, percentiles=[]).percentiles == {}


def a_numeric_property(truth):
    counted = Counter(
        (record["event"], name)
        for _, record in truth
        for name, value in record["properties"].items()
        if type(value) is float and record["event"] == "Order Completed"
    )
    return counted.most_common(1)[0][0]


def test_no_numbers_have_no_extremes(queries):
    """A property that never is a number has a sum of nothing, and nothing else."""
    result = queries.numeric_summary("Page View", "$browser", **WEEK, percentiles=[50])
    assert (result.count, result.sum, result.percentiles) == (0, 0.0, {50: None})
    assert [result.min, result.max, result.avg, result.stddev] == [None] * 4


@pytest.mark.parametrize("events", [None, ["Page View", "Search"]])
@pytest.mark.parametrize("buckets", [None, [1, 3, 8], [4, 20], [1]])
def test_engagement_is_that_of_the_project(queries, truth, events, buckets):
    """Users by their number of events; every user is in one bucket."""
    counts = Counter(
        str(who)
        for _, record in truth
        if (events is None or record["event"] in events)
        and (who := record["properties"].get("distinct_id")) is not None
    )
    result = queries.engagement_distribution(**WEEK, events=events, buckets=buckets)
    starts = [bucket.bucket_min for bucket in result.buckets]
    assert starts == sorted({1, *(buckets or [1, 2, 5, 10, 25, 50, 100])})
    expected = Counter(max(s for s in starts if s <= count) for count in counts.values())
    assert [b.user_count for b in result.buckets] == [expected[start] for start in starts]
    assert result.total_users == len(counts) > 0
    assert sum(b.percentage for b in result.buckets) == pytest.approx(100)
    assert result.events == (None if events is None else tuple(events))


def test_buckets_are_named_by_their_range(queries):
    """A single number, a range, and all above."""
    result = queries.engagement_distribution(**WEEK)
    assert [bucket.bucket_label for bucket in result.buckets] == [
        *("1", "2-4", "5-9", "10-24", "25-49", "50-99", "100+")
    ]


def test_coverage_is_that_of_the_project(queries, truth):
    """The result has the order of the argument; null and absent do not count as values."""
    names = ["$city", "$browser", "plan", "nothing of the kind"]
    result = queries.property_coverage("Page View", names, **WEEK)
    total = sum(record["event"] == "Page View" for _, record in truth)
    assert result.total_events == total
    assert [one.property for one in result.coverage] == names
    for one in result.coverage:
        values = values_of(truth, "Page View", one.property)
        defined = sum(value not in ("missing", None) for value in values)
        assert (one.defined_count, one.null_count) == (defined, total - defined)
        assert one.coverage_percentage == pytest.approx(100 * defined / total)


def test_an_event_that_did_not_happen_has_no_values(queries):
    """Loaded days without it are a true zero."""
    assert queries.property_distribution("Nothing", "p", **WEEK).values == ()
    coverage = queries.property_coverage("Nothing", ["p"], **WEEK)
    assert (coverage.total_events, coverage.coverage[0].coverage_percentage) == (0, 0.0)
    assert queries.daily_counts(**WEEK, events=["Nothing"]).counts == ()
    assert queries.engagement_distribution(**WEEK, events=["Nothing"]).total_users == 0


# Days that are not there ---------------------------------------------------------------------


def every_question(queries, **days):
    return [
        lambda: queries.property_distribution("A", "p", **days),
        lambda: queries.numeric_summary("A", "p", **days),
        lambda: queries.daily_counts(**days),
        lambda: queries.engagement_distribution(**days),
        lambda: queries.property_coverage("A", ["p"], **days),
    ]


def test_days_never_loaded_are_named_with_the_command_that_loads_them(queries):
    """No question takes them for zeros."""
    for ask in every_question(queries, from_date="2023-12-30", to_date="2024-01-10"):
        with pytest.raises(MissingDaysError, match=r"2023-12-30\.\.2023-12-31") as caught:
            ask()
        assert caught.value.ranges == [
            (date(2023, 12, 30), date(2023, 12, 31)),
            (date(2024, 1, 8), date(2024, 1, 10)),
        ]
        assert "`mp sync --from 2024-01-08 --to 2024-01-10`" in str(caught.value)
        assert caught.value.code == "MISSING_DAYS"


def test_an_empty_database_lacks_every_day():
    """Before the first load, `events` is not empty but missing."""
    with StorageEngine.memory() as storage, storage.read() as connection:
        for ask in every_question(StoredQueries(connection), **WEEK):
            with pytest.raises(MissingDaysError, match="--from 2024-01-01 --to 2024-01-07"):
                ask()
        with pytest.raises(TableNotFoundError):
            StoredQueries(connection, table="nothing").daily_counts(**WEEK)


@pytest.mark.parametrize(
    ("status", "why"),
    [("not available", "plan did not reach"), ("expired", "deleted these days by MP_RETENTION")],
)
def test_days_that_cannot_be_loaded_are_no_zeros(status, why):
    """No command would fetch them."""
    with StorageEngine.memory() as storage:
        with storage.write() as connection:
            prepare(connection, ProjectIdentity("12345", "us"))
            mark_days(connection, [FIRST], status)
        with storage.read() as connection:
            queries = StoredQueries(connection)
            with pytest.raises(MissingDaysError, match=why) as caught:
                queries.daily_counts(from_date=FIRST, to_date=FIRST)
            assert "mp sync" not in str(caught.value)


def test_many_gaps_are_said_briefly():
    """Five ranges are named, and how many more there are."""
    records = [event_at(START + timedelta(days=2 * number), {}) for number in range(10)]
    with stored(records, "visits") as storage, storage.read() as connection:
        queries = StoredQueries(connection, table="visits")
        with pytest.raises(MissingDaysError, match="and 4 more ranges") as caught:
            queries.daily_counts(from_date="2024-01-01", to_date="2024-01-19")
        assert len(caught.value.ranges) == 9
        expected = "`mp fetch events visits --from 2024-01-01 --to 2024-01-19 --replace`"
        assert expected in str(caught.value)


def test_days_that_were_not_over_count_with_a_warning(caplog):
    """The stored events are counted, and a warning says that the day had not ended."""
    metadata = TableMetadata("events", START + timedelta(hours=20), "2024-01-01", "2024-01-01")
    with StorageEngine.memory() as storage:
        storage.create_events_table("visits", [event_at(START, {})], metadata)
        with storage.read() as connection, caplog.at_level(logging.WARNING):
            queries = StoredQueries(connection, table="visits")
            counts = queries.daily_counts(from_date=FIRST, to_date=FIRST).counts
    assert [count.count for count in counts] == [1]
    assert "2024-01-01 of 'visits' had not ended" in caplog.text


def test_a_table_of_some_events_tells_of_no_others():
    """Its zeros would be no zeros."""
    metadata = TableMetadata(
        "events", START + timedelta(days=9), "2024-01-01", "2024-01-01", filter_events=["A"]
    )
    day = {"from_date": FIRST, "to_date": FIRST}
    with StorageEngine.memory() as storage:
        storage.create_events_table("visits", [event_at(START, {})], metadata)
        people = TableMetadata("profiles", START)
        storage.create_profiles_table("people", [], people)
        with storage.read() as connection:
            queries = StoredQueries(connection, table="visits")
            assert queries.property_coverage("A", ["p"], **day).total_events == 1
            with pytest.raises(ConfigError, match="'A' alone"):
                queries.property_coverage("B", ["p"], **day)
            with pytest.raises(ConfigError, match="holds profiles"):
                StoredQueries(connection, table="people").daily_counts(**day)


@pytest.mark.parametrize(
    "ask",
    siblings(
        [
            lambda q: q.daily_counts(from_date="2024-01-02", to_date="2024-01-01"),
            lambda q: q.daily_counts(from_date="01.01.2024", to_date="2024-01-01"),
            lambda q: q.daily_counts(**WEEK, events="Search"),
            lambda q: q.daily_counts(**WEEK, events=[]),
            lambda q: q.property_distribution("A", "p", **WEEK, limit=0),
            lambda q: q.numeric_summary("A", "p", **WEEK, percentiles=[101]),
            lambda q: q.numeric_summary("A", "p", **WEEK, percentiles=["50"]),
            lambda q: q.engagement_distribution(**WEEK, buckets=[]),
            lambda q: q.engagement_distribution(**WEEK, buckets=[0, 1]),
            lambda q: q.engagement_distribution(**WEEK, buckets=[5, 2]),
            lambda q: q.property_coverage("A", [], **WEEK),
            lambda q: q.property_coverage("A", "plan", **WEEK),
        ],
        keep=5,
    ),
)
def test_wrong_arguments_are_refused(ask, queries):
    """Every wrong argument raises ConfigError."""
    with pytest.raises(ConfigError):
        ask(queries)


# Values as JSON has them -----------------------------------------------------------------


def event_at(moment, properties, who="ada"):
    return {
        "event_name": "A",
        "event_time": moment,
        "distinct_id": who,
        "insert_id": None,
        "properties": properties,
    }


def stored(records, table):
    storage = StorageEngine.memory()
    storage.create_events_table(table, records, TableMetadata("events", START + timedelta(days=99)))
    return storage


def test_kinds_of_values_are_told_apart():
    """The text 1, the number 1, true, null, a list, an object and nothing are seven values."""
    values = ["1", 1, 1.0, True, None, [1, "a"], {"b": 1}, "", 2**64, 2**64 + 1]
    records = [event_at(START, {"p": value}) for value in values] + [event_at(START, {})]
    day = {"from_date": FIRST, "to_date": FIRST}
    with stored(records, "visits") as storage, storage.read() as connection:
        queries = StoredQueries(connection, table="visits")
        result = queries.property_distribution("A", "p", **day)
        [coverage] = queries.property_coverage("A", ["p"], **day).coverage
    assert [(one.kind, one.value, one.count) for one in result.values] == [
        ("number", 1, 2),
        ("array", [1, "a"], 1),
        ("boolean", True, 1),
        ("missing", None, 1),
        ("null", None, 1),
        ("number", 2**64, 1),
        ("number", 2**64 + 1, 1),
        ("object", {"b": 1}, 1),
        ("string", "", 1),
        ("string", "1", 1),
    ]
    assert list(result.df.columns) == ["value", "count", "percentage"]
    assert (coverage.defined_count, coverage.null_count) == (9, 2)


def test_columns_are_asked_by_their_property_names(queries, truth):
    """`distinct_id` and `time` are columns, but can be named as properties."""
    result = queries.property_distribution("Sign Up", "distinct_id", **WEEK, limit=100_000)
    expected = Counter(str(value) for value in values_of(truth, "Sign Up", "distinct_id"))
    assert {one.value: one.count for one in result.values} == dict(expected)
    [covered] = queries.property_coverage("Sign Up", ["time"], **WEEK).coverage
    assert covered.null_count == 0


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
values = st.none() | st.booleans() | st.integers(-(2**66), 2**66) | names | st.lists(names)


@examples(8)
@given(name=names.filter(lambda n: n not in ("time", "distinct_id", "$insert_id")), data=st.data())
def test_any_property_of_any_name_is_counted(name, data):
    """Dots, quotes, slashes, nothing at all: a name means the property that has it."""
    sent = data.draw(st.lists(values, min_size=1, max_size=6))
    records = [event_at(START, {name: value, f"{name}x": 0}) for value in sent]
    day = {"from_date": FIRST, "to_date": FIRST}
    with stored(records, "visits") as storage, storage.read() as connection:
        queries = StoredQueries(connection, table="visits")
        result = queries.property_distribution("A", name, **day)
        [coverage] = queries.property_coverage("A", [name], **day).coverage
    expected = Counter((kind_of(value), repr(value)) for value in sent)
    assert Counter({(v.kind, repr(v.value)): v.count for v in result.values}) == expected
    assert coverage.null_count == sum(value is None for value in sent)


def test_a_question_may_name_its_table():
    """Each of them, instead of the table of the service."""
    day = {"from_date": FIRST, "to_date": FIRST}
    with stored([event_at(START, {"n": 3})], "visits") as storage, storage.read() as connection:
        queries = StoredQueries(connection)
        here = day | {"table": "visits"}
        assert queries.daily_counts(**here).counts[0].count == 1
        assert queries.engagement_distribution(**here).total_users <= 1
        assert queries.property_distribution("A", "n", **here).from_date == str(FIRST)
        assert queries.numeric_summary("A", "n", **here).from_date == str(FIRST)
        assert queries.property_coverage("A", ["n"], **here).from_date == str(FIRST)
        with pytest.raises(MissingDaysError):
            queries.daily_counts(**day)
        with pytest.raises(TableNotFoundError):
            queries.daily_counts(**day, table="nothing")


# Days of any zone --------------------------------------------------------------------------

ZONES = [
    *("UTC", "America/Los_Angeles", "Asia/Tokyo", "Asia/Kolkata", "Pacific/Kiritimati"),
    *("Pacific/Pago_Pago", "Antarctica/Troll", "Australia/Lord_Howe", "Europe/Chisinau"),
]
SPRING = datetime(2024, 3, 8, tzinfo=UTC)  # clocks change in America, Europe and Australia


@pytest.fixture(scope="module")
def visits():
    """An event in each half hour of a month, some seconds after its begin."""
    moments = [SPRING + timedelta(minutes=30 * number, seconds=7) for number in range(32 * 48)]
    metadata = TableMetadata("events", START + timedelta(days=999), "2024-03-01", "2024-04-30")
    with StorageEngine.memory() as storage:
        records = [event_at(moment, {}) for moment in moments]
        storage.create_events_table("visits", records, metadata)
        with storage.read() as connection:
            shown = {zone: [m.astimezone(ZoneInfo(zone)).date() for m in moments] for zone in ZONES}
            yield connection, lambda zone: shown[zone]  # a failing example prints what it is given


@examples(12)
@given(
    zone=st.sampled_from(ZONES),
    own=st.sampled_from([*ZONES, None]),
    first=st.dates(date(2024, 3, 5), date(2024, 4, 10)),
    days=st.integers(0, 8),
)
def test_an_event_counts_on_the_day_that_clocks_of_the_zone_show(zone, own, first, days, visits):
    """Whatever the zone, that of the question or the project's own; Python's clocks judge."""
    connection, shown = visits
    last = first + timedelta(days=days)
    asked = {"from_date": first, "to_date": last} | ({} if own is None else {"zone": zone})
    service = StoredQueries(connection, table="visits", zone=own or zone)
    expected = Counter(str(day) for day in shown(zone) if first <= day <= last)
    counts = service.daily_counts(**asked).counts
    assert {count.date: count.count for count in counts} == dict(expected)


@pytest.fixture(scope="module", params=["utc", "legacy"])
def western(request, tmp_path_factory):
    """Three days of a project in Los Angeles, of either regime, and its emulator."""
    zone = "America/Los_Angeles"
    options = EmulatorSettings(start=FIRST, days=5, zone=zone, regime=request.param)
    with Emulator(options) as emulator:
        settings = Settings(
            api_base_url=emulator.base_url,
            database=tmp_path_factory.mktemp(request.param) / "warehouse.duckdb",
            time_regime=request.param,
            time_zone=zone,
            state_dir=":memory:",
        )
        credentials = make_credentials(
            username=emulator.username, secret=emulator.secret, project_id="12345"
        )
        with Workspace(credentials=credentials, settings=settings) as workspace:
            workspace.sync_events(date(2024, 1, 2), date(2024, 1, 4))
            yield workspace, request.param


def test_stored_days_are_those_of_mixpanels_reports(western, caplog):
    """By default a day is the project's, in both regimes; the numbers are the live report's."""
    workspace, _ = western
    days = {"from_date": "2024-01-02", "to_date": "2024-01-03"}
    live = workspace.event_counts(["Page View", "Sign Up"], **days)
    stored = workspace.daily_counts(**days, events=["Page View", "Sign Up"])
    found = {(count.event, count.date): count.count for count in stored.counts}
    expected = {
        (event, day): count
        for event, counts in live.series.items()
        for day, count in counts.items()
        if count
    }
    assert found == expected
    assert "missing" not in caplog.text


@pytest.mark.parametrize(
    ("zone", "lost"),
    [
        (None, {"utc": "the last hours of 2024-01-04 in America/Los_Angeles", "legacy": None}),
        ("US/Pacific", {"utc": "the last hours of 2024-01-04 in US/Pacific", "legacy": None}),
        ("UTC", {"utc": None, "legacy": "the first hours of 2024-01-02 in UTC"}),
        ("Asia/Tokyo", dict.fromkeys(["utc", "legacy"], "the first hours of 2024-01-02")),
    ],
)
def test_a_day_at_the_edge_that_is_not_stored_is_warned_of(zone, lost, western, caplog):
    """With the hours that are missing and the command that loads them; the rest is counted."""
    workspace, regime = western
    days = {"from_date": "2024-01-02", "to_date": "2024-01-04"}
    with caplog.at_level(logging.WARNING):
        counts = workspace.daily_counts(**days, zone=zone).counts
    assert {count.date for count in counts} == {"2024-01-02", "2024-01-03", "2024-01-04"}
    if lost[regime] is None:
        assert "missing" not in caplog.text
    else:
        edge = "2024-01-01" if "first" in lost[regime] else "2024-01-05"
        assert f"Events of {lost[regime]}" in caplog.text
        assert f"`mp sync --from {edge} --to {edge}`" in caplog.text


def test_a_day_within_that_is_not_stored_is_an_error_in_every_zone(western):
    """A missing day at the edges only causes a warning."""
    workspace, _ = western
    with pytest.raises(MissingDaysError, match="2024-01-05"):
        workspace.daily_counts(from_date="2024-01-03", to_date="2024-01-05", zone="Asia/Tokyo")


@pytest.mark.parametrize(("hour", "warned"), [(7, True), (9, False)])
def test_a_day_at_the_edge_counts_once_its_needed_hours_are_over(hour, warned, caplog):
    """2024-01-01 of Los Angeles ends at 8 of the next UTC day, which may still be open."""
    metadata = TableMetadata(
        "events", START + timedelta(days=1, hours=hour), "2024-01-01", "2024-01-02"
    )
    with StorageEngine.memory() as storage:
        storage.create_events_table("visits", [event_at(START + timedelta(hours=9), {})], metadata)
        with storage.read() as connection, caplog.at_level(logging.WARNING):
            queries = StoredQueries(connection, table="visits")
            day = {"from_date": FIRST, "to_date": FIRST, "zone": "America/Los_Angeles"}
            assert [count.count for count in queries.daily_counts(**day).counts] == [1]
    assert ("2024-01-02 of 'visits' had not ended" in caplog.text) == warned


@pytest.mark.parametrize("zone", ["Mars/Base", "", "../UTC", "UTC\0"])
def test_an_unknown_zone_is_refused(zone, queries):
    """An unknown zone raises an error."""
    with pytest.raises(ConfigError, match="no time zone"):
        queries.daily_counts(**WEEK, zone=zone)


def test_the_zone_of_the_loads_holds_while_the_variable_is_not_set(western):
    """A reader without settings has the project's days, too."""
    workspace, _ = western
    days = {"from_date": "2024-01-02", "to_date": "2024-01-03"}
    with Workspace.open(workspace.db_path) as reader:
        assert "time_zone" not in reader.settings.model_fields_set
        assert reader.daily_counts(**days) == workspace.daily_counts(**days)


MISSPELLED = {
    "property_distribution": {"event": "Sign Pu", "property": "plan", **WEEK},
    "numeric_summary": {"event": "Sign Pu", "property": "amount", **WEEK},
    "daily_counts": {"events": ["Page View", "Sign Pu"], **WEEK},
    "engagement_distribution": {"events": ["Page View", "Sign Pu"], **WEEK},
    "property_coverage": {"event": "Sign Pu", "properties": ["plan"], **WEEK},
}


@pytest.mark.parametrize("question", MISSPELLED)
def test_a_misspelled_event_is_told_with_similar_ones(question, queries, caplog):
    """The answer comes all the same; an event that is there is not warned of."""
    getattr(queries, question)(**MISSPELLED[question])
    [warned] = caplog.records
    assert warned.getMessage() == (
        "The table 'events' holds no event 'Sign Pu'. Similar ones: Sign Up."
    )


def test_an_event_of_other_days_is_not_misspelled(queries, truth, caplog):
    """An event that did not happen on the requested day, but on others, causes no warning."""
    by_day = {day: {record["event"] for on, record in truth if on == day} for day, _ in truth}
    day, name = next(
        (day, name)
        for day in by_day
        for name in sorted(set().union(*by_day.values()) - by_day[day])
    )
    queries.daily_counts(from_date=day, to_date=day, events=[name])
    assert not caplog.records


def test_properties_of_a_misspelled_event_are_told_with_similar_ones(storage, caplog):
    """A name that the table has causes no warning."""
    with storage.read() as connection:
        inspector = TableInspector(connection)
        assert inspector.property_keys("events", "Sign Up")
        assert not caplog.records
        assert inspector.property_keys("events", "Sign Pu") == []
    assert "Similar ones: Sign Up." in caplog.text
