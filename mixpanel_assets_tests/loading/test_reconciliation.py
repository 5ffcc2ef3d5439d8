"""Stored counts beside Mixpanel's own: each cause of a difference is named, alone and mixed."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from mixpanel_assets import Workspace
from mixpanel_assets.client import make_credentials
from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets.errors import ConfigError, DatabaseNotFoundError
from mixpanel_assets.loading.checks import NOT_ENDED, check_reconciled
from mixpanel_assets.loading.day_checks import CheckThresholds
from mixpanel_assets.loading.late_days import find_late_days
from mixpanel_assets.loading.reconciliation import Reconciliation, reconcile
from mixpanel_assets.rules.days import days_between
from mixpanel_assets.settings import Settings
from mixpanel_assets_tests.laws import siblings

# The clocks of Los Angeles went forward on 10 March.
FIRST, LAST = date(2024, 3, 7), date(2024, 3, 14)
WITHIN = (date(2024, 3, 8), date(2024, 3, 13))
DAY = date(2024, 3, 10)
_DAY = timedelta(days=1)
NOW = datetime(2024, 3, 16, 12, tzinfo=UTC)  # of Mixpanel, which lists names of the last 31 days
PROJECTS = siblings(
    [
        "utc Asia/Kolkata",
        "legacy America/Los_Angeles",
        "utc UTC",
        "utc America/Los_Angeles",
        "legacy Asia/Kolkata",
        "legacy UTC",
    ],
    keep=1,
)


@dataclass
class Site:
    """A loaded copy of an emulated project."""

    emulator: Emulator
    folder: Path
    extra: dict[str, object] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        project = self.emulator.settings
        return Settings(
            api_base_url=self.emulator.base_url,
            max_retries=0,
            **{
                "database": self.folder / "w.duckdb",
                "time_regime": project.regime,
                "time_zone": project.zone,
                **self.extra,
            },
        )

    @contextmanager
    def workspace(self, workspace_id: int | None = None) -> Iterator[Workspace]:
        credentials = make_credentials(
            username=self.emulator.username,
            secret=self.emulator.secret,
            project_id=str(self.emulator.project_id),
        )
        with Workspace(
            credentials=credentials, settings=self.settings, workspace_id=workspace_id
        ) as workspace:
            yield workspace

    def load(self, first: date = FIRST, last: date = LAST, **options: object) -> None:
        with self.workspace() as workspace:
            workspace.sync_events(first, last, **options)

    def compare(
        self, first: date = WITHIN[0], last: date = WITHIN[1], **options: object
    ) -> Reconciliation:
        with self.workspace() as workspace:
            return reconcile(
                workspace.api,
                self.settings,
                workspace._database,
                from_date=first,
                to_date=last,
                **options,
            )

    def day_of(self, hour: int) -> date:
        """The project's day of an hour of the export day."""
        project = self.emulator.settings
        if project.regime == "legacy":
            return DAY
        moment = datetime(DAY.year, DAY.month, DAY.day, hour, tzinfo=UTC)
        return moment.astimezone(ZoneInfo(project.zone)).date()

    def lie(self, kind: str, **options: object) -> None:
        self.emulator.faults.add(Fault(kind, **options))  # type: ignore[arg-type]


LATE_HOUR, NOON_HOUR = 1, 10  # when late rows begin, and forwarded and repeated ones


@pytest.fixture(
    scope="module", params=PROJECTS, ids=lambda one: one if isinstance(one, str) else None
)
def loaded(request, tmp_path_factory) -> Iterator[Site]:
    regime, zone = request.param.split()
    settings = EmulatorSettings(
        start=FIRST, days=8, events_per_day=60, regime=regime, zone=zone, now=lambda: NOW
    )
    with Emulator(settings) as emulator:
        site = Site(emulator, tmp_path_factory.mktemp("loaded"))
        site.load()
        yield site


@pytest.fixture
def site(loaded: Site, tmp_path: Path) -> Iterator[Site]:
    """A copy of the loaded file; the emulator tells no lies before and after."""
    (tmp_path / "w.duckdb").write_bytes((loaded.folder / "w.duckdb").read_bytes())
    yield Site(loaded.emulator, tmp_path)
    loaded.emulator.faults.clear()
    loaded.emulator.name_limit = None
    loaded.emulator.retention_days = None


def told(found: Reconciliation) -> dict[tuple[date, str], str]:
    return {(one.day, one.event): one.cls for one in found.differences}


def test_equal_counts_are_equal_in_few_requests(site):
    """Also of events with odd names, and whatever data view the client has."""
    before = len(site.emulator.requests)
    with site.workspace(workspace_id=3001) as workspace:
        found = reconcile(
            workspace.api,
            site.settings,
            workspace._database,
            from_date=WITHIN[0],
            to_date=WITHIN[1],
        )
    assert found.message == "Every stored count of 6 days is the one that Mixpanel reports."
    assert not found.days_to_load
    sent = site.emulator.requests[before:]
    assert [one.path for one in sent if "/schemas" not in one.path] == [
        "/api/query/events/names",
        "/api/query/events",
    ]
    assert not any("workspace_id" in one.params for one in sent)
    assert sum(one.stored for one in found.counts) > 200


def test_late_events_are_pending_until_they_are_loaded(site):
    """One load is due for a difference, and none once it has come."""
    assert not told(site.compare())
    site.lie("late-events", day=DAY, count=3)
    day = site.day_of(LATE_HOUR)
    for _ in range(2):
        found = site.compare()
        assert told(found) == {(day, "Page View"): "pending"}
        assert DAY in found.days_to_load
    site.load(found.days_to_load[0], found.days_to_load[-1])
    assert not told(site.compare())


def test_events_that_reports_alone_count_are_loaded_for_once(site):
    """What the export does not bring is unexplained from then on, and loaded no second time."""
    site.compare()
    site.lie("late-release", day=DAY, count=3, skip=1)
    day = site.day_of(LATE_HOUR)
    found = site.compare()
    assert told(found) == {(day, "Page View"): "pending"}
    site.load(found.days_to_load[0], found.days_to_load[-1])
    found = site.compare()
    assert told(found) == {(day, "Page View"): "unexplained"}
    assert not found.days_to_load
    site.load(DAY, DAY)  # the export sends them now
    assert not told(site.compare())


def test_a_first_load_cut_between_two_lines_is_found_and_repaired(site):
    """Nothing in the response shows it, and the day was never compared before."""
    with site.workspace() as workspace:
        workspace.drop_day(DAY)
    site.lie("missing-rows", day=DAY, count=5)
    site.load(DAY, DAY)
    found = site.compare()
    assert {one.cls for one in found.differences} == {"unexplained"}
    assert found.unexplained_rows() == 5
    assert DAY in found.days_to_load
    site.load(found.days_to_load[0], found.days_to_load[-1])
    assert not told(site.compare())


def test_a_cut_load_of_a_small_project_is_not_taken_for_another_calendar(tmp_path):
    """Among a hundred shifts of the calendar, one fits a few events by chance."""
    settings = EmulatorSettings(
        start=FIRST, days=8, events_per_day=5, odd_content=False, profiles=3, now=lambda: NOW
    )
    with Emulator(settings) as emulator:
        site = Site(emulator, tmp_path)
        for day in days_between(*WITHIN):
            site.lie("missing-rows", day=day, count=2)
        with site.workspace() as workspace:
            for day in days_between(FIRST, LAST):
                workspace.sync_events(day, day)
        found = site.compare()
        assert {one.cls for one in found.differences} == {"unexplained"}
        assert set(found.days_to_load) >= set(days_between(*WITHIN)[1:])


def test_forwarded_and_repeated_rows_are_recognized_by_what_is_stored(site):
    """Also if another event of the day was late, and no load is due for them."""
    day = site.day_of(NOON_HOUR)
    site.lie("forwarded-rows", day=DAY, count=4, text="Sent Abroad")
    site.lie("forwarded-rows", day=DAY, count=2)
    site.lie("repeated-rows", day=DAY, count=3, text="Repeated")
    site.load(DAY, DAY)
    found = site.compare()
    expected = {
        (day, "Sent Abroad"): "forwarded",
        (day, "Page View"): "forwarded",
        (day, "Repeated"): "repeats",
    }
    assert told(found) == expected
    assert not found.days_to_load
    # As many late ones make the counts equal, but the number has risen.
    site.lie("late-events", day=DAY, count=2, seconds=40_000, text="Sent Abroad")
    for _ in range(2):
        found = site.compare()
        if site.day_of(LATE_HOUR) == day:
            assert told(found) == expected | {(day, "Sent Abroad"): "pending"}
        assert DAY in found.days_to_load
    site.load(found.days_to_load[0], found.days_to_load[-1])
    assert told(site.compare()) == expected


def test_hidden_events_are_named_by_the_data_dictionary(site):
    """Whether reports count them or not; then they are shown again."""
    site.lie("hidden-event", text="Search")
    found = site.compare()
    assert {one.cls for one in found.differences} == {"hidden"}
    assert {one.event for one in found.differences} == {"Search"}
    assert not found.days_to_load
    site.emulator.faults.clear()
    assert not told(site.compare())


def test_deleted_events_are_those_that_reports_counted_or_the_export_sent(site):
    """Mixpanel deletes at once from reports, and later from the export; the rows are kept."""
    site.compare()
    site.lie("deleted-events", day=DAY, count=2, text="Product Viewed")
    for _ in range(2):
        found = site.compare()
        assert told(found) == {(DAY, "Product Viewed"): "deleted"}
        assert not found.days_to_load
    site.lie("delete-rows", day=DAY, count=3)
    found = site.compare()
    assert {one.cls for one in found.differences} == {"deleted"}
    site.load(DAY, DAY)
    found = site.compare()
    assert {one.cls for one in found.differences} == {"deleted"}
    assert any("does not send" in (one.reason or "") for one in found.differences)
    assert not found.days_to_load


def test_deleted_events_that_the_export_still_sends_after_a_month_are_unexplained(site):
    """A deletion takes at most 30 days."""
    site.compare(now=datetime.now(UTC) - 32 * _DAY)
    site.lie("deleted-events", day=DAY, count=2, text="Product Viewed")
    assert told(site.compare(now=datetime.now(UTC) - 31 * _DAY)) == {
        (DAY, "Product Viewed"): "deleted"
    }
    site.load(DAY - _DAY, DAY + _DAY)
    assert told(site.compare()) == {(DAY, "Product Viewed"): "unexplained"}


def test_lines_in_the_quarantine_are_counted_by_name(site):
    """Reports count them; the table cannot hold them."""
    site.lie("surrogate-rows", day=DAY, count=1)
    site.load(DAY, DAY)
    found = site.compare()
    assert told(found) == {(site.day_of(12), "Bad Row"): "quarantined"}
    assert not found.days_to_load


def test_names_beyond_the_limit_are_named(site):
    """Mixpanel lists and counts only the most common ones."""
    site.emulator.name_limit = 3
    assert {one.cls for one in site.compare().differences} == {"unexplained"}
    found = site.compare(name_limit=3)
    assert {one.cls for one in found.differences} == {"name limit"}
    assert not found.days_to_load


def test_days_that_mixpanel_has_deleted_are_expired(site):
    """By MP_RETENTION_DAYS, or because reports count nothing of old days."""
    site.emulator.retention_days = (NOW.date() - DAY).days
    found = site.compare()
    old = {one.day for one in found.counts if one.day < DAY - _DAY}
    assert {one.day for one in found.differences} >= old
    assert {one.cls for one in found.differences if one.day in old} == {"expired"}
    site.extra["retention_days"] = (datetime.now(UTC).date() - DAY).days
    found = site.compare()
    assert {one.cls for one in found.differences if one.day in old} == {"expired"}
    assert not set(found.days_to_load) & old


def test_wrong_counts_are_unexplained_and_loaded_for_once(site):
    """Too many are looked for in the export; of too few the table has more than Mixpanel."""
    site.lie("wrong-count", day=DAY + _DAY, count=7, text="Added To Cart")
    site.lie("wrong-count", day=DAY - _DAY, count=-1, text="Page View")
    expected = {
        (DAY + _DAY, "Added To Cart"): "unexplained",
        (DAY - _DAY, "Page View"): "unexplained",
    }
    found = site.compare()
    assert told(found) == expected
    assert DAY + _DAY in found.days_to_load
    assert found.unexplained_rows() == 8
    site.load(found.days_to_load[0], found.days_to_load[-1])
    found = site.compare()
    assert told(found) == expected
    assert not found.days_to_load


def test_events_that_were_missing_stay_unexplained_if_the_number_rises(site):
    """One more late event does not explain the others; a load is due for it."""
    site.lie("wrong-count", day=DAY, count=7)
    to_load = site.compare().days_to_load
    site.load(to_load[0], to_load[-1])
    for due in ((), (DAY,)):
        found = site.compare()
        assert told(found) == {(DAY, "Page View"): "unexplained"}
        assert (DAY in found.days_to_load) == (DAY in due)
        site.lie("wrong-count", day=DAY, count=1)


def test_days_that_are_not_stored_or_in_part_are_said(site):
    """In another zone than UTC, the first and the last day of the calendar are stored in part."""
    with site.workspace() as workspace:
        workspace.drop_day(DAY)
    found = site.compare()
    classes = {one.cls for one in found.differences}
    is_shifted = len({site.day_of(0), site.day_of(23)}) > 1
    assert classes == ({"zone edge"} if is_shifted else {"not loaded"})
    assert not found.days_to_load


def test_all_causes_together(site):
    """Each keeps its name beside the others."""
    day = site.day_of(NOON_HOUR)
    site.lie("forwarded-rows", day=DAY, count=4, text="Sent Abroad")
    site.lie("repeated-rows", day=DAY, count=3, text="Repeated")
    site.lie("surrogate-rows", day=DAY, count=1)
    site.load(DAY, DAY)
    site.compare()
    site.lie("late-events", day=DAY, count=5, text="Late")
    site.lie("hidden-event", text="Search")
    site.lie("deleted-events", day=DAY, count=2, text="Product Viewed")
    site.lie("wrong-count", day=DAY + 2 * _DAY, count=1, text="Heartbeat")
    found = site.compare()
    expected = {
        (day, "Sent Abroad"): "forwarded",
        (day, "Repeated"): "repeats",
        (site.day_of(12), "Bad Row"): "quarantined",
        (site.day_of(LATE_HOUR), "Late"): "pending",
        (DAY, "Product Viewed"): "deleted",
        (DAY + 2 * _DAY, "Heartbeat"): "pending",
    }
    shown = {cell: cls for cell, cls in told(found).items() if cls != "hidden"}
    assert shown == expected
    assert found.by_class()["hidden"] >= 3
    site.load(found.days_to_load[0], found.days_to_load[-1])
    found = site.compare()
    del expected[site.day_of(LATE_HOUR), "Late"]
    expected[DAY + 2 * _DAY, "Heartbeat"] = "unexplained"
    assert {cell: cls for cell, cls in told(found).items() if cls != "hidden"} == expected
    assert not found.days_to_load


def test_merged_and_custom_events_are_in_reports_alone(tmp_path):
    """Their names are known from then on, also for a single day."""
    settings = EmulatorSettings(
        start=FIRST,
        days=8,
        events_per_day=60,
        custom_events={"Any Cart": ("Added To Cart", "Order Completed")},
        merged_events={"Search": "Look Up"},
        now=lambda: NOW,
    )
    with Emulator(settings) as emulator:
        site = Site(emulator, tmp_path)
        site.load()
        found = site.compare()
        assert {one.event for one in found.differences} == {"Any Cart", "Search", "Look Up"}
        assert {one.cls for one in found.differences if one.event != "Any Cart"} == {"hidden"}
        [to_load] = found.days_to_load  # one day shows that no export has the event
        site.load(to_load, to_load)
        assert {one.cls for one in site.compare().differences} == {"hidden"}
        found = site.compare(to_load, to_load)
        assert {one.cls for one in found.differences} == {"hidden"}
        assert not found.days_to_load


def test_a_hidden_event_does_not_explain_as_many_missing_ones(site):
    """It is not taken for an event that reports count under another name."""
    for day in (DAY - _DAY, DAY):
        rows = [one for one in site.compare(day, day).counts if one.event == "Search"]
        site.lie("wrong-count", day=day, count=rows[0].stored, text="Page View")
    site.lie("hidden-event", text="Search")
    found = site.compare(DAY - _DAY, DAY)
    assert {one.cls for one in found.differences if one.event == "Search"} == {"hidden"}
    missing = [one for one in found.differences if one.event == "Page View"]
    assert [one.cls for one in missing] == ["pending", "pending"]
    assert DAY in found.days_to_load


def test_names_that_reports_use_otherwise_are_not_compared(tmp_path):
    """Their counts would be those of computed sessions and custom events. All others are equal."""
    computed = {"$session_start", "$all_events", "$custom_event:1"}
    odd = [
        "x" * 255,
        "a,b",
        'q"u',
        "[/b]",
        "\x01",
        "\n",
        "e\u0301",
        "\u00e9",
        "case",
        "Case",
        "Case ",
    ]
    odd += ["%41", "a&b=c", "#", "+", "\U0001f600" * 255, "null", "\\", "\u2028"]
    settings = EmulatorSettings(start=FIRST, days=8, events_per_day=5, odd_content=False)
    with Emulator(settings) as emulator:
        site = Site(emulator, tmp_path)
        for name in (*computed, *odd):
            site.lie("late-events", day=DAY, count=2, text=name)
        site.load()
        for _ in range(2):
            found = site.compare()
            assert {one.event for one in found.counts} >= {*odd}
            assert told(found) == {(DAY, name): "hidden" for name in computed}


def test_a_check_compares_no_day_that_has_not_ended_in_the_stored_zone(tmp_path):
    """Without MP_TIME_ZONE, the zone is that of the loads: in California, 9 March goes on."""
    zone = "America/Los_Angeles"
    settings = EmulatorSettings(start=FIRST, days=8, events_per_day=5, zone=zone)
    with Emulator(settings) as emulator:
        site = Site(emulator, tmp_path)
        site.load()
        plain = Settings(
            api_base_url=emulator.base_url, database=tmp_path / "w.duckdb", max_retries=0
        )
        days = [DAY - 2 * _DAY, DAY - _DAY]
        with site.workspace() as workspace:
            outcomes, found = check_reconciled(
                workspace.api,
                plain,
                workspace._database,
                days=days,
                thresholds=CheckThresholds(),
                asset="events",
                now=datetime(2024, 3, 10, 2, tzinfo=UTC),
            )
    assert found is not None
    assert (found.from_date, found.to_date) == (days[0], days[0])
    assert outcomes[1].detail == NOT_ENDED


def test_a_calendar_that_is_not_the_projects_is_named(tmp_path):
    """The settings say another zone than the project has."""
    settings = EmulatorSettings(start=FIRST, days=8, events_per_day=300, zone="Asia/Kolkata")
    with Emulator(settings) as emulator:
        site = Site(emulator, tmp_path, {"time_zone": "UTC"})
        site.load()
        found = site.compare()
        with site.workspace() as workspace:
            late = find_late_days(
                workspace.api, site.settings, workspace._database, sweep=[DAY], last=WITHIN[1]
            )
    assert late.is_sweep  # late events would not show
    assert late.message.endswith("Compare MP_TIME_ZONE with the project's time zone.")
    assert {one.cls for one in found.differences} == {"zone edge"}
    assert "5.5 hours" in (found.differences[0].reason or "")
    assert not found.days_to_load


@pytest.mark.slow
def test_a_lake_is_compared_as_a_file_is(tmp_path, lake):
    """With evidence of every kind, in another zone than UTC."""
    settings = EmulatorSettings(
        start=FIRST, days=8, events_per_day=60, zone="Asia/Kolkata", now=lambda: NOW
    )
    with Emulator(settings) as emulator:
        spool = {"spool_dir": tmp_path / "spool", "state_dir": str(tmp_path / "state")}
        site = Site(emulator, tmp_path, {"database": lake, "data_path": lake.data_path, **spool})
        site.lie("forwarded-rows", day=DAY, count=4, text="Sent Abroad")
        site.lie("repeated-rows", day=DAY, count=3, text="Repeated")
        site.lie("surrogate-rows", day=DAY, count=1)
        site.load()
        site.compare()
        site.lie("late-events", day=DAY, count=5)
        site.lie("delete-rows", day=DAY, count=2)
        site.lie("hidden-event", text="Search")
        site.lie("wrong-count", day=DAY + _DAY, count=-1, text="Added To Cart")
        found = site.compare()
        assert DAY in found.days_to_load
        site.load(found.days_to_load[0], found.days_to_load[-1])
        classes = set(site.compare().by_class())
    named = {"forwarded", "repeats", "quarantined", "deleted", "hidden"}
    assert classes - {"equal"} == named


def test_without_the_query_api_nothing_is_compared(site):
    """It is said why, and what is stored stays as it was."""
    for kind in ("402-json", "403-json", "403-history", "401-json"):
        site.lie(kind, path="/api/query/events*")
        found = site.compare()
        assert found.unavailable
        assert found.message.startswith("Nothing was compared. Mixpanel's own counts are not")
        assert not found.counts
        site.emulator.faults.clear()


DAYS_ASKED = [str(day) for day in days_between(*WITHIN)]


@pytest.mark.parametrize(
    ("series", "counts"),
    [
        ([], {}),
        (["2024-03-01"], {}),
        (DAYS_ASKED[:3], {}),
        (DAYS_ASKED[:2] + DAYS_ASKED[4:], {}),
        (["2023-03-07", *DAYS_ASKED], {}),
        (["yesterday"], {}),
        (DAYS_ASKED, {"2024-03-10": -1}),
        (DAYS_ASKED, {"2024-03-10": 1.5}),
        (DAYS_ASKED, {"2024-03-10": 2**63}),
        (DAYS_ASKED, {"2024-03-10": "7"}),
        (DAYS_ASKED, {"2024-03-10": None}),
        (DAYS_ASKED, {"10 March": 7}),
    ],
)
def test_an_answer_that_is_no_count_of_the_requested_days_compares_nothing(site, series, counts):
    """Missing days would look as if Mixpanel had deleted them."""
    answer = {"data": {"series": series, "values": {"Page View": counts}}}
    site.lie("html-200", path="/api/query/events", text=json.dumps(answer))
    found = site.compare()
    assert (found.unavailable or "").startswith("Mixpanel's own counts are not available: ")
    assert not found.counts


def test_without_the_data_dictionary_hidden_events_are_not_known(site):
    """The comparison goes on."""
    site.lie("403-json", path="/api/app/*", times=None)
    assert not told(site.compare())


def test_what_cannot_be_compared_is_refused(site, tmp_path):
    """A day that has not ended, a range that ends before it begins, and no database."""
    today = datetime.now(UTC).date() + _DAY
    with pytest.raises(ConfigError, match="has not ended"):
        site.compare(DAY, today)
    with pytest.raises(ConfigError, match="is after"):
        site.compare(DAY, DAY - _DAY)
    with pytest.raises(DatabaseNotFoundError):
        Site(site.emulator, tmp_path / "none").compare()
