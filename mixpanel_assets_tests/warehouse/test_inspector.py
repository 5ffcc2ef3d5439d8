"""What is in a database: tables, columns, samples, and numbers about them."""

from datetime import UTC, datetime, timedelta

import pytest

from mixpanel_assets import StorageEngine, TableMetadata
from mixpanel_assets.errors import ConfigError, TableNotFoundError
from mixpanel_assets.warehouse import ProjectIdentity
from mixpanel_assets.warehouse.inspector import TableInspector

START = datetime(2024, 1, 1, tzinfo=UTC)
FETCHED = datetime(2024, 2, 1, tzinfo=UTC)
ODD = 'od"d; DROP TABLE visits'


def event(number, name="Visit", **properties):
    return {
        "event_name": name,
        "event_time": START + timedelta(minutes=number),
        "distinct_id": f"user-{number % 2}",
        "insert_id": f"id-{number}",
        "properties": properties,
    }


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    """Three visits and an order, an empty table of profiles, and two tables made by hand."""
    path = tmp_path_factory.mktemp("inspected") / "shop.duckdb"
    records = [event(0, plan="pro"), event(1, plan="free"), event(2, plan="free", city=None)]
    records.append(event(3, "Order", amount=5))
    with StorageEngine(path, project=ProjectIdentity("7", "eu")) as storage:
        storage.create_events_table("visits", records, TableMetadata("events", FETCHED))
        storage.create_profiles_table("nobody", [], TableMetadata("profiles", FETCHED))
        storage.execute(
            "CREATE SCHEMA extra; CREATE TABLE extra.numbers AS SELECT range::INTEGER AS n, "
            "nullif(range % 2, 0) AS odd FROM range(10)"
        )
        storage.execute(
            'CREATE TABLE main."select" (id INTEGER PRIMARY KEY, "od""d; DROP TABLE visits" '
            "VARCHAR NOT NULL)"
        )
        yield storage


@pytest.fixture
def inspector(storage):
    with storage.read() as connection:
        yield TableInspector(connection)


def test_loaded_tables_are_listed(inspector):
    """By name, with their rows and the moment of the newest load."""
    assert [(t.name, t.type, t.row_count, t.fetched_at) for t in inspector.tables()] == [
        ("nobody", "profiles", 0, FETCHED),
        ("visits", "events", 4, FETCHED),
    ]


def test_the_whole_is_said_in_a_few_words(inspector, storage):
    """Whose data it is, which tables it has, how large it is."""
    info = inspector.info(storage.path, account="shop")
    assert (info.path, info.project_id, info.region) == (storage.path, "7", "eu")
    assert (info.account, info.tables) == ("shop", ["nobody", "visits"])
    assert info.size_mb == storage.path.stat().st_size / 1_000_000
    assert info.created_at.tzinfo is UTC
    assert inspector.info(project_id="8").project_id == "8"


@pytest.mark.parametrize("name", ["visits", "VISITS", "main.visits"])
def test_a_table_is_found_however_it_is_written(inspector, name):
    """Case does not count, and a schema may be said."""
    schema = inspector.schema(name)
    assert schema.table_name == "visits"
    assert [(column.name, column.type) for column in schema.columns] == [
        ("event_name", "VARCHAR"),
        ("event_time", "TIMESTAMP"),
        ("distinct_id", "VARCHAR"),
        ("insert_id", "VARCHAR"),
        ("properties", "JSON"),
    ]


def test_keys_and_missing_values_are_told(inspector):
    """As the table declares them, whatever its columns are called."""
    key, text = inspector.schema("select").columns
    assert (key.name, key.nullable, key.primary_key) == ("id", False, True)
    assert (text.name, text.nullable, text.primary_key) == (ODD, False, False)


def test_an_unknown_table_is_answered_with_those_that_are_there(inspector):
    """Every call raises an error with the existing tables, without the package's own."""
    for ask in (
        *(inspector.schema, inspector.sample, inspector.summarize, inspector.event_breakdown),
        *(inspector.property_keys, inspector.metadata),
        lambda name: inspector.column_stats(name, "n"),
    ):
        with pytest.raises(
            TableNotFoundError, match=r"it has: .*extra\.numbers, .*visits"
        ) as caught:
            ask("visits; DROP TABLE visits")
        assert "_days" not in caught.value.available
    with pytest.raises(TableNotFoundError, match="nobody, visits"):
        inspector.metadata("select")


def test_a_sample_holds_rows_of_the_table(inspector):
    """The sample has the requested number of rows, or all."""
    assert len(inspector.sample("extra.numbers", 3)) == 3
    assert sorted(inspector.sample("extra.numbers")["n"]) == list(range(10))
    assert inspector.sample("nobody").empty
    for n in (0, -1, 1.5, True, "1; DROP TABLE visits"):
        with pytest.raises(ConfigError):
            inspector.sample("visits", n)


def test_a_summary_has_every_column(inspector):
    """Numbers have a mean, texts have none."""
    result = inspector.summarize("extra.numbers")
    n, odd = result.columns
    assert (result.table, result.row_count) == ("numbers", 10)
    assert (n.column_name, n.column_type, n.min, n.max, n.count) == ("n", "INTEGER", "0", "9", 10)
    assert (n.avg, n.null_percentage) == (4.5, 0.0)
    assert odd.null_percentage == 50.0
    texts = inspector.summarize("visits").columns
    assert [column.avg for column in texts] == [None] * 5
    assert inspector.summarize("nobody").row_count == 0
    assert [column.count for column in inspector.summarize("nobody").columns] == [0, 0, 0]
    assert inspector.summarize("select").columns[1].column_name == ODD


def test_events_are_broken_down(inspector):
    """The most common first, with users, first and last time and share."""
    result = inspector.event_breakdown("visits")
    assert (result.table, result.total_events, result.total_users) == ("visits", 4, 2)
    assert result.date_range == (START, START + timedelta(minutes=3))
    assert [(e.event_name, e.count, e.unique_users, e.pct_of_total) for e in result.events] == [
        ("Visit", 3, 2, 75.0),
        ("Order", 1, 1, 25.0),
    ]
    assert result.events[0].last_seen == START + timedelta(minutes=2)


def test_an_empty_table_has_no_range(storage):
    """Nothing happened, so nothing happened first."""
    with StorageEngine.memory() as empty:
        empty.create_events_table("none", [], TableMetadata("events", FETCHED))
        with empty.read() as connection:
            result = TableInspector(connection).event_breakdown("none")
    assert (result.total_events, result.date_range, result.events) == (0, None, [])


def test_a_breakdown_needs_events(inspector):
    """A table of profiles has none."""
    with pytest.raises(ConfigError, match="event_name"):
        inspector.event_breakdown("nobody")


def test_properties_are_listed(inspector):
    """All of them, or those of one event; nulls are there."""
    assert inspector.property_keys("visits") == ["amount", "city", "plan"]
    assert inspector.property_keys("visits", "Visit") == ["city", "plan"]
    assert inspector.property_keys("visits", "it's") == []
    assert inspector.property_keys("nobody") == []
    with pytest.raises(ConfigError, match="properties"):
        inspector.property_keys("extra.numbers")
    with pytest.raises(ConfigError, match="event_name"):
        inspector.property_keys("nobody", "Visit")


def test_a_column_is_told_in_detail(inspector):
    """Values and nulls, how many differ, the most common, and numbers of numbers."""
    result = inspector.column_stats("extra.numbers", "ODD")
    assert (result.count, result.null_count, result.null_pct) == (5, 5, 50.0)
    assert (result.unique_count, result.unique_pct) == (1, 20.0)
    assert result.top_values == [(1, 5)]
    assert (result.min, result.max, result.mean, result.std) == (1.0, 1.0, 1.0, 0.0)
    top = inspector.column_stats("extra.numbers", "n", top_n=2)
    assert top.top_values == [(0, 1), (1, 1)]
    assert (top.dtype, top.mean) == ("INTEGER", 4.5)


@pytest.mark.parametrize(
    ("column", "kind", "expected"),
    [
        ("properties->>'$.plan'", "VARCHAR", [("free", 2), ("pro", 1)]),
        ("properties ->> 'plan'", "VARCHAR", [("free", 2), ("pro", 1)]),
        ("properties->'$.plan'", "JSON", [('"free"', 2), ('"pro"', 1)]),
        ("\"properties\"->>'$.\"it''s\"'", "VARCHAR", []),
        ("prop(properties, 'plan')", "VARCHAR", [("free", 2), ("pro", 1)]),
        ("mixpanel.prop_number( properties ,'amount' )", "DOUBLE", [(5.0, 1)]),
        ("prop_json(properties, 'it''s')", "JSON", []),
        ("distinct_id", "VARCHAR", [("user-0", 2), ("user-1", 2)]),
    ],
)
def test_a_value_inside_of_json_is_a_column_too(inspector, column, kind, expected):
    """As text or as JSON; of two as common the smaller comes first."""
    result = inspector.column_stats("visits", column)
    assert (result.column, result.dtype, result.top_values) == (column, kind, expected)


@pytest.mark.parametrize(
    "column",
    [
        "nothing",
        "1",
        "",
        "event_name FROM visits; DROP TABLE visits; SELECT 1",
        "nothing->>'$.plan'",
        "properties->>'$.plan' || 'x'",
        "properties->>'a'; DROP TABLE visits --'",
        "(SELECT 1)",
    ],
)
def test_anything_else_is_no_column(inspector, column):
    """Nothing that was not looked up reaches the database."""
    with pytest.raises(ConfigError, match="it has: event_name"):
        inspector.column_stats("visits", column)


def test_columns_with_hostile_names_are_quoted(inspector):
    """They are columns like others."""
    assert inspector.column_stats("select", ODD).count == 0
    for top_n in (0, True, "1"):
        with pytest.raises(ConfigError):
            inspector.column_stats("visits", "event_name", top_n=top_n)


def test_views_are_looked_at_like_tables(inspector):
    """The package's own views too."""
    assert inspector.schema("_metadata").columns[0].name == "table_name"
    assert len(inspector.sample("_metadata")) == 2
