"""`mp query sql` and `mp inspect` of stored data: the library's results, without an account."""

import csv
import json
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import duckdb
import pytest

from mixpanel_assets import StorageEngine, TableMetadata, Workspace
from mixpanel_assets.auth import ConfigManager
from mixpanel_assets.cli.output import as_plain
from mixpanel_assets.warehouse import copy_path
from mixpanel_assets_tests.conftest import START
from mixpanel_assets_tests.laws import siblings

WEEK = ("--from", "2024-01-01", "--to", "2024-01-07")
SPAN = {"from_date": "2024-01-01", "to_date": "2024-01-07"}
NO_CREDENTIALS = {"MP_USERNAME": "", "MP_SECRET": "", "MP_PROJECT_ID": ""}


@pytest.fixture(scope="module")
def database(tmp_path_factory, shared_emulator):
    """A week of events and the profiles, in a file that the tests only read."""
    from mixpanel_assets.client import make_credentials
    from mixpanel_assets.settings import Settings

    path = tmp_path_factory.mktemp("stored") / "shop.duckdb"
    credentials = make_credentials(
        username=shared_emulator.username, secret=shared_emulator.secret, project_id="12345"
    )
    settings = Settings(api_base_url=shared_emulator.base_url, database=path, state_dir=":memory:")
    with Workspace(credentials=credentials, settings=settings) as workspace:
        workspace.sync_events(START, START.replace(day=7))
        workspace.sync_profiles()
    return path


@pytest.fixture
def stored(database):
    with Workspace.open(database) as workspace:
        yield workspace


@pytest.fixture
def ask(mp_here, database):
    """Run a command on the stored week, without an account."""
    return lambda *command: mp_here(*command, "--database", str(database), **NO_CREDENTIALS)


QUESTIONS = {
    "info": ((), lambda ws: ws.info()),
    "schema": (("-t", "events"), lambda ws: ws.table_schema("events")),
    "summarize": (("-t", "profiles"), lambda ws: ws.summarize("profiles")),
    "breakdown": (("-t", "events"), lambda ws: ws.event_breakdown("events")),
    "column": (
        ("-t", "events", "-c", "event_name", "--top", "3"),
        lambda ws: ws.column_stats("events", "event_name", top_n=3),
    ),
    "distribution": (
        ("-e", "Sign Up", "-p", "mp_country_code", *WEEK, "-l", "3"),
        lambda ws: ws.property_distribution("Sign Up", "mp_country_code", **SPAN, limit=3),
    ),
    "numeric": (
        ("-e", "Order Completed", "-p", "amount", *WEEK, "--percentiles", "5,50"),
        lambda ws: ws.numeric_summary("Order Completed", "amount", **SPAN, percentiles=[5, 50]),
    ),
    "daily": (
        (*WEEK, "-e", "Sign Up,Page View"),
        lambda ws: ws.daily_counts(**SPAN, events=["Sign Up", "Page View"]),
    ),
    "engagement": (
        (*WEEK, "--buckets", "1,3"),
        lambda ws: ws.engagement_distribution(**SPAN, buckets=[1, 3]),
    ),
    "coverage": (
        ("-e", "Order Completed", "-p", "amount,coupon", *WEEK),
        lambda ws: ws.property_coverage("Order Completed", ["amount", "coupon"], **SPAN),
    ),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_command_prints_what_the_library_returns(name, ask, stored):
    """The result's own JSON, without an account."""
    arguments, question = QUESTIONS[name]
    done = ask("inspect", name, *arguments)
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout) == as_plain(question(stored).to_dict())


@pytest.mark.parametrize(
    ("name", "heading"),
    [
        ("schema", "name,type,nullable,primary_key"),
        ("breakdown", "event_name,count,unique_users,first_seen,last_seen,pct_of_total"),
        ("daily", "date,event,count"),
        ("coverage", "property,defined_count,null_count,coverage_percentage"),
    ],
)
def test_csv_holds_the_rows(name, heading, ask, stored):
    """The columns have the names that users know."""
    done = ask("inspect", name, *QUESTIONS[name][0], "--format", "csv")
    assert done.stdout.splitlines()[0] == heading
    assert len(list(csv.reader(done.stdout.splitlines()))) > 1


@pytest.mark.parametrize("name", ["distribution", "numeric", "daily", "engagement", "coverage"])
def test_days_can_be_those_of_another_zone(name, ask, stored):
    """Each question takes --zone, and warns of the day at the edge; a wrong zone is named."""
    arguments, question = QUESTIONS[name]
    done = ask("inspect", name, *arguments, "--zone", "Asia/Tokyo")
    assert done.code == 0
    assert "the first hours of 2024-01-01 in Asia/Tokyo are missing" in done.stderr
    assert json.loads(done.stdout) != as_plain(question(stored).to_dict())
    refused = ask("inspect", name, *arguments, "--zone", "Mars/Base")
    assert refused.code == 3
    assert "'Mars/Base' is not a time zone" in refused.stderr


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago"])
@pytest.mark.parametrize("is_projects", [True, False])
def test_today_is_that_of_the_zone(zone, is_projects, mp_here, database):
    """Today is that of --zone, or of MP_TIME_ZONE without the option."""
    today = datetime.now(ZoneInfo(zone)).date()
    option, environment = ([], {"MP_TIME_ZONE": zone}) if is_projects else (["--zone", zone], {})
    command = ("inspect", "daily", "--last", "1", *option, "--database", str(database))
    done = mp_here(*command, **NO_CREDENTIALS, **environment)
    assert done.code != 0
    assert f"lacks {today}," in done.stderr


def test_counts_equal_what_the_project_holds(ask, shared_emulator):
    """The counts by day are those of Mixpanel."""
    done = ask("inspect", "daily", *WEEK, "-e", "Sign Up", "--jq", ".counts | map(.count) | add")
    days = [START.replace(day=number) for number in range(1, 8)]
    assert int(done.stdout) == sum(
        shared_emulator.truth.count_by_event(day)["Sign Up"] for day in days
    )


def test_tables_are_listed_under_both_names(ask):
    """The short spelling is the same command."""
    done = ask("tables")
    assert {table["name"] for table in json.loads(done.stdout)} == {"events", "profiles"}
    assert ask("inspect", "tables").stdout == done.stdout


def test_properties_of_a_table_are_listed(ask, stored):
    """One a line in plain text."""
    done = ask("inspect", "keys", "-t", "events", "-e", "Sign Up", "-f", "json")
    assert json.loads(done.stdout) == stored.property_keys("events", "Sign Up")


def test_a_sample_has_rows_of_the_table(ask, stored):
    """The requested number, all columns, times in ISO 8601; also a value for each column."""
    rows = json.loads(ask("inspect", "sample", "-t", "events", "-n", "3").stdout)
    columns = [column.name for column in stored.table_schema("events").columns]
    assert [list(row) for row in rows] == [columns] * 3
    shown = json.loads(ask("schema", "-t", "profiles", "--sample").stdout)
    assert isinstance(shown["columns"][0]["sample"], str)


@pytest.mark.parametrize("way", ["argument", "file"])
def test_sql_is_asked_by_argument_or_file(way, ask, stored, tmp_path):
    """An object per row, under the names of the columns."""
    query = "SELECT event_name, count(*) AS n FROM events GROUP BY ALL ORDER BY ALL"
    path = tmp_path / "query.sql"
    path.write_text(query)
    done = ask("sql", *((query,) if way == "argument" else ("-F", str(path))))
    assert json.loads(done.stdout) == stored.sql_rows(query).to_dicts()


EXACT = [
    ("'infinity'::DOUBLE", "inf"),
    ("'-inf'::FLOAT", "-inf"),
    ("'nan'::DOUBLE", "nan"),
    ("1.5::DOUBLE", 1.5),
    ("'infinity'::DATE", "infinity"),
    ("'-infinity'::TIMESTAMP", "-infinity"),
    ("'infinity'::TIMESTAMPTZ", "infinity"),
    ("'290000-01-01'::DATE", "290000-01-01"),
    ("'1000-01-01 (BC)'::DATE", "1000-01-01 (BC)"),
    ("DATE '2024-01-31'", "2024-01-31"),
    ("TIMESTAMP '2024-01-31 01:02:03'", "2024-01-31T01:02:03"),
    ("INTERVAL '1 month 2 days 03:04:05.5'", "1 month 2 days 03:04:05.5"),
    ("INTERVAL '-13 months'", "-1 year -1 month"),
    ("TIMESTAMP_NS '2024-01-01 00:00:00.123456789'", "2024-01-01 00:00:00.123456789"),
    ("TIME '01:02:03.5'", "01:02:03.5"),
    (r"'\x00\xFFab'::BLOB", r"\x00\xFFab"),
    ("[INTERVAL 1 month]", "[1 month]"),
    ("{'last': 'infinity'::DATE}", "{'last': infinity}"),
    ("[1.5, 'inf'::DOUBLE]", "[1.5, inf]"),
    ("[1.5::DOUBLE, 2]", [1.5, 2.0]),
    ("[DATE '2024-01-31']", ["2024-01-31"]),
    ("12345678901234567890.12::DECIMAL(38,2)", "12345678901234567890.12"),
    ("NULL::INTERVAL", None),
]


def test_sql_prints_what_duckdb_would(ask):
    """Also where Python or JSON has no form: then it is DuckDB's own text."""
    columns = ", ".join(f"{value} AS a{number}" for number, (value, _) in enumerate(EXACT))
    shown = {f"a{number}": shown for number, (_, shown) in enumerate(EXACT)}
    assert json.loads(ask("sql", f"SELECT {columns}").stdout) == [shown]


@pytest.mark.parametrize(("value", "shown"), siblings(EXACT[::-1], keep=4))
def test_sql_prints_a_value_in_each_form(value, shown, ask):
    """The same value is printed as a scalar, as text and in a table."""
    query = f"SELECT {value} AS a"
    assert json.loads(ask("sql", query, "--scalar").stdout) == shown
    if isinstance(shown, str):
        assert ask("sql", query, "-f", "plain").stdout == f"{shown}\n"
        assert shown in ask("sql", query, "-f", "table").stdout


def test_decimals_keep_their_digits_in_text(ask):
    """In JSON they are numbers."""
    query = "SELECT 1.50::DECIMAL(10,2) AS a, 0::DECIMAL(20,10) AS b"
    assert ask("sql", query, "-f", "csv").stdout == "a,b\n1.50,0.0000000000\n"
    assert json.loads(ask("sql", query).stdout) == [{"a": 1.5, "b": 0.0}]


def test_sql_keeps_its_order(ask):
    """Rows are in the order of the query."""
    done = ask("sql", "SELECT 5000 - range AS n FROM range(5000) ORDER BY n", "-f", "plain")
    assert done.stdout.split() == [str(number) for number in range(1, 5001)]


def test_sql_comes_from_stdin_too(mp_here, database):
    """A dash reads it; a scalar is a bare value."""
    done = mp_here("query", "sql", "-", "--scalar", "--database", str(database), stdin="SELECT 7")
    assert done.stdout == "7\n"


def test_no_row_still_has_its_columns(ask):
    """A script that reads CSV finds its heading."""
    done = ask("sql", "SELECT event_name, 1 AS n FROM events WHERE false", "-f", "csv")
    assert done.stdout == "event_name,n\n"


def test_two_columns_of_one_name_are_refused(ask):
    """One of them would be lost."""
    done = ask("sql", "SELECT 1 AS n, 2 AS n")
    assert done.code == 3
    assert "AS" in done.stderr


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("sql", "SELECT nonsense"), 3),
        (("sql", "DELETE FROM events"), 3),
        (("sql",), 3),
        (("sql", "SELECT 1", "-F", "query.sql"), 3),
        (("sql", "-F", "nowhere.sql"), 3),
        (("schema", "-t", "nowhere"), 4),
        (("inspect", "daily", "--from", "2023-01-01", "--to", "2023-01-02"), 4),
        (("inspect", "daily", "--from", "2024-01-02", "--to", "2024-01-01"), 3),
        (("inspect", "engagement", *WEEK, "--buckets", "5,1"), 3),
        (("inspect", "numeric", "-e", "a", "-p", "b", *WEEK, "--percentiles", "101"), 3),
        (("inspect", "coverage", "-e", "a", "-p", ",", *WEEK), 3),
    ],
)
def test_what_goes_wrong_is_told_apart(command, code, ask):
    """Wrong questions exit with 3, what is not there with 4."""
    done = ask(*command)
    assert done.code == code, done.stderr
    assert done.stdout == ""
    assert done.stderr


def test_a_missing_database_exits_with_4(mp_here, tmp_path):
    """The place that was looked at is named, and nothing is made."""
    done = mp_here("tables", **NO_CREDENTIALS)
    assert done.code == 4
    assert "warehouse.duckdb" in done.stderr
    assert not (tmp_path / "warehouse.duckdb").exists()


def test_the_default_file_is_the_projects(mp_here):
    """Without MP_DATABASE the project's number names it, as it does for loads."""
    done = mp_here("tables", MP_DATABASE="", MP_PROJECT_ID="777")
    assert done.code == 4
    assert "777.db" in done.stderr


@pytest.fixture
def own_database(database, tmp_path):
    """A copy to change."""
    path = tmp_path / "own.duckdb"
    path.write_bytes(database.read_bytes())
    return path


def test_nobody_is_asked_without_a_terminal(mp_here, own_database):
    """Dropping needs --force there, and nothing is lost."""
    done = mp_here("drop", "-t", "events", "--database", str(own_database), stdin="y\n")
    assert done.code == 3
    assert "--force" in done.stderr
    with duckdb.connect(own_database, read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM mixpanel.events").fetchone()[0]


def test_tables_are_dropped_by_name_or_all(mp_here, own_database):
    """An asset's table is emptied; a named table is dropped."""
    place = ("--database", str(own_database), "--force")
    assert json.loads(mp_here("drop", "-t", "events", *place).stdout) == ["events"]
    with Workspace.open(own_database) as workspace:
        assert workspace.sql_scalar("SELECT count(*) FROM events") == 0
        assert workspace.sql_scalar("SELECT count(*) FROM profiles")
    assert json.loads(mp_here("inspect", "drop-all", *place).stdout) == []
    assert mp_here("drop", "-t", "nowhere", *place).code == 4


def test_a_day_is_dropped_at_the_users_word(mp_here, own_database):
    """Without --yes and a terminal nothing happens; afterwards readers do not find it either."""
    place = ("--database", str(own_database))
    with Workspace.open(own_database) as workspace:
        [(day, rows)] = workspace.sql_rows(
            "SELECT event_date, count(*) FROM events GROUP BY ALL ORDER BY ALL LIMIT 1"
        )
    refused = mp_here("drop-day", str(day), *place)
    assert (refused.code, "--yes" in refused.stderr) == (3, True)
    done = mp_here("drop-day", str(day), "--yes", *place)
    assert done.code == 0
    assert json.loads(done.stdout)["row_count"] == rows > 0
    assert f"Removed {day} of events: {rows:,} rows" in done.stderr
    assert "`mp sync` without days does not load it again" in done.stderr
    for file in (own_database, copy_path(own_database)):
        with duckdb.connect(file, read_only=True) as connection:
            left = connection.execute("SELECT min(event_date) FROM mixpanel.events").fetchone()
            assert left[0] is None or left[0] > day
    assert mp_here("drop-day", str(day), "--yes", *place).code == 4


def test_a_config_file_that_is_refused_is_not_passed_over(mp_here, tmp_path):
    """It names the project, and so the database; MP_DATABASE makes it superfluous."""
    config = tmp_path / "config.toml"
    config.write_text("")
    config.chmod(0o644)
    home = {"MP_CONFIG_PATH": str(config), "HOME": str(tmp_path)}
    done = mp_here("tables", **home, MP_DATABASE="", MP_PROJECT_ID="", MP_USERNAME="", MP_SECRET="")
    assert done.code == 1
    assert "chmod 600" in done.stderr
    done = mp_here("tables", **home)
    assert done.code == 4
    assert "There is no database" in done.stderr


@pytest.mark.parametrize("text", ["", "  ", ";", "/* nothing */"])
def test_no_statement_at_all_is_told(text, ask):
    """DuckDB itself prints nothing."""
    done = ask("sql", text)
    assert done.code == 3
    assert "there is none in it" in done.stderr


@pytest.mark.parametrize(
    "query",
    [
        "COPY (SELECT 1) TO '{folder}/out.csv'",
        "EXPORT DATABASE '{folder}/out'",
        "ATTACH '{folder}/out.duckdb'",
        "FROM read_text('{folder}/secret.txt')",
        "SET enable_external_access = true",
    ],
)
def test_a_query_reads_and_writes_no_other_file(query, ask, tmp_path):
    """Exit code 3, and nothing lies in the folder afterwards."""
    (tmp_path / "secret.txt").write_text("secret-77e")
    before = {path.name for path in tmp_path.iterdir()}
    done = ask("sql", query.format(folder=tmp_path))
    assert done.code == 3
    assert "secret-77e" not in done.stdout + done.stderr
    assert {path.name for path in tmp_path.iterdir()} - before <= {"state"}
    assert "COPY" not in query or "--format csv" in done.stderr


@pytest.mark.parametrize("query", ["DROP TABLE mixpanel.events", "CREATE TABLE mine AS SELECT 1"])
def test_a_query_changes_nothing_and_says_what_does(query, ask):
    """The command that drops tables is named."""
    done = ask("sql", query)
    assert done.code == 3
    assert "mp drop" in done.stderr


NAMED = [
    ("inspect schema", ("events",), ("-t", "events")),
    ("schema", ("events",), ("-t", "events")),
    ("inspect breakdown", ("events",), ("-t", "events")),
    ("inspect summarize", ("profiles",), ("-t", "profiles")),
    ("inspect keys", ("profiles",), ("-t", "profiles")),
    ("inspect column", ("events", "event_name"), ("-t", "events", "-c", "event_name")),
    ("inspect distribution", ("Sign Up", "plan", *WEEK), ("-e", "Sign Up", "-p", "plan", *WEEK)),
    (
        "inspect numeric",
        ("Order Completed", *WEEK, "amount"),
        ("-e", "Order Completed", "-p", "amount", *WEEK),
    ),
    ("inspect coverage", ("Sign Up", "-p", "plan", *WEEK), ("-e", "Sign Up", "-p", "plan", *WEEK)),
]


@pytest.mark.parametrize(("command", "arguments", "options"), NAMED, ids=[n for n, _, _ in NAMED])
def test_a_name_may_stand_without_its_option(command, arguments, options, ask):
    """Of a table, an event, a property, a column: in the order of the options."""
    by_argument = ask(*command.split(), *arguments)
    assert by_argument.code == 0, by_argument.stderr
    assert by_argument.stdout == ask(*command.split(), *options).stdout


def test_a_sample_is_asked_by_name(ask):
    """As it is typed first."""
    assert len(json.loads(ask("inspect", "sample", "events", "-n", "2").stdout)) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("inspect", "sample", "events", "-t", "profiles"), "The table is given twice"),
        (("inspect", "distribution", "a", "b", "-e", "c", *WEEK), "The event is given twice"),
        (("inspect", "sample"), "Missing option '--table'"),
        (("inspect", "sample", "events", "profiles"), "unexpected extra argument"),
    ],
)
def test_a_name_is_given_once(arguments, said, ask):
    """Two of them are refused, and none is."""
    refused = ask(*arguments)
    assert refused.code == 3
    assert said in refused.stderr


def test_tables_are_dropped_by_name(mp_here, tmp_path):
    """Several at once."""
    database = ("--database", str(tmp_path / "own.duckdb"))
    with StorageEngine(tmp_path / "own.duckdb") as storage:
        metadata = TableMetadata("profiles", datetime(2024, 1, 1, tzinfo=UTC))
        for name in ("one", "two"):
            storage.create_profiles_table(name, [], metadata)
    done = mp_here("drop", "one", "two", "--force", *database)
    assert json.loads(done.stdout) == ["one", "two"]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("mp inspect sample -t ", ["events", "profiles"]),
        ("mp inspect sample ev", ["events"]),
        ("mp inspect daily --table p", ["profiles"]),
        ("mp -a s", ["shop"]),
        ("mp inspect info --account ", ["market", "shop"]),
        ("mp inspect sample -t nothing", []),
    ],
)
def test_names_are_completed(words, found, database, mp):
    """Names of stored tables and of accounts are completed; no secret is read out."""
    for name in ("shop", "market"):
        ConfigManager().add_account(name, "user", "some-secret", "1", "us")
    asked = {
        "_MP_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    done = mp(**asked, MP_DATABASE=str(database), MP_USERNAME="", MP_SECRET="")
    assert sorted(done.stdout.split()) == found
    assert not mp(**asked, MP_DATABASE="/nowhere").stderr
