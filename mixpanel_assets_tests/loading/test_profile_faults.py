"""Whatever breaks while pages come: the snapshot is exact, or it says which pages it lacks."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_assets import ParallelProfileFetcherService
from mixpanel_assets.client import MixpanelAPIClient, RetryPolicy, make_credentials
from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets.errors import IncompleteExportError, MixpanelDataError
from mixpanel_assets.loading.profiles import begin_snapshot, complete_snapshot, snapshot_requests
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import Database
from mixpanel_assets_tests.conftest import PLENTY
from mixpanel_assets_tests.laws import examples

ENGAGE = "/api/query/engage"
DAY = date(2024, 1, 3)
PROJECT = str(EmulatorSettings().project_id)
ROWS = """
    SELECT distinct_id, properties, strftime(last_seen, '%Y-%m-%dT%H:%M:%S')
    FROM mixpanel.profiles WHERE snapshot_date = ?"""
LEDGER = """
    SELECT status, failed_pages, expected_total
    FROM mixpanel._days WHERE table_name = 'profiles'"""

BREAKS = [
    *("500-json", "503-empty", "html-200", "empty-200", "error-200", "400-timeout"),
    *("timeout", "reset", "drop-connection", "cut-gzip"),
    *("cut-json", "short-page", "missing-page", "no-total"),
]
ENDS = "session-expired"
LIES = "total-changes"
WAITS = "429-window"  # a 429 that never ends is waited for, so it has to end

People = dict[str, tuple[Any, str | None]]
Stored = tuple[People, tuple[str, list[int], int] | None]


@dataclass(frozen=True)
class Project:
    """How many profiles there are, and how they are sent."""

    profiles: int
    page_size: int
    as_numbers: bool

    def settings(self) -> EmulatorSettings:
        return EmulatorSettings(
            days=3,
            profiles=self.profiles,
            page_size=self.page_size,
            numeric_ids_as_numbers=self.as_numbers,
        )


@st.composite
def projects(draw: st.DrawFn) -> Project:
    page_size = draw(st.integers(1, 9))
    full_pages = st.integers(0, 5).map(lambda pages: pages * page_size)
    profiles = draw(st.one_of(full_pages, st.integers(0, 40)))
    return Project(profiles, page_size, draw(st.booleans()))


def faults(kinds: Sequence[str], max_size: int = 6) -> st.SearchStrategy[list[Fault]]:
    some_page = st.one_of(st.none(), st.integers(0, 8))
    breaks = st.builds(
        Fault,
        st.sampled_from(kinds),
        path=st.just(ENGAGE),
        page=some_page,
        times=st.sampled_from([1, 1, 2, 3, 5, None]),
        skip=st.sampled_from([0, 0, 1, 3]),
        count=st.sampled_from([-25, -12, -5, -1, 1, 5, 12, 25]),
        at=st.sampled_from([None, None, 0, 1]),
        seconds=st.just(0.01),
    )
    waits = st.builds(
        Fault,
        st.just(WAITS),
        path=st.just(ENGAGE),
        page=some_page,
        times=st.integers(1, 3),
        seconds=st.just(0.01),
    )
    return st.lists(st.one_of(breaks, breaks, waits), max_size=max_size)


def late_pages() -> st.SearchStrategy[list[Fault]]:
    """Pages that come late, so that they finish in any order."""
    return st.dictionaries(st.integers(1, 8), st.sampled_from([0.0, 0.01, 0.03]), max_size=5).map(
        lambda delays: [
            Fault("slow-first-byte", path=ENGAGE, page=page, seconds=seconds)
            for page, seconds in delays.items()
        ]
    )


def truth(emulator: Emulator) -> list[tuple[str, tuple[Any, str | None]]]:
    """The profiles in the order of the pages: id, then properties and the moment last seen."""
    found = []
    for profile in emulator.truth.profiles():
        properties = dict(profile["$properties"] or {})
        seen = properties.pop("$last_seen", None)
        found.append((profile["$distinct_id"], (properties, seen)))
    return found


@dataclass(frozen=True)
class Taker:
    """Takes snapshots of a project into a file of its own."""

    client: MixpanelAPIClient
    settings: Settings

    @property
    def pages(self) -> list[Path]:
        return list(self.settings.spool_path(PROJECT).glob("profiles-*"))

    def take(self, workers: int) -> MixpanelDataError | None:
        """Take the snapshot of all profiles; return what was raised."""
        database = Database(self.settings.database_path(PROJECT))
        service = ParallelProfileFetcherService(self.client, database, self.settings)
        try:
            service.sync_profiles(
                DAY, scope="all", overwrite_full_snapshot=True, max_workers=workers
            )
        except MixpanelDataError as error:
            return error
        return None

    def stored(self) -> Stored:
        """What the file holds of the day: its rows, and status, failed pages, total."""
        path = self.settings.database_path(PROJECT)
        if not path.exists():
            return {}, None
        with duckdb.connect(path, read_only=True) as connection:
            rows = connection.execute(ROWS, [DAY]).fetchall()
            [day] = connection.execute(LEDGER).fetchall()
        people = {name: (json.loads(properties), seen) for name, properties, seen in rows}
        assert len(people) == len(rows)
        return people, day


@contextmanager
def taker_of(emulator: Emulator, folder: Path) -> Iterator[Taker]:
    credentials = make_credentials(
        username=emulator.username, secret=emulator.secret, project_id=PROJECT
    )
    settings = Settings(api_base_url=emulator.base_url, database=folder / "w.duckdb")
    with MixpanelAPIClient(
        credentials,
        api_base_url=emulator.base_url,
        retries=RetryPolicy(max_retries=1, first_wait_seconds=0.001),
        budget=PLENTY,
    ) as client:
        yield Taker(client, settings)


def check(
    error: MixpanelDataError | None, taker: Taker, emulator: Emulator, before: Stored
) -> None:
    """The law: exact, or in part with every missing page named, or as before."""
    everybody, page_size = truth(emulator), emulator.settings.page_size
    rows, day = taker.stored()
    if error is None:
        assert rows == dict(everybody)
        assert day == ("complete" if everybody else "empty", [], len(everybody))
        assert not taker.pages
    elif isinstance(error, IncompleteExportError) and error.partial:
        status, failed, total = day
        assert status == "partial"
        announced = range(max(1, -(-total // page_size)))
        assert set(failed) < set(announced)
        came = [
            profile
            for place, profile in enumerate(everybody)
            if place // page_size in announced and place // page_size not in failed
        ]
        assert rows == before[0] | dict(came)
        assert failed
        assert str(failed[0]) in error.message
    else:
        assert (rows, day) == before


def pages_asked(emulator: Emulator, since: int) -> list[int]:
    return [int(request.params.get("page", 0)) for request in emulator.requests[since:]]


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with a snapshot of the day: some of its people are gone now, others changed."""
    folder = tmp_path_factory.mktemp("earlier")
    with (
        Emulator(EmulatorSettings(days=2, profiles=17, page_size=10)) as emulator,
        taker_of(emulator, folder) as taker,
    ):
        assert taker.take(1) is None
    return folder / "w.duckdb"


LAW = examples(3)


@contextmanager
def example(project: Project, loaded: Path | None) -> Iterator[tuple[Emulator, Taker]]:
    with tempfile.TemporaryDirectory() as name, Emulator(project.settings()) as emulator:
        folder = Path(name)
        if loaded:
            shutil.copy(loaded, folder)
        with taker_of(emulator, folder) as taker:
            yield emulator, taker


@LAW
@given(
    project=projects(),
    workers=st.integers(1, 5),
    loaded=st.booleans(),
    late=late_pages(),
    sequence=faults([*BREAKS, ENDS, LIES]),
)
def test_a_snapshot_is_exact_or_says_what_it_lacks(
    earlier, project, workers, loaded, late, sequence
):
    """Through any faults; and once they are gone, the next try is exact."""
    with example(project, earlier if loaded else None) as (emulator, taker):
        before = taker.stored()
        emulator.faults.add(*sequence, *late)
        check(taker.take(workers), taker, emulator, before)
        emulator.faults.clear()
        assert taker.take(workers) is None
        check(None, taker, emulator, before)


@LAW
@given(
    project=projects(),
    workers=st.integers(1, 5),
    loaded=st.booleans(),
    sequence=faults(BREAKS),
)
def test_the_next_try_asks_only_for_what_is_missing(earlier, project, workers, loaded, sequence):
    """Each of the pages that the ledger names once, and no other one."""
    with example(project, earlier if loaded else None) as (emulator, taker):
        emulator.faults.add(*sequence)
        error = taker.take(workers)
        emulator.faults.clear()
        _, day = taker.stored()
        asked = len(emulator.requests)
        assert taker.take(workers) is None
        if isinstance(error, IncompleteExportError) and error.partial:
            assert sorted(pages_asked(emulator, asked)) == day[1]


@pytest.mark.slow
@LAW
@given(
    project=projects(),
    loaded=st.booleans(),
    late=late_pages(),
    sequence=st.lists(
        st.builds(
            Fault,
            st.sampled_from([*BREAKS, LIES]),
            path=st.just(ENGAGE),
            page=st.integers(0, 8),
            times=st.just(None),
            count=st.sampled_from([-12, -5, 5, 12]),
            seconds=st.just(0.01),
        ),
        max_size=4,
        unique_by=lambda fault: fault.page,
    ),
)
def test_five_workers_store_what_one_does(earlier, project, loaded, late, sequence):
    """The same rows, the same failed pages, whichever comes first."""
    ends = []
    for workers in (1, 5):
        with example(project, earlier if loaded else None) as (emulator, taker):
            emulator.faults.add(*late, *sequence)
            error = taker.take(workers)
            ends.append((taker.stored(), type(error)))
    assert ends[0] == ends[1]


def test_a_total_that_was_wrong_is_not_believed_for_ever(earlier):
    """The first attempt names the missing pages; the second one starts a new session."""
    with example(Project(profiles=35, page_size=10, as_numbers=False), earlier) as (
        emulator,
        taker,
    ):
        emulator.faults.add(Fault("total-changes", path=ENGAGE, page=0, count=25))
        error = taker.take(5)
        assert "3 pages could not be fetched: 3, 4, 5" in error.message
        assert taker.take(5) is None
        assert taker.stored()[0] == dict(truth(emulator))


def test_pages_of_two_sessions_are_never_mixed(tmp_path):
    """If another run deleted page 0, all pages are requested again in a new session."""
    settings = EmulatorSettings(days=3, profiles=35, page_size=10)
    with Emulator(settings) as emulator, taker_of(emulator, tmp_path) as taker:
        [request] = snapshot_requests([DAY], DAY, scope="all")
        snapshot = begin_snapshot(taker.client, request, tmp_path)
        snapshot.plan.take_over().discard()
        with snapshot.plan.in_use():
            taker.client.fetch_profile_pages(request.query, snapshot.plan, [1, 2, 3])
        asked = len(emulator.requests)
        done = complete_snapshot(taker.client, snapshot, lambda: DAY)
        assert sorted(pages_asked(emulator, asked)) == [0, 1, 2, 3]
        assert not done.failed
        assert [done.plan.directory] == list(tmp_path.glob("profiles-*"))
