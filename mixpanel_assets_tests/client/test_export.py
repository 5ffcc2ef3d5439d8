"""Raw export over real HTTP: whole days on disk, or an error that says what was seen."""

import gzip
import json
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import pytest

from mixpanel_assets.client import ExportQuery, MixpanelAPIClient, make_credentials
from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets.errors import (
    AuthenticationError,
    ConfigError,
    ConnectionFailedError,
    IncompleteExportError,
    QueryError,
    RateLimitError,
    ServerError,
    StorageError,
)
from mixpanel_assets.rules.days import days_between
from mixpanel_assets_tests.conftest import IMPATIENT, PLENTY

DAY = date(2024, 1, 3)
EXPORT = "/api/2.0/export"
TRUNCATIONS = [
    "truncate-own-line",
    "truncate-mid-record",
    "truncate-whole-body",
    "error-object-in-stream",
    "drop-connection",
    "html-200",
]


def lines_on_disk(path: Path) -> list[bytes]:
    data = path.read_bytes()
    body = gzip.decompress(data) if path.suffix == ".gz" else data
    return body.splitlines()


def export(client, directory, from_date=DAY, to_date=DAY, **options):
    days = {"from_date": from_date, "to_date": to_date}
    with client.event_export(**days, directory=directory, **options) as export:
        return export.download(from_date, to_date)


def test_a_day_lies_on_disk_as_it_was_sent(client, emulator, tmp_path):
    """The spool holds every line of the day, repeats included, and counts them."""
    spool = export(client, tmp_path)
    sent = sorted(emulator.truth.lines(DAY, time_in_ms=True))
    assert sorted(lines_on_disk(spool.path)) == sent
    assert spool.lines == len(sent)
    assert spool.received_bytes == spool.path.stat().st_size


def test_a_small_answer_is_kept_uncompressed(client, tmp_path):
    """Mixpanel compresses from 1,400 bytes on; less lies there as plain lines."""
    spool = export(client, tmp_path, events=["Sign Up"], where='properties["plan"] == "none"')
    assert spool.path.suffix == ".jsonl"
    assert spool.lines == 0


def test_only_the_named_events_come(client, emulator, tmp_path):
    """`events` filters by name."""
    spool = export(client, tmp_path, events=["Order Completed"])
    names = {json.loads(line)["event"] for line in lines_on_disk(spool.path)}
    assert names == {"Order Completed"}


def test_time_is_asked_for_in_milliseconds(client, tmp_path):
    """Events within one second stay apart."""
    spool = export(client, tmp_path)
    assert all(json.loads(x)["properties"]["time"] > 10**12 for x in lines_on_disk(spool.path))


def test_days_share_a_request(client, emulator, tmp_path):
    """Nine days come with one request; the file says which days it holds."""
    last = DAY + timedelta(days=8)
    before = len(emulator.requests)
    nine_days = client.event_export(from_date=DAY, to_date=last, directory=tmp_path)
    [spool] = nine_days
    assert len(emulator.requests) - before == nine_days.requests == 1
    assert (spool.from_date, spool.to_date) == (DAY, last)


@pytest.mark.parametrize("kind", TRUNCATIONS)
def test_a_broken_answer_is_asked_for_again(kind, client, emulator, tmp_path):
    """One broken answer costs one more request; the day comes out whole."""
    emulator.faults.add(Fault(kind, path=EXPORT, times=1))
    spool = export(client, tmp_path)
    assert spool.requests == 2
    assert spool.lines == len(list(emulator.truth.lines(DAY)))
    assert [path.name for path in tmp_path.glob("*.jsonl*")] == [spool.path.name]


def test_files_alone_come_by_iterating(client, emulator, tmp_path):
    """A bad day does not stop the others: its request is halved, the error comes last."""
    emulator.faults.add(Fault("truncate-own-line", path=EXPORT, day=DAY, times=None))
    week = {"from_date": date(2024, 1, 1), "to_date": date(2024, 1, 7)}
    spools = []
    with pytest.raises(
        IncompleteExportError, match=r"1 of 7 days stayed incomplete.*2024-01-03"
    ) as e:
        spools.extend(client.event_export(**week, directory=tmp_path))
    assert e.value.partial
    days = [day.day for s in spools for day in days_between(s.from_date, s.to_date)]
    assert days == [1, 2, 4, 5, 6, 7]


@pytest.mark.parametrize("kind", [*TRUNCATIONS[:4], "html-200"])
def test_a_day_that_stays_broken_raises_and_leaves_no_file(kind, client, emulator, tmp_path):
    """The error names the day and what was seen; no half spool stays behind."""
    emulator.faults.add(Fault(kind, path=EXPORT, times=None))
    with pytest.raises(IncompleteExportError, match="2024-01-03") as caught:
        export(client, tmp_path)
    assert caught.value.reason
    assert not caught.value.partial
    assert not list(tmp_path.glob("*.jsonl*"))


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("400-auth-text", AuthenticationError),
        ("401-json", AuthenticationError),
        ("500-json", ServerError),
        ("503-text", ServerError),
    ],
)
def test_a_refusal_is_typed(kind, error, client, emulator, tmp_path):
    """Status and text become the exception that says what to do."""
    emulator.faults.add(Fault(kind, path=EXPORT, times=None))
    with pytest.raises(error) as caught:
        export(client, tmp_path)
    assert emulator.secret not in str(caught.value.to_dict())


def test_a_server_fault_is_repeated(client, emulator, tmp_path):
    """A request that was answered with a 503 is sent again."""
    emulator.faults.add(Fault("503-text", path=EXPORT, times=2))
    spool = export(client, tmp_path)
    assert spool.requests == 3


def test_a_future_day_is_a_wrong_question(client, tmp_path):
    """Mixpanel's 400 is an error, not an empty day."""
    with pytest.raises(QueryError, match="to_date cannot be later than today"):
        export(client, tmp_path, date(2999, 1, 1), date(2999, 1, 1))


def test_wrong_credentials_say_what_to_check(emulator, tmp_path):
    """A wrong secret ends at once, names the variables and never the secret."""
    wrong = make_credentials(
        username=emulator.username, secret="not-it-9d2", project_id=str(emulator.project_id)
    )
    with (
        MixpanelAPIClient(
            wrong, api_base_url=emulator.base_url, retries=IMPATIENT, budget=PLENTY
        ) as client,
        pytest.raises(AuthenticationError, match="MP_USERNAME and MP_SECRET") as caught,
    ):
        export(client, tmp_path)
    assert "not-it-9d2" not in str(caught.value.to_dict())


def test_a_wrong_region_or_project_is_refused(emulator, credentials, tmp_path):
    """The region's host and the project's number are checked by Mixpanel; we say which to check."""
    elsewhere = MixpanelAPIClient(
        credentials, api_base_url=emulator.region_url("eu"), retries=IMPATIENT, budget=PLENTY
    )
    other = credentials.model_copy(update={"project_id": "99999"})
    with elsewhere, pytest.raises(AuthenticationError, match="MP_REGION"):
        export(elsewhere, tmp_path)
    with (
        MixpanelAPIClient(
            other, api_base_url=emulator.base_url, retries=IMPATIENT, budget=PLENTY
        ) as client,
        pytest.raises(AuthenticationError, match="99999"),
    ):
        export(client, tmp_path)


def test_an_unreachable_host_is_named(credentials, tmp_path):
    """Nothing listens there: the message names the host and what to check."""
    with (
        MixpanelAPIClient(
            credentials, api_base_url="http://127.0.0.1:9", retries=IMPATIENT, budget=PLENTY
        ) as client,
        pytest.raises(ConnectionFailedError, match=r"127\.0\.0\.1:9 cannot be reached"),
    ):
        export(client, tmp_path)


def test_an_open_address_without_https_is_refused(credentials):
    """The secret does not travel in the open."""
    with pytest.raises(ConfigError, match="https"):
        MixpanelAPIClient(credentials, api_base_url="http://example.com")


def test_a_spent_budget_is_waited_for(credentials, tmp_path):
    """The wait after a 429 is shorter than our patience: the export goes on by itself."""
    with Emulator(EmulatorSettings(days=3)) as emulator:
        emulator.faults.add(Fault("429-bare", path=EXPORT, times=2))
        with MixpanelAPIClient(
            credentials, api_base_url=emulator.base_url, retries=IMPATIENT, budget=PLENTY
        ) as client:
            spool = export(client, tmp_path, date(2024, 1, 1), date(2024, 1, 1))
    assert [request.status for request in emulator.requests] == [429, 429, 200]
    assert spool.requests == 1


def test_a_wait_beyond_our_patience_is_told(client, emulator, tmp_path):
    """An hour's wait is longer than 15 minutes of patience; the error says how long it would be."""
    emulator.faults.add(Fault("429-window", path="/api/query/events/names"))
    with pytest.raises(RateLimitError) as caught:
        client.get("query", "/events/names")
    assert caught.value.retry_after == 3600


def test_an_unwritable_spool_folder_is_named(client, tmp_path):
    """The folder cannot be made: a clear sentence, before anything is stored."""
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(StorageError, match="MP_SPOOL_DIR"):
        export(client, blocker / "spool")


def test_days_in_the_wrong_order_are_refused():
    """A range that ends before it begins is a mistake, not an empty answer."""
    with pytest.raises(ConfigError, match="is after to_date"):
        ExportQuery(DAY, DAY - timedelta(days=1))


def test_a_stream_delivers_raw_events(client, emulator):
    """Live events equal what Mixpanel sent, `time` in seconds, repeats included."""
    streamed = list(client.export_events(DAY, DAY))
    sent = [json.loads(line) for line in emulator.truth.lines(DAY)]
    assert sorted(map(repr, streamed)) == sorted(map(repr, sent))


def test_a_stream_that_breaks_raises_with_its_count(client, emulator):
    """What came was real; the error says how many events there were before the break."""
    emulator.faults.add(Fault("truncate-mid-record", path=EXPORT))
    delivered = []
    with pytest.raises(IncompleteExportError) as caught:
        delivered.extend(client.export_events(DAY, DAY))
    assert caught.value.records >= len(delivered)


def test_a_stream_repeats_faults_before_its_first_event(client, emulator):
    """Until something was delivered, a retry is invisible."""
    emulator.faults.add(Fault("503-text", path=EXPORT, times=2))
    assert len(list(client.export_events(DAY, DAY))) == len(list(emulator.truth.lines(DAY)))


def test_progress_of_a_stream_is_told_in_batches(client):
    """`on_batch` hears the running count and, at the end, the total."""
    heard: list[int] = []
    total = len(list(client.export_events(DAY, DAY, on_batch=heard.append, batch_size=100)))
    assert heard == [*range(100, total + 1, 100), total]


def test_a_day_that_is_no_date_is_refused(client):
    """A typing mistake is named."""
    with pytest.raises(ConfigError, match="2024-13-01"):
        list(client.export_events("2024-13-01", "2024-13-02"))


FULL_DISK = """
import resource, sys
from datetime import date
from pathlib import Path
from mixpanel_assets.client import MixpanelAPIClient, make_credentials
from mixpanel_assets.errors import StorageError
base_url, username, secret, project_id, folder = sys.argv[1:]
credentials = make_credentials(username=username, secret=secret, project_id=project_id)
client = MixpanelAPIClient(credentials, api_base_url=base_url)
# The count of requests fits, the response does not.
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
try:
    list(client.event_export(
        from_date=date(2024, 1, 1), to_date=date(2024, 1, 7), directory=Path(folder)))
except StorageError as error:
    print(error.message)
"""


def test_a_full_disk_is_named_and_left_as_it_was(emulator, tmp_path):
    """The spool cannot grow: one sentence that says what to do, and no half file."""
    done = subprocess.run(
        [
            *(sys.executable, "-c", FULL_DISK, emulator.base_url, emulator.username),
            *(emulator.secret, str(emulator.project_id), str(tmp_path / "spool")),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "The disk is full" in done.stdout
    assert "MP_SPOOL_DIR" in done.stdout
    assert not list((tmp_path / "spool").iterdir())
