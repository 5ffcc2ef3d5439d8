"""Projects from before 2023: `time` is the zone's wall clock, days are the zone's days."""

import re
from datetime import UTC, date, timedelta

import pytest

from mixpanel_assets import Workspace
from mixpanel_assets.client import make_credentials
from mixpanel_assets.emulator import Emulator, EmulatorSettings
from mixpanel_assets.settings import Settings
from mixpanel_assets_tests.laws import siblings

# The days on which clocks change, each between a day before and one after.
CHANGES = [
    ("US/Pacific", date(2024, 11, 3)),
    ("Australia/Lord_Howe", date(2024, 10, 6)),  # by half an hour
    ("Antarctica/Casey", date(2023, 3, 9)),  # by three
    ("US/Pacific", date(2024, 3, 10)),
    ("Europe/Berlin", date(2024, 10, 27)),
    ("Australia/Lord_Howe", date(2024, 4, 7)),
    ("Antarctica/Troll", date(2024, 10, 27)),  # by two
]
FIRST, LAST = date(2024, 1, 1), date(2024, 1, 5)
ROWS = "SELECT * FROM events ORDER BY ALL"


@pytest.fixture
def legacy(tmp_path):
    """Open a workspace on an emulator of an old project; both are closed at the end."""
    opened = []

    def workspace(name="one", days_per_request=None, regime="legacy", **options):
        zone = options.pop("zone", "US/Pacific")
        emulator = Emulator(EmulatorSettings(regime=regime, zone=zone, **options)).start()
        opened.append(emulator)
        settings = Settings(
            api_base_url=emulator.base_url,
            database=tmp_path / f"{name}.duckdb",
            time_regime="legacy",
            time_zone=zone,
            days_per_request=days_per_request,
        )
        credentials = make_credentials(
            username=emulator.username, secret=emulator.secret, project_id="12345"
        )
        return Workspace(credentials=credentials, settings=settings), emulator

    yield workspace
    for emulator in opened:
        emulator.stop()


def exports(emulator):
    return [entry.days for entry in emulator.requests if entry.path == "/api/2.0/export"]


@pytest.mark.parametrize(("zone", "day"), siblings(CHANGES, keep=2))
@pytest.mark.parametrize("regime", ["legacy", "utc"])
def test_event_time_is_true_utc_when_clocks_change(regime, zone, day, tmp_path):
    """`event_time` is when Mixpanel's servers got the event, in both regimes and every zone."""
    options = EmulatorSettings(
        regime=regime, zone=zone, start=day - timedelta(days=1), days=3, exact_events=500
    )
    with Emulator(options) as emulator:
        settings = Settings(
            api_base_url=emulator.base_url,
            database=tmp_path / "warehouse.duckdb",
            time_regime=regime,
            time_zone=zone,
            days_per_request=3,
        )
        credentials = make_credentials(
            username=emulator.username, secret=emulator.secret, project_id="12345"
        )
        with Workspace(credentials=credentials, settings=settings) as workspace:
            workspace.sync_events(day - timedelta(days=1), day + timedelta(days=1))
            rows = workspace.sql_rows(
                "SELECT event_time, (properties ->> '$.\"$mp_api_timestamp_ms\"')::BIGINT "
                "FROM events WHERE properties ->> '$.\"$import\"' IS NULL"
            )
        late = [
            event_time
            for event_time, received in rows
            if not 0 <= received - event_time.replace(tzinfo=UTC).timestamp() * 1000 < 60_000
        ]
    assert len(rows) > 100
    assert late == []


@pytest.mark.slow
def test_packed_single_and_mixed_loads_give_one_table(legacy):
    """Across a zone change, how days were packed into requests leaves no trace in the rows."""
    shop = {"start": FIRST, "days": 5, "shifted_rows": 3}
    packed, asked_packed = legacy("packed", 5, **shop)
    single, _ = legacy("single", 1, **shop)
    mixed, _ = legacy("mixed", 5, **shop)
    with packed, single, mixed:
        packed.sync_events(FIRST, LAST)
        single.sync_events(FIRST, LAST)
        mixed.sync_events(FIRST, LAST)
        mixed.settings = mixed.settings.model_copy(update={"days_per_request": 1})
        mixed.sync_events(FIRST + timedelta(days=1), LAST)
        rows = packed.sql_rows(ROWS)
        assert len(rows) > 1000
        assert rows == single.sql_rows(ROWS) == mixed.sql_rows(ROWS)
        shifted = packed.sql_rows("SELECT shifted_rows FROM mixpanel._days")
    assert all(count > 0 for (count,) in shifted)
    assert [len(days) for days in exports(asked_packed)] == [5, 1, 1, 1, 1, 1]


def test_a_project_with_shifted_rows_is_read_day_by_day_from_then_on(legacy):
    """One packed response is discarded, once and for all: the next load requests single days."""
    workspace, emulator = legacy(days_per_request=5, start=FIRST, days=5, shifted_rows=2)
    with workspace:
        workspace.sync_events(FIRST, LAST)
        before = len(exports(emulator))
        workspace.sync_events(FIRST, LAST)
    assert [len(days) for days in exports(emulator)[before:]] == [1, 1, 1, 1, 1]
    assert not list((workspace.db_path.parent / "spool").iterdir())


def test_an_old_project_without_a_zone_change_shares_requests(legacy):
    """`legacy` alone costs no request more."""
    workspace, emulator = legacy(days_per_request=5, start=FIRST, days=5)
    with workspace:
        workspace.sync_events(FIRST, LAST)
    assert [len(days) for days in exports(emulator)] == [5]


def test_rows_belong_to_the_day_they_were_exported_for(legacy):
    """Counts per `event_date` equal what each day's export holds, shifted rows included."""
    workspace, emulator = legacy(start=FIRST, days=5, shifted_rows=3)
    with workspace:
        reports = workspace.sync_events(FIRST, LAST)
        truth = emulator.truth
    assert [report.row_count for report in reports] == [
        truth.count(report.day) - len(truth.unstorable(report.day)) for report in reports
    ]


@pytest.mark.parametrize(
    ("sent", "zone", "regime", "said"),
    siblings(
        [
            ("legacy", "US/Pacific", "utc", "-480 minutes ahead of UTC.*MP_TIME_REGIME=legacy"),
            ("legacy", "Asia/Kolkata", "utc", r"\+330 minutes ahead of UTC"),
            ("utc", "US/Pacific", "legacy", "true UTC.*MP_TIME_REGIME=utc"),
            ("utc", "US/Pacific", "utc", None),
            ("legacy", "US/Pacific", "legacy", None),
        ],
        keep=2,
    ),
)
def test_a_wrong_time_setting_is_told(sent, zone, regime, said, legacy, caplog):
    """What the events say against the settings is in the log and in the day's report."""
    workspace, _ = legacy(regime=sent, zone=zone, start=FIRST, days=2)
    workspace.settings = workspace.settings.model_copy(update={"time_regime": regime})
    with workspace:
        reports = workspace.sync_events(FIRST, FIRST + timedelta(days=1))
    if said is None:
        assert {report.time_warning for report in reports} == {None}
        assert "MP_TIME_REGIME" not in caplog.text
    else:
        assert all(re.search(said, report.time_warning) for report in reports)
        assert caplog.text.count(reports[0].time_warning) == 1
