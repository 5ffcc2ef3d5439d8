"""Responses that are downloaded ahead: none is requested that a failure makes useless."""

import time
from datetime import date

import pytest

from mixpanel_assets.client import MixpanelAPIClient, RetryPolicy
from mixpanel_assets.emulator import Fault
from mixpanel_assets.errors import ServerError
from mixpanel_assets_tests.conftest import PLENTY

DAYS = [date(2024, 1, number) for number in range(1, 6)]
WINDOWS = [(day, day) for day in DAYS]
EXPORT = "/api/2.0/export"
A_WHILE = 0.3  # in which an answer comes, and its reader may be busy


@pytest.fixture
def export(emulator, credentials, tmp_path):
    with MixpanelAPIClient(
        credentials,
        api_base_url=emulator.base_url,
        retries=RetryPolicy(max_retries=0),
        budget=PLENTY,
    ) as client:
        yield client.event_export(
            from_date=DAYS[0], to_date=DAYS[-1], directory=tmp_path, at_once=1
        )


@pytest.fixture
def asked(emulator):
    """Return the days of each export request since the test began."""
    before = len(emulator.requests)
    return lambda: [e.days[0] for e in emulator.requests[before:] if e.path == EXPORT]


def test_the_next_answer_comes_while_one_is_in_use(export, asked):
    """One ahead, in the order of the days."""
    with export:
        for window in export.ahead(WINDOWS):
            export.download(*window).discard()
            upto = DAYS[: DAYS.index(window[0]) + 2]
            while len(asked()) < len(upto):
                time.sleep(0.01)
            time.sleep(A_WHILE)
            assert asked() == upto


@pytest.mark.parametrize("broken", [0, 2])
def test_nothing_is_asked_after_a_failure_until_it_was_looked_at(export, asked, emulator, broken):
    """No request after the failed one is sent, not even one that was held back."""
    emulator.faults.add(Fault("500-json", path=EXPORT, day=DAYS[broken]))
    with export:
        for window in export.ahead(WINDOWS):
            time.sleep(A_WHILE)
            if window == WINDOWS[broken]:
                break
            export.download(*window).discard()
        with pytest.raises(ServerError):
            export.download(*WINDOWS[broken])
    assert asked() == DAYS[: broken + 1]


@pytest.mark.slow
def test_a_load_that_goes_on_after_a_failure_asks_for_each_once(export, asked, emulator):
    """A request that was held back is sent when its turn comes, and each day is requested once."""
    emulator.faults.add(Fault("500-json", path=EXPORT, day=DAYS[1]))
    came = []
    with export:
        for window in export.ahead(WINDOWS):
            time.sleep(A_WHILE)
            try:
                export.download(*window).discard()
            except ServerError:
                continue
            came.append(window)
    assert came == [WINDOWS[0], *WINDOWS[2:]]
    assert asked() == DAYS
    assert export.requests == len(DAYS)
