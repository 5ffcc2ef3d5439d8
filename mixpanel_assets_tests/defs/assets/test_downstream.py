"""What assets of one's own get when they depend on those of the package, in real runs."""

import json
import logging
import shutil
from datetime import date, datetime, timedelta

import dagster as dg
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from mixpanel_assets import Workspace, filtered_events_asset
from mixpanel_assets.client import make_credentials
from mixpanel_assets.defs.location import build_definitions
from mixpanel_assets.emulator import Fault
from mixpanel_assets.settings import Settings
from mixpanel_assets_tests.defs.assets.conftest import EVENTS, PROFILES
from mixpanel_assets_tests.laws import siblings

DAY = "2024-01-07"
DAILY = dg.DailyPartitionsDefinition("2024-01-01", end_offset=1)
LAST_WEEK = dg.TimeWindowPartitionMapping(start_offset=-6, end_offset=0)
KINDS = pytest.mark.parametrize("kind", siblings([pd.DataFrame, pl.DataFrame, pa.Table], keep=2))
COLUMNS = [
    *("event_name", "event_time", "distinct_id", "insert_id"),
    *("properties", "event_date", "processed_at", "time_raw"),
]


class Downstream:
    """An asset that keeps what it is given, and runs of it beside the package's own."""

    def __init__(self, settings, resource, instance):
        self.instance = instance
        self.of_the_package = build_definitions(
            settings=settings, resources={"mixpanel": resource}, checks=False, jobs=False
        )
        self.seen = None
        self.warnings = []

    def run(self, key, day, *, kind=pd.DataFrame, daily=True, others=(), **options):
        """Return the result of a run of an asset that reads what `key` has for a day."""

        def consume(rows):
            self.seen = rows

        consume.__annotations__ = {"rows": kind, "return": None}
        asset = dg.asset(
            consume,
            key=["shop", "consume"],
            ins={"rows": dg.AssetIn(key, **options)},
            partitions_def=DAILY if daily else None,
        )
        definitions = dg.Definitions.merge(
            self.of_the_package,
            dg.Definitions(assets=[asset, *others]),
        )
        self.seen = None
        result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
            asset_selection=[asset.key],
            partition_key=day if daily else None,
            instance=self.instance,
            raise_on_error=False,
        )
        logs = self.instance.all_logs(result.run_id)
        self.warnings = [e.user_message for e in logs if e.level == logging.WARNING]
        return result

    def read(self, key, day, **options):
        """Return what the asset was given."""
        assert self.run(key, day, **options).success
        return self.seen

    def failure(self, key, day, **options):
        """Return the one sentence that the run ends with."""
        result = self.run(key, day, **options)
        [event] = [event for event in result.all_events if event.is_step_failure]
        return event.step_failure_data.error.message


@pytest.fixture
def downstream(settings, resource, instance):
    return Downstream(settings, resource, instance)


@pytest.fixture(scope="module")
def stored_week(shared_emulator, tmp_path_factory):
    """A file with a week of events."""
    place = tmp_path_factory.mktemp("week") / "warehouse.duckdb"
    credentials = make_credentials(
        username=shared_emulator.username, secret=shared_emulator.secret, project_id="12345"
    )
    settings = Settings(api_base_url=shared_emulator.base_url, database=place)
    with Workspace(credentials=credentials, settings=settings) as workspace:
        workspace.sync_events(date(2024, 1, 1), date(2024, 1, 7))
    return place


@pytest.fixture
def week(settings, stored_week):
    """A week of events is stored."""
    shutil.copy(stored_week, settings.database)


def counted(database, condition="true"):
    query = f"SELECT event_date, count(*) FROM mixpanel.events WHERE {condition} GROUP BY ALL"
    with database.read() as connection:
        return dict(connection.execute(query).fetchall())


def days_in(rows):
    column = rows["event_date"]
    days = column.to_list() if isinstance(column, pl.Series | pd.Series) else column.to_pylist()
    return sorted({day.date() if isinstance(day, datetime) else day for day in days})


@KINDS
def test_a_daily_asset_gets_its_day(kind, downstream, week, database):
    """The asset gets one day with all columns in the type of its argument, without a warning."""
    rows = downstream.read(EVENTS, "2024-01-03", kind=kind)
    assert isinstance(rows, kind)
    assert list(rows.schema.names if kind is pa.Table else rows.columns) == COLUMNS
    assert len(rows) == counted(database)[date(2024, 1, 3)]
    assert days_in(rows) == [date(2024, 1, 3)]
    assert downstream.warnings == []


@KINDS
def test_a_window_of_a_week_has_seven_days(kind, downstream, week, database):
    """From six days before up to the day itself, both included."""
    rows = downstream.read(EVENTS, DAY, kind=kind, partition_mapping=LAST_WEEK)
    assert days_in(rows) == [date(2024, 1, day) for day in range(1, 8)]
    assert len(rows) == sum(counted(database).values())
    assert downstream.warnings == []


def test_a_window_ends_at_the_first_partition(downstream, week):
    """Days before MP_START_DATE have no partition and are not reported as a gap."""
    mapping = dg.TimeWindowPartitionMapping(
        start_offset=-6, end_offset=0, allow_nonexistent_upstream_partitions=True
    )
    rows = downstream.read(EVENTS, "2024-01-02", partition_mapping=mapping)
    assert days_in(rows) == [date(2024, 1, 1), date(2024, 1, 2)]
    assert downstream.warnings == []


def test_a_window_wholly_before_the_first_partition_is_empty(downstream, week):
    """The day before the first: no row, the columns of events."""
    mapping = dg.TimeWindowPartitionMapping(
        start_offset=-1, end_offset=-1, allow_nonexistent_upstream_partitions=True
    )
    rows = downstream.read(EVENTS, "2024-01-01", partition_mapping=mapping)
    assert (len(rows), list(rows.columns)) == (0, COLUMNS)


def test_an_asset_without_partitions_gets_everything(downstream, week, database):
    """All stored days, and a warning that names those that are not."""
    rows = downstream.read(EVENTS, None, daily=False)
    assert len(rows) == sum(counted(database).values())
    [said] = downstream.warnings
    assert "2024-01-08.." in said


@KINDS
def test_only_the_columns_asked_for_are_loaded(kind, downstream, week):
    """The columns have the order of the metadata."""
    columns = ["event_date", "event_name"]
    rows = downstream.read(EVENTS, DAY, kind=kind, metadata={"columns": columns})
    assert list(rows.schema.names if kind is pa.Table else rows.columns) == columns


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"columns": ["event_name", "country"]}, "has no column 'country'; it has event_name"),
        ({"columns": "event_name"}, "a list of names"),
        ({"incomplete_days": "ignore"}, "`warn` or `fail`"),
    ],
)
def test_metadata_that_cannot_be_followed_is_refused(metadata, said, downstream, week):
    """In one sentence that says what there is."""
    assert said in downstream.failure(EVENTS, DAY, metadata=metadata)


def test_days_that_were_never_loaded_are_warned_of(downstream, materialize, database):
    """The table is there, three days of the window are not: the log names them."""
    materialize(EVENTS, "2024-01-01", "2024-01-03")
    materialize(EVENTS, DAY)
    rows = downstream.read(EVENTS, DAY, partition_mapping=LAST_WEEK)
    assert len(rows) == sum(counted(database).values())
    [said] = downstream.warnings
    assert "2024-01-04..2024-01-06 never loaded" in said
    assert "Materialize these partitions of `mixpanel/events`" in said


def test_days_that_were_never_loaded_fail_an_asset_that_needs_them(downstream, materialize):
    """With `incomplete_days` set to `fail` the run ends and nothing is handed over."""
    materialize(EVENTS, "2024-01-01", "2024-01-03")
    wanted = {"incomplete_days": "fail"}
    said = downstream.failure(EVENTS, "2024-01-07", partition_mapping=LAST_WEEK, metadata=wanted)
    assert "2024-01-04..2024-01-07 never loaded" in said
    assert downstream.seen is None
    assert len(downstream.read(EVENTS, "2024-01-03", metadata=wanted)) > 0


@pytest.mark.slow
def test_a_day_that_is_not_whole_says_why(downstream, materialize, settings, emulator):
    """A day that was not over when loaded, and one that the plan does not reach back to."""
    today = settings.today()
    text = "Date range exceeds 1 days into the past"
    emulator.faults.add(Fault("403-history", day=date(2024, 1, 1), times=None, text=text))
    materialize(EVENTS, "2024-01-01")
    materialize(EVENTS, today.isoformat())
    downstream.read(EVENTS, today.isoformat())
    assert f"{today} loaded before its end" in downstream.warnings[0]
    downstream.read(EVENTS, "2024-01-01")
    assert "2024-01-01 beyond the reach of the project's plan" in downstream.warnings[0]


@KINDS
def test_an_empty_day_has_the_types_of_a_full_one(kind, downstream, materialize, week):
    """Zero rows, and the same columns with the same types; an empty day is no gap."""
    materialize(EVENTS, "2024-02-20")
    full = downstream.read(EVENTS, DAY, kind=kind)
    empty = downstream.read(EVENTS, "2024-02-20", kind=kind)
    assert (len(full) > 0, len(empty)) == (True, 0)
    assert downstream.warnings == []
    if kind is pd.DataFrame:
        full = full.dropna()
        assert empty.dtypes.to_dict() == full.dtypes.to_dict()
    else:
        assert empty.schema == full.schema


def test_times_are_utc_without_a_zone(downstream, week, database):
    """The same moment in all three, in microseconds; `time_raw` is a whole number."""
    with database.read() as connection:
        query = "SELECT event_time, time_raw, properties FROM mixpanel.events WHERE event_date = ?"
        stored = sorted(connection.execute(query, [date(2024, 1, 3)]).fetchall(), key=str)
    frame, table, polar = (
        downstream.read(EVENTS, "2024-01-03", kind=kind)
        for kind in (pd.DataFrame, pa.Table, pl.DataFrame)
    )
    assert str(frame["event_time"].dtype) == "datetime64[us]"
    assert frame["time_raw"].dtype == "int64"
    assert table.schema.field("event_time").type == pa.timestamp("us")
    assert polar.schema["event_time"] == pl.Datetime("us")
    assert str(frame["event_date"].dtype).startswith("datetime64")
    assert (table.schema.field("event_date").type, polar.schema["event_date"]) == (
        pa.date32(),
        pl.Date,
    )
    for rows in (frame.to_dict("records"), table.to_pylist(), polar.to_dicts()):
        found = [(row["event_time"], row["time_raw"], row["properties"]) for row in rows]
        found = [(moment.replace(tzinfo=None), *others) for moment, *others in found]
        plain = [(datetime.fromisoformat(str(moment)), *others) for moment, *others in found]
        assert sorted(plain, key=str) == stored
    milliseconds = timedelta(milliseconds=1)
    epoch = datetime(1970, 1, 1)
    assert all((moment - epoch) // milliseconds == raw for moment, raw, _ in stored)


@KINDS
def test_properties_are_the_text_that_is_stored(kind, downstream, week, database):
    """JSON, for readers of numbers beyond 2^53 as they were sent."""
    rows = downstream.read(EVENTS, DAY, kind=kind, metadata={"columns": ["properties"]})
    column = rows["properties"]
    texts = column.to_pylist() if kind is pa.Table else column.to_list()
    assert all(type(text) is str and isinstance(json.loads(text), dict) for text in texts)
    with database.read() as connection:
        stored = connection.execute(
            "SELECT properties::VARCHAR FROM mixpanel.events WHERE event_date = ?", [DAY]
        ).fetchall()
    assert sorted(texts) == sorted(text for (text,) in stored)
    numbers = [n for text in texts for n in json.loads(text).values() if type(n) is int]
    assert max(numbers) > 2**53


@KINDS
def test_profiles_are_an_input_like_events(kind, downstream, materialize, settings, emulator):
    """Today's snapshot, whole; another day of it is warned of."""
    today = settings.today().isoformat()
    assert materialize(PROFILES, today).success
    rows = downstream.read(PROFILES, today, kind=kind)
    assert len(rows) == len(list(emulator.truth.profiles()))
    assert downstream.warnings == []
    assert len(downstream.read(PROFILES, "2024-01-03", kind=kind)) == 0
    assert "2024-01-03 never loaded" in downstream.warnings[0]


def test_a_filtered_table_is_an_input_like_events(downstream, settings, resource, instance, week):
    """Its own ledger rows say which days it lacks, not those of events."""
    asset = filtered_events_asset("views", events=["Page View"], settings=settings)
    definitions = dg.Definitions.merge(
        build_definitions(settings=settings, resources={"mixpanel": resource}),
        dg.Definitions(assets=[asset]),
    )
    job = definitions.resolve_implicit_global_asset_job_def()
    job.execute_in_process(
        asset_selection=[asset.key], partition_key="2024-01-03", instance=instance
    )
    rows = downstream.read(
        asset.key,
        "2024-01-04",
        others=[asset],
        partition_mapping=dg.TimeWindowPartitionMapping(start_offset=-1),
    )
    assert set(rows["event_name"]) == {"Page View"}
    [said] = downstream.warnings
    assert "2024-01-04 never loaded" in said
    assert "`mixpanel/views`" in said


@KINDS
def test_nothing_stored_at_all_ends_in_one_sentence(kind, downstream, materialize, database):
    """No file, or no table in it: what to materialize, and what else it may be."""
    said = downstream.failure(EVENTS, DAY, kind=kind, partition_mapping=LAST_WEEK)
    assert "Materialize `mixpanel/events`, partitions 2024-01-01...2024-01-07 first" in said
    assert "MP_DATABASE" in said
    assert not database.path.exists()
    with database.write() as connection:
        connection.execute("CREATE TABLE other (a INTEGER)")
    assert "Materialize `mixpanel/events`, partition 2024-01-07" in downstream.failure(
        EVENTS, DAY, kind=kind
    )
