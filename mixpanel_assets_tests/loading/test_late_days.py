"""Late events: Mixpanel's own counts say which days are loaded again."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from random import Random

import pytest

from mixpanel_assets import Workspace
from mixpanel_assets.client import make_credentials
from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets.loading.events import request_plan
from mixpanel_assets.loading.late_days import LateDays, find_late_days, with_days_between
from mixpanel_assets.rules.days import days_between
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import EventSizes, event_sizes

_DAY = timedelta(days=1)
FIRST = date(2024, 3, 1)
SWEEP_DAYS = 10


@dataclass
class Calendar:
    """A project whose days pass one by one, with a copy that is loaded each morning."""

    emulator: Emulator
    folder: Path
    extra: dict[str, str] = field(default_factory=dict)
    days_read: int = 0
    sizes: EventSizes = field(default_factory=lambda: EventSizes({}, {}))
    workspace: Workspace = field(init=False)

    @contextmanager
    def opened(self) -> Iterator[None]:
        credentials = make_credentials(
            username=self.emulator.username,
            secret=self.emulator.secret,
            project_id=str(self.emulator.project_id),
        )
        settings = Settings(
            api_base_url=self.emulator.base_url,
            database=self.folder / "w.duckdb",
            state_dir=str(self.folder / "state"),
            max_retries=0,
            snapshot="off",
            **self.extra,  # type: ignore[arg-type]
        )
        with Workspace(credentials=credentials, settings=settings) as self.workspace:
            yield

    def close(self, first: date, last: date) -> None:
        """Load days on the morning after the last one."""
        morning = datetime.combine(last + _DAY, time(6), UTC)
        self.emulator.clock.set(morning)
        self._load(days_between(first, last))

    def sweep(self, day: date) -> LateDays:
        """Load what has moved, as the sensor does."""
        first = max(FIRST, day - (SWEEP_DAYS - 1) * _DAY)
        late = find_late_days(
            self.workspace.api,
            self.workspace.settings,
            self.workspace._database,
            sweep=days_between(first, day),
            last=day,
        )
        if late.days:
            self._load(late.days)
        return late

    def _load(self, days: object) -> None:
        self.days_read += len(days)  # type: ignore[arg-type]
        self.workspace.sync_events(days=days)  # type: ignore[arg-type]

    def exports(self) -> int:
        return sum(one.path == "/api/2.0/export" for one in self.emulator.requests)

    def check(self, last: date) -> None:
        """The table has every event of Mixpanel, and no other."""
        with self.workspace._database.read() as connection:
            found = connection.execute(
                "SELECT event_date, event_name, count(*), count(DISTINCT insert_id) "
                "FROM mixpanel.events GROUP BY ALL"
            ).fetchall()
        stored = Counter({(day, event): count for day, event, count, _ in found})
        truth = Counter(
            {
                (day, event): count
                for day in days_between(FIRST, last)
                for event, count in self.emulator.truth.count_by_event(day).items()
            }
        )
        assert stored == truth


@pytest.fixture
def calendar(tmp_path: Path) -> Iterator[Calendar]:
    settings = EmulatorSettings(
        start=FIRST, days=90, events_per_day=25, odd_content=False, profiles=5
    )
    with Emulator(settings) as emulator:
        calendar = Calendar(emulator, tmp_path)
        with calendar.opened():
            yield calendar


def run(calendar: Calendar, days: int, arrivals: dict[int, list[int]]) -> tuple[int, int]:
    """Let days pass, and return the days and requests of a daily sweep of ten days.

    `arrivals` are, by the number of a day, the numbers of the days whose late events arrive then.
    """
    swept_days = swept_requests = 0
    for number in range(days):
        day = FIRST + number * _DAY
        calendar.close(day, day)
        for late in arrivals.get(number, []):
            calendar.emulator.faults.add(
                Fault("late-events", day=FIRST + late * _DAY, count=3 + number % 5)
            )
        calendar.sweep(day)
        calendar.check(day)
        sweep = days_between(max(FIRST, day - (SWEEP_DAYS - 1) * _DAY), day)
        with calendar.workspace._database.read() as connection:
            sizes = event_sizes(connection)
        swept_days += len(sweep)
        # The sweep of the same morning, beside the load of yesterday.
        swept_requests += 1 + len(list(request_plan(sweep, sizes, None)))
    return swept_days, swept_requests


def arrivals_of(offline: int, days: int, seed: int) -> dict[int, list[int]]:
    """Return when the events of some offline days arrive, up to 12 days later, in two parts."""
    random = Random(seed)
    arrivals: dict[int, list[int]] = {}
    for day in random.sample(range(days - 13), offline):
        for _ in range(2):
            arrivals.setdefault(day + random.randint(1, 12), []).append(day)
    return arrivals


def test_only_days_with_late_events_are_loaded_again(calendar):
    """After each morning, the table is what Mixpanel has; most days are read once."""
    swept_days, swept_requests = run(calendar, 7, {3: [1], 6: [5, 2]})
    assert calendar.days_read < 7 + 7
    assert calendar.exports() <= swept_requests < swept_days


@pytest.mark.slow
def test_sixty_days_cost_a_quarter_of_the_days_of_a_sweep(calendar, capsys):
    """A client was offline on ten of them and sends up to twelve days later."""
    swept_days, swept_requests = run(calendar, 60, arrivals_of(10, 60, seed=1))
    with capsys.disabled():
        print(
            f"\n60 days, 10 with late events: {calendar.days_read} days read instead of "
            f"{swept_days}, {calendar.exports()} export requests instead of {swept_requests}"
        )
    assert calendar.days_read * 4 <= swept_days
    assert calendar.exports() <= swept_requests


def test_late_events_on_every_day_make_it_the_fixed_sweep(calendar):
    """It says so, and costs the requests of the sweep."""
    last = FIRST + 9 * _DAY
    calendar.close(FIRST, last)
    assert not calendar.sweep(last).days
    for number in range(10):
        calendar.emulator.faults.add(Fault("late-events", day=FIRST + number * _DAY, count=2))
    before = calendar.exports()
    late = calendar.sweep(last)
    assert late.is_sweep
    assert late.message == (
        "Late events have arrived for 10 of 10 days (2024-03-01..2024-03-10), so all of them are "
        "loaded again."
    )
    assert calendar.exports() - before == 1
    calendar.check(last)
    assert not calendar.sweep(last).days


def test_without_counts_it_is_the_fixed_sweep_too(calendar):
    """The reason is in the message, and the key is the same all day."""
    last = FIRST + 2 * _DAY
    calendar.close(FIRST, last)
    for kind in ("402-json", "drop-connection", "429-bare"):
        calendar.emulator.faults.add(Fault(kind, path="/api/query/events*", times=None))
        late = calendar.sweep(last)
        assert late.is_sweep
        assert late.days == tuple(days_between(FIRST, last))
        assert late.message.startswith(
            "Loading 3 days (2024-03-01..2024-03-03) again, whatever has changed. "
        )
        calendar.emulator.faults.clear()


def test_a_difference_is_loaded_once_and_has_one_key(calendar):
    """A wrong number that no load explains costs one; if it moves, one more."""
    last = FIRST + 2 * _DAY
    calendar.close(FIRST, last)
    assert not calendar.sweep(last).days
    for extra in (2, 1):
        calendar.emulator.faults.add(Fault("wrong-count", day=FIRST + _DAY, count=extra))
        keys = {
            find_late_days(
                calendar.workspace.api,
                calendar.workspace.settings,
                calendar.workspace._database,
                sweep=[],
                last=last,
            ).key
            for _ in range(2)
        }
        late = calendar.sweep(last)
        assert keys == {late.key}
        assert late.moved == (FIRST + _DAY,)
        assert not calendar.sweep(last).days


def test_days_between_are_read_if_that_saves_a_request():
    """The fixed sweep is one request, so late days far from each other are one, too."""
    settings = Settings()
    days = [FIRST, FIRST + 2 * _DAY, FIRST + 9 * _DAY]
    sweep = days_between(FIRST, FIRST + 9 * _DAY)
    small = EventSizes({}, dict.fromkeys(sweep, 1000))
    assert with_days_between(days, sweep, small, settings) == sweep
    large = EventSizes({}, dict.fromkeys(sweep, 100_000_000))  # each has a request of its own
    assert with_days_between(days, sweep, large, settings) == days
    assert with_days_between([], sweep, small, settings) == []


def test_a_first_load_cut_between_two_lines_is_repaired_by_the_next_sync(tmp_path):
    """Nothing in the response showed it; the day alone is loaded again, once."""
    today = datetime.now(UTC).date()
    settings = EmulatorSettings(start=today - 9 * _DAY, events_per_day=25, profiles=5)
    with Emulator(settings) as emulator:
        calendar = Calendar(emulator, tmp_path)
        with calendar.opened():
            workspace, cut = calendar.workspace, today - 4 * _DAY
            emulator.faults.add(Fault("missing-rows", day=cut, count=6))
            [report] = workspace.sync_events(cut, cut)
            assert report.status == "complete"
            assert report.row_count < emulator.truth.count(cut)
            workspace.sync_events(days=[today - 3 * _DAY, today - 2 * _DAY, today - _DAY])
            found = workspace.days_to_sync()
            assert found.moved == (cut,)
            workspace.sync_events(days=found.days)
            assert workspace.days_to_sync().moved == ()
            stored = workspace.sql_scalar(
                f"SELECT count(*) FROM mixpanel.events WHERE event_date = '{cut}'"
            )
            assert stored == emulator.truth.count(cut) - len(emulator.truth.unstorable(cut))


def test_a_complete_day_is_not_loaded_for_what_the_current_day_lacks(tmp_path):
    """West of UTC, the last day of the project's calendar ends within the current export day."""
    today = datetime.now(UTC).date()
    zone = "Pacific/Honolulu"
    settings = EmulatorSettings(start=today - 6 * _DAY, events_per_day=25, profiles=5, zone=zone)
    with Emulator(settings) as emulator:
        calendar = Calendar(emulator, tmp_path, {"time_zone": zone})
        with calendar.opened():
            workspace = calendar.workspace
            workspace.sync_events(today - 5 * _DAY, today)
            yesterday = workspace.settings.project_today() - _DAY
            emulator.faults.add(Fault("wrong-count", day=yesterday, count=3))
            found = workspace.verify(yesterday, yesterday)
            assert found.by_class()["pending"] == 1
            assert today not in found.days_to_load
            assert len(found.days_to_load) <= (yesterday < today - _DAY) * 2


@pytest.mark.parametrize("is_set", [True, False])
def test_days_that_have_not_ended_in_the_projects_zone_are_not_compared(tmp_path, is_set):
    """Whether MP_TIME_ZONE is set or only the loads had it: in California, 9 March goes on."""
    last, now = FIRST + 8 * _DAY, datetime(2024, 3, 10, 2, tzinfo=UTC)
    zone = "America/Los_Angeles"
    settings = EmulatorSettings(start=FIRST, days=9, events_per_day=5, zone=zone, profiles=3)
    with Emulator(settings) as emulator:
        calendar = Calendar(emulator, tmp_path)
        with calendar.opened():
            workspace = calendar.workspace
            plain = workspace.settings
            workspace.settings = in_zone = plain.model_copy(update={"time_zone": zone})
            in_zone.model_fields_set.add("time_zone")
            for first, compared in ((last, None), (last - _DAY, last - _DAY)):
                workspace.sync_events(first, last)
                late = find_late_days(
                    workspace.api,
                    in_zone if is_set else plain,
                    workspace._database,
                    sweep=[last],
                    last=last,
                    now=now,
                )
                assert not late.days
                assert str(compared or "No day of the last month") in late.message


def test_a_sync_loads_what_is_missing_and_what_has_moved(tmp_path):
    """Days that may still receive late events are kept while no event has arrived for them."""
    today = datetime.now(UTC).date()
    settings = EmulatorSettings(start=today - 9 * _DAY, events_per_day=25, profiles=5)
    with Emulator(settings) as emulator:
        calendar = Calendar(emulator, tmp_path)
        with calendar.opened():
            workspace = calendar.workspace
            workspace.sync_events(today - 8 * _DAY, today - 2 * _DAY)
            assert workspace.days_to_sync().days == (today - _DAY, today)
            moved = today - 3 * _DAY
            emulator.faults.add(Fault("late-events", day=moved, count=2))
            emulator.faults.add(Fault("delete-rows", day=today - 4 * _DAY, count=2))
            found = workspace.days_to_sync()
            assert found.moved == (moved,)
            # With the day between, it is one request.
            assert found.days == tuple(days_between(moved, today))
            emulator.faults.add(Fault("402-json", path="/api/query/events*", times=None))
            found = workspace.days_to_sync()
            assert found.is_sweep
            assert list(found.days) == workspace.days_due().days
