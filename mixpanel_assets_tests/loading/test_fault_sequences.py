"""Any sequence of faults gives exactly the truth, or an error and what was there before."""

import tempfile
from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_assets import Workspace
from mixpanel_assets.client import make_credentials
from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets.errors import MixpanelDataError
from mixpanel_assets.settings import Settings
from mixpanel_assets_tests.laws import examples

START = date(2024, 1, 1)
DAYS = [START + timedelta(days=offset) for offset in range(3)]
KINDS = [
    *("truncate-own-line", "truncate-mid-record", "truncate-whole-body", "junk-line"),
    *("error-object-in-stream", "cut-body", "cut-gzip", "cut-chunk", "reset", "html-200"),
    *("500-json", "503-empty", "400-timeout", "429-window", "401-json", "402-json"),
]
# These look whole. A second response shows that days are missing; only a day that was stored
# before shows that rows are.
SEEN_AT_ONCE = ["empty-200", "missing-days"]
UNSEEN_AT_FIRST = ["empty-200", "missing-rows"]


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator(EmulatorSettings(days=3, events_per_day=40)) as emulator:
        yield emulator


def faults(kinds: list[str]) -> st.SearchStrategy[list[Fault]]:
    one = st.builds(
        Fault,
        st.sampled_from(kinds),
        path=st.just("/api/2.0/export"),
        day=st.sampled_from([None, *DAYS]),
        times=st.sampled_from([1, 1, 2, 3]),
        skip=st.integers(0, 2),
        seconds=st.just(0.01),
    )
    return st.lists(one, max_size=5)


def stored(workspace: Workspace, day: date) -> Counter[str]:
    rows = workspace.sql_rows(f"SELECT event_name FROM events WHERE event_date = DATE '{day}'")
    return Counter(name for (name,) in rows)


def check(emulator: Emulator, sequence: list[Fault], per_request: int, *, loaded: bool) -> None:
    emulator.faults.clear()
    credentials = make_credentials(
        username=emulator.username, secret=emulator.secret, project_id=str(emulator.project_id)
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        Workspace(
            credentials=credentials,
            settings=Settings(
                api_base_url=emulator.base_url,
                database=Path(folder) / "w.duckdb",
                days_per_request=per_request,
                max_retries=1,
                state_dir=":memory:",
            ),
        ) as workspace,
    ):
        if loaded:
            workspace.sync_events(DAYS[0], DAYS[-1])
        emulator.faults.add(*sequence)
        failed = False
        try:
            workspace.sync_events(DAYS[0], DAYS[-1])
        except MixpanelDataError:
            failed = True
        for day in DAYS:
            now = stored(workspace, day)
            untouched = failed and not loaded and not now
            assert untouched or now == Counter(emulator.truth.count_by_event(day))
    emulator.faults.clear()


@examples(2)
@given(
    sequence=faults(KINDS),
    unseen=st.sampled_from([None, *SEEN_AT_ONCE]),
    day=st.sampled_from(DAYS),
    per_request=st.sampled_from([1, 2, 3]),
)
def test_a_first_load_is_the_truth_or_says_that_it_is_not(
    emulator, sequence, unseen, day, per_request
):
    """Each day holds exactly Mixpanel's events, or nothing and the load failed."""
    hidden = [Fault(unseen, path="/api/2.0/export", day=day)] if unseen else []
    check(emulator, [*hidden, *sequence], per_request, loaded=False)


@examples(2)
@given(
    sequence=faults(KINDS),
    unseen=st.sampled_from([None, *UNSEEN_AT_FIRST]),
    per_request=st.sampled_from([1, 2, 3]),
)
def test_a_day_that_is_stored_stays_true_through_any_faults(
    emulator, sequence, unseen, per_request
):
    """A second load changes nothing for the worse, whatever happens to it."""
    hidden = [Fault(unseen, path="/api/2.0/export")] if unseen else []
    check(emulator, [*hidden, *sequence], per_request, loaded=True)
