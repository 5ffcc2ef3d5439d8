"""The macros `prop`, `prop_number`, `prop_time` and `prop_json` read any property by its name."""

import json
from datetime import UTC, datetime, timedelta, timezone

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_assets.errors import QueryError
from mixpanel_assets.warehouse.faults import user_sql
from mixpanel_assets.warehouse.schema import MACROS, create_all, spelling
from mixpanel_assets_tests.laws import examples
from mixpanel_assets_tests.warehouse.conftest import event

NAMES = ["$browser", "a.b", "a/b", "~", "~1", "", "it's", '"', "[0]", "$", "$.x", "0", "*", "\\"]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@pytest.fixture(scope="module")
def connection():
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'America/New_York'")
        create_all(connection)
        yield connection


@pytest.fixture
def read(connection):
    """Read one property of a JSON object with a macro."""

    def read(macro, properties, name):
        query = f"SELECT mixpanel.{macro}(?::JSON, ?)"
        return connection.execute(query, [json.dumps(properties), name]).fetchall()[0][0]

    return read


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_read(name, read):
    """Also with a `$`, a dot, quotes, brackets, slashes, or without any character."""
    properties = {other: f"value of {other}" for other in NAMES}
    assert read("prop", properties, name) == f"value of {name}"
    assert json.loads(read("prop_json", properties, name)) == f"value of {name}"


@given(st.dictionaries(TEXT, TEXT, min_size=1), TEXT)
@examples(25)
def test_any_name_gives_its_own_value(connection, properties, other):
    """Never the value of another one; an absent one is NULL."""
    rows = [{"name": name} for name in {*properties, other}]
    found = connection.execute(
        "SELECT name, mixpanel.prop($properties::JSON, name) "
        "FROM (SELECT unnest($rows::STRUCT(name VARCHAR)[], recursive := true))",
        {"properties": json.dumps(properties), "rows": rows},
    ).fetchall()
    assert dict(found) == {name: properties.get(name) for name in {*properties, other}}


@pytest.mark.parametrize(
    ("value", "text", "number"),
    [
        ("free", "free", None),
        (12.5, "12.5", 12.5),
        ("12.5", "12.5", 12.5),
        (-3, "-3", -3.0),
        ("1e3", "1e3", 1000.0),
        (True, "true", None),
        ("inf", "inf", None),
        ("nan", "nan", None),
        ("", "", None),
        (None, None, None),
        ([1, 2], "[1,2]", None),
        ({"a": 1}, '{"a":1}', None),
    ],
)
def test_text_and_number_of_a_value(value, text, number, read):
    """A number that was sent as text is a number; what is none is NULL."""
    assert read("prop", {"$x": value}, "$x") == text
    assert read("prop_number", {"$x": value}, "$x") == number


MOMENT = datetime(2024, 1, 31, 23, 5, 7)


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("2024-01-31T23:05:07", MOMENT),
        ("2024-01-31 23:05:07", MOMENT),
        ("2024-01-31T23:05:07Z", MOMENT),
        ("2024-02-01T00:05:07+01:00", MOMENT),
        ("2024-02-01T00:05:07+0100", MOMENT),
        ("2024-01-31T15:05:07-08", MOMENT),
        ("2024-02-01 04:35:07.250 +05:30", MOMENT + timedelta(milliseconds=250)),
        ("2024-01-31T23:05:07,5", MOMENT + timedelta(milliseconds=500)),
        ("2024-01-31", datetime(2024, 1, 31)),
        ("2024-01-31T23:05", datetime(2024, 1, 31, 23, 5)),
        (1706742307, MOMENT),
        (1706742307.5, MOMENT + timedelta(milliseconds=500)),
        (1706742307250, MOMENT + timedelta(milliseconds=250)),
        ("1706742307", MOMENT),
        ("1706742307250", MOMENT + timedelta(milliseconds=250)),
        (0, datetime(1970, 1, 1)),
        (-86400, datetime(1969, 12, 31)),
        (253402300799, datetime(1978, 1, 11, 21, 31, 40, 799000)),
        (253402300800000, None),
        (1e300, None),
        ("2024-02-30", None),
        ("31.1.2024", None),
        ("2024", None),
        ("20240131", None),
        ("infinity", None),
        ("epoch", None),
        ("today", None),
        ("", None),
        (True, None),
        (None, None),
        ([1706742307], None),
    ],
)
def test_a_time_is_utc_whatever_the_session_says(value, moment, read):
    """ISO text, seconds and milliseconds; anything else is NULL, never an error."""
    assert read("prop_time", {"$x": value}, "$x") == moment


@given(
    st.datetimes(datetime(1980, 1, 1), datetime(9990, 1, 1)),
    st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
@examples(25)
def test_any_moment_written_as_iso_text_is_read(connection, moment, zone):
    """With whatever offset it is written."""
    aware = moment.replace(tzinfo=UTC)
    properties = {"a": aware.astimezone(zone).isoformat(), "b": moment.isoformat()}
    found = connection.execute(
        "SELECT mixpanel.prop_time($json::JSON, 'a'), mixpanel.prop_time($json::JSON, 'b')",
        {"json": json.dumps(properties)},
    ).fetchall()
    assert found == [(moment, moment)]


def test_they_are_there_after_a_load_and_without_the_schema_too(warehouse):
    """In every file; in its own schema and on the search path."""
    warehouse.load([event(**{"$browser": "Firefox"})])
    [(with_schema, without)] = warehouse.query(
        "SELECT mixpanel.prop(properties, '$browser'), prop(properties, '$browser') FROM events"
    )
    assert with_schema == without == "Firefox"


def test_a_macro_of_the_user_is_kept(warehouse):
    """One of ours is renewed, one of another author is not touched."""
    warehouse.load([event()])
    with warehouse.database.write() as connection:
        connection.execute("CREATE OR REPLACE MACRO mixpanel.prop(a, b) AS 'mine'")
        connection.execute("CREATE MACRO mixpanel.other() AS 1")
        create_all(connection)
    assert warehouse.query("SELECT mixpanel.prop(1, 2), mixpanel.other()") == [("mine", 1)]
    named = warehouse.query(
        "SELECT function_name FROM duckdb_functions() WHERE comment LIKE 'mixpanel_assets: %'"
    )
    assert {name for (name,) in named} == set(MACROS) - {"prop"}


@pytest.mark.parametrize(
    ("sql", "name"),
    [
        ("SELECT properties->>'$browser' FROM mixpanel.events", "$browser"),
        ("SELECT properties->'$os version' FROM mixpanel.events", "$os version"),
        ("SELECT json_extract_string(properties, '$it''s') FROM mixpanel.events", "$it's"),
        ("SELECT 1 FROM mixpanel.events WHERE properties->>'$mp_lib' = 'web'", "$mp_lib"),
    ],
)
def test_the_plain_spelling_is_answered_with_one_that_works(sql, name, connection):
    """By the name of the property; both spellings that are proposed can be run."""
    with pytest.raises(QueryError) as refused, user_sql():
        connection.execute(sql)
    lines = str(refused.value).splitlines()
    assert spelling(name) in lines[-1]
    for proposed in lines[-1].split("`")[1::2]:
        connection.execute(f"SELECT {proposed} FROM mixpanel.events")


def test_a_path_that_is_wrong_for_another_reason_is_not_explained(connection):
    """Only a name behind a `$` is."""
    with pytest.raises(QueryError) as refused, user_sql():
        connection.execute("SELECT properties->>'$.a[' FROM mixpanel.events")
    assert "prop(" not in str(refused.value)
    assert isinstance(refused.value.__cause__, duckdb.Error)
