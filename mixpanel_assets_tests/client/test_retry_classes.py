"""Every row of the retry table, at the wire."""

import pytest

from mixpanel_assets.client import MixpanelAPIClient, RetryPolicy
from mixpanel_assets.client.transport import RETRY_CLASSES
from mixpanel_assets.emulator import Fault
from mixpanel_assets.errors import RateLimitError
from mixpanel_assets_tests.conftest import PLENTY, START

EXPORT = "/api/2.0/export"
RETRIES = 2
FAULTS = {
    "5xx, and 400 with the text `Timeout Error`": [
        *("500-json", "500-text", "500-empty", "502-json", "503-text", "504-empty"),
        "400-timeout",
    ],
    "no connection, a lost connection, or no response": ["drop-connection", "reset", "cut-chunk"],
    "200 with an incomplete or invalid body": [
        *("truncate-own-line", "truncate-mid-record", "truncate-whole-body"),
        *("error-object-in-stream", "html-200", "cut-body", "cut-gzip", "junk-line"),
    ],
    "429": ["429-window", "429-concurrency", "429-bare", "429-export-text"],
    "401, 403, and 400 that refuses the credentials": ["401-json", "403-json", "400-auth-text"],
    "402: the plan does not include the API": ["402-json"],
    "`Date range exceeds N days`: older than the plan allows": ["403-history"],
    "any other 4xx, such as a malformed filter": ["404-json", "412-json"],
    "200 with an error instead of a result": ["error-200"],
}
ROWS = {row.response: row for row in RETRY_CLASSES}
CASES = [(row, kind) for came, row in ROWS.items() for kind in FAULTS[came]]


@pytest.fixture
def client(credentials, emulator):
    retries = RetryPolicy(max_retries=RETRIES, max_wait_seconds=2, first_wait_seconds=0.001)
    with MixpanelAPIClient(
        credentials, api_base_url=emulator.base_url, retries=retries, budget=PLENTY
    ) as client:
        yield client


def ask(client, tmp_path, kind):
    if kind == "error-200":
        return client.get("query", "/events/names")
    return list(client.event_export(from_date=START, to_date=START, directory=tmp_path))


def test_every_row_of_the_table_is_tested():
    """A new row is given its faults here."""
    assert FAULTS.keys() == ROWS.keys()


@pytest.mark.parametrize(("row", "kind"), CASES, ids=[kind for _, kind in CASES])
def test_what_lasts_is_asked_as_often_as_the_table_says_and_raised(
    row, kind, client, emulator, tmp_path
):
    """Retried rows up to the limit; the others send no request in vain."""
    path = "*" if kind == "error-200" else EXPORT
    wait = 3600 if row.treatment == "waited for" else None
    emulator.faults.add(Fault(kind, path=path, times=None, seconds=wait))
    before = len(emulator.requests)
    with pytest.raises(row.error) as caught:
        ask(client, tmp_path, kind)
    assert type(caught.value) is row.error
    expected = RETRIES + 1 if row.treatment == "retried" else 1
    if kind == "429-bare":
        expected = len(emulator.requests) - before
    assert len(emulator.requests) - before == expected


@pytest.mark.parametrize(
    ("row", "kind"),
    [case for case in CASES if case[0].treatment != "not retried"],
    ids=[kind for row, kind in CASES if row.treatment != "not retried"],
)
def test_what_passes_leaves_no_trace(row, kind, client, emulator, tmp_path):
    """One fault, then a healthy answer: the day is whole."""
    emulator.faults.add(Fault(kind, path=EXPORT, times=1, seconds=0.01))
    [spool] = ask(client, tmp_path, kind)
    assert spool.lines == len(list(emulator.truth.lines(START)))


def test_a_429_uses_up_no_retry(client, emulator, tmp_path):
    """More 429s than retries, then as many faults as retries: the day still comes."""
    emulator.faults.add(Fault("429-window", path=EXPORT, times=RETRIES + 2, seconds=0))
    emulator.faults.add(Fault("503-text", path=EXPORT, times=RETRIES))
    [spool] = ask(client, tmp_path, "429-window")
    assert spool.lines == len(list(emulator.truth.lines(START)))


def test_the_wait_that_a_429_names_is_told(client, emulator, tmp_path):
    """An hour is more than this client's patience; the error says when it can go on."""
    emulator.faults.add(Fault("429-window", path=EXPORT, times=None, seconds=3600))
    with pytest.raises(RateLimitError) as caught:
        ask(client, tmp_path, "429-window")
    assert 3590 <= caught.value.retry_after <= 3600
