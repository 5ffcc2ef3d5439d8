"""Streams over real HTTP: complete or an error, one record at a time, nothing left behind."""

import gc
import json
import logging
import time
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from urllib.parse import parse_qsl

import httpx
import pytest

from mixpanel_assets import Workspace
from mixpanel_assets.client import MixpanelAPIClient, ProfileQuery
from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets.errors import (
    AuthenticationError,
    ConfigError,
    ConnectionFailedError,
    IncompleteExportError,
    QueryError,
)
from mixpanel_assets_tests.conftest import IMPATIENT, PLENTY
from mixpanel_assets_tests.laws import siblings

DAY, NEXT = date(2024, 1, 3), date(2024, 1, 4)
ONE_DAY = {"from_date": DAY, "to_date": DAY}
EXPORT, ENGAGE = "/api/2.0/export", "/api/query/engage"
TRUNCATIONS = [
    "truncate-own-line",
    "truncate-mid-record",
    "error-object-in-stream",
    "junk-line",
    "cut-body",
    "cut-gzip",
    "cut-chunk",
    "drop-connection",
    "reset",
]
# Where a fault that counts rows breaks off; the others count bytes and take about the middle.
ROWS = {"truncate-own-line", "truncate-mid-record", "error-object-in-stream", "junk-line"}


def sent(emulator, *days, in_ms=False):
    return [line for day in days for line in emulator.truth.lines(day, time_in_ms=in_ms)]


def same(records, lines):
    """Whether records are these lines, each exactly once, in any order."""
    return sorted(map(repr, records)) == sorted(repr(json.loads(line)) for line in lines)


def until_it_raises(stream):
    """Return the records that came out, and the error that ended the stream."""
    came = []
    try:
        came.extend(stream)
    except IncompleteExportError as error:
        return came, error
    raise AssertionError("the stream ended as if it were whole")


@pytest.fixture
def workspace(credentials, settings):
    impatient = settings.model_copy(update={"max_retries": 2})
    with Workspace(credentials=credentials, settings=impatient) as workspace:
        workspace.api.retries = IMPATIENT
        yield workspace


@pytest.mark.parametrize("staged", [False, True])
def test_a_raw_stream_is_what_was_received(staged, workspace, emulator):
    """Every line of the days once, `time` in seconds, repeats that Mixpanel sends included."""
    days = [DAY + timedelta(days=n) for n in range(9)]
    stream = workspace.stream_events(
        from_date=str(days[0]), to_date=days[-1], raw=True, staged=staged
    )
    assert same(stream, sent(emulator, *days))


@pytest.mark.parametrize("staged", [False, True])
def test_the_lines_of_a_stream_are_the_bytes_received(staged, workspace, emulator):
    """Not a byte of a line is changed."""
    lines = list(workspace.stream_event_lines(**ONE_DAY, staged=staged))
    assert sorted(lines) == sorted(sent(emulator, DAY))


def test_days_share_requests(workspace, emulator):
    """Nine days at seven a request are two requests."""
    before = len(emulator.requests)
    list(workspace.stream_events(from_date=DAY, to_date=DAY + timedelta(days=8)))
    assert len(emulator.requests) - before == 2


def test_only_a_normalized_stream_asks_for_milliseconds(workspace, emulator):
    """Raw records have seconds, which Mixpanel sends by default."""
    list(workspace.stream_events(**ONE_DAY, raw=True))
    list(workspace.stream_events(**ONE_DAY))
    raw, normalized = (request.params for request in emulator.requests[-2:])
    assert "time_in_ms" not in raw
    assert normalized["time_in_ms"] == "true"


def test_a_normalized_event_has_the_documented_keys(workspace):
    """Five keys; times are aware and UTC, ids are text."""
    for event in workspace.stream_events(**ONE_DAY):
        assert list(event) == [
            "event_name",
            "event_time",
            "distinct_id",
            "insert_id",
            "properties",
        ]
        assert event["event_time"].tzinfo is UTC
        assert event["event_time"].date() == DAY
        assert isinstance(event["insert_id"], str)
        assert isinstance(event["distinct_id"], str | None)
        assert not {"time", "distinct_id", "$insert_id"} & event["properties"].keys()


@pytest.mark.parametrize("kind", TRUNCATIONS)
def test_what_a_broken_stream_delivered_is_real(kind, workspace, emulator):
    """Every record that came out is one of the day's, none comes twice, and all are counted."""
    emulator.faults.add(Fault(kind, path=EXPORT, at=100 if kind in ROWS else None))
    lines = workspace.stream_event_lines(**ONE_DAY)
    came, error = until_it_raises(lines)
    assert error.records == len(came) == lines.delivered > 0
    assert not Counter(came) - Counter(sent(emulator, DAY))
    assert error.partial
    if kind in ROWS:
        assert len(came) == 100


@pytest.mark.parametrize("kind", [*TRUNCATIONS, "truncate-whole-body", "html-200", "503-text"])
@pytest.mark.parametrize("raw", siblings([False, True], keep=1))
def test_a_staged_stream_hides_every_fault(kind, raw, workspace, emulator):
    """Two broken answers, and the stream is exact all the same."""
    emulator.faults.add(Fault(kind, path=EXPORT, times=2))
    stream = workspace.stream_events(**ONE_DAY, raw=raw, staged=True)
    if raw:
        assert same(stream, sent(emulator, DAY))
    else:
        assert len(list(stream)) == len(sent(emulator, DAY))


@pytest.mark.parametrize(
    "fault",
    [
        Fault("503-text", path=EXPORT, times=2),
        Fault("drop-connection", path=EXPORT, at=0, times=2),
        Fault("reset", path=EXPORT, at=0, times=2),
        Fault("cut-gzip", path=EXPORT, at=0, times=2),
        Fault("truncate-whole-body", path=EXPORT, times=2),
        Fault("truncate-own-line", path=EXPORT, at=0, times=2),
        Fault("html-200", path=EXPORT, times=2),
        Fault("429-bare", path=EXPORT, times=2),
    ],
    ids=lambda fault: fault.kind,
)
def test_a_fault_before_the_first_record_is_not_seen(fault, client, emulator):
    """Before the first record is delivered, a request can be sent again without duplicates."""
    emulator.faults.add(fault)
    assert same(client.stream_events(**ONE_DAY, raw=True), sent(emulator, DAY))


def test_each_request_has_a_beginning_of_its_own(credentials, settings, emulator):
    """A fault at the start of a later request is repeated unseen: nothing of it was out."""
    daily = settings.model_copy(update={"days_per_request": 1})
    emulator.faults.add(Fault("drop-connection", path=EXPORT, day=NEXT, at=0, times=2))
    with Workspace(credentials=credentials, settings=daily) as workspace:
        workspace.api.retries = IMPATIENT
        stream = workspace.stream_events(from_date=DAY, to_date=NEXT, raw=True)
        assert same(stream, sent(emulator, DAY, NEXT))


def test_a_later_request_that_stays_broken_counts_the_records_before_it(
    credentials, settings, emulator
):
    """`records` is what the whole stream delivered, earlier requests included."""
    daily = settings.model_copy(update={"days_per_request": 1})
    emulator.faults.add(Fault("503-text", path=EXPORT, day=NEXT, times=None))
    with Workspace(credentials=credentials, settings=daily) as workspace:
        workspace.api.retries = IMPATIENT
        stream = workspace.stream_events(from_date=DAY, to_date=NEXT, raw=True)
        with pytest.raises(IncompleteExportError) as caught:
            list(stream)
    assert caught.value.records == len(sent(emulator, DAY))


def test_a_staged_range_is_halved_around_a_bad_day(workspace, emulator):
    """The days around it are delivered whole; the error names it and counts them."""
    emulator.faults.add(Fault("truncate-own-line", path=EXPORT, day=NEXT, times=None))
    days = [DAY + timedelta(days=n) for n in range(5)]
    stream = workspace.stream_events(from_date=days[0], to_date=days[-1], raw=True, staged=True)
    came, error = until_it_raises(stream)
    assert same(came, sent(emulator, *(day for day in days if day != NEXT)))
    assert error.records == len(came)
    assert "export 2024-01-04" in error.message


@pytest.mark.parametrize("kind", ["truncate-whole-body", "503-text", "drop-connection"])
def test_a_day_that_never_comes_raises_before_any_record(kind, workspace, emulator):
    """Nothing was delivered, so the error is the fault itself and counts none."""
    emulator.faults.add(Fault(kind, path=EXPORT, at=0, times=None))
    stream = workspace.stream_events(**ONE_DAY)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whichever fault it is
        next(stream)
    assert getattr(caught.value, "records", 0) == 0
    assert stream.delivered == 0


@pytest.mark.parametrize("staged", [False, True])
def test_an_empty_answer_ends_the_stream(staged, workspace):
    """Days without events are no error."""
    assert list(workspace.stream_events(from_date="2023-01-01", to_date="2023-01-03")) == []
    stream = workspace.stream_events(**ONE_DAY, events=["No Such Event"], staged=staged)
    assert list(stream) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"from_date": "2024-13-01", "to_date": DAY}, "2024-13-01"),
        ({"from_date": "20240103", "to_date": DAY}, "20240103"),
        ({"from_date": NEXT, "to_date": DAY}, "is after to_date"),
        ({**ONE_DAY, "limit": 0}, "limit must be"),
        ({**ONE_DAY, "limit": 100_001}, "limit must be"),
        ({**ONE_DAY, "events": "Sign Up"}, "list of event names"),
        ({**ONE_DAY, "events": []}, "list of event names"),
        ({**ONE_DAY, "where": " "}, "where must be"),
    ],
)
def test_wrong_arguments_raise_at_the_call(arguments, said, workspace, emulator):
    """Invalid arguments raise before the iteration, and no request is sent."""
    before = len(emulator.requests)
    with pytest.raises(ConfigError, match=said):
        workspace.stream_events(**arguments)
    assert len(emulator.requests) == before


@pytest.mark.parametrize("staged", [False, True])
def test_refused_credentials_raise_before_the_first_record(staged, workspace, emulator):
    """The refusal is not mistaken for an empty or a broken answer."""
    emulator.faults.add(Fault("401-json", path=EXPORT, times=None))
    with pytest.raises(AuthenticationError):
        next(workspace.stream_events(**ONE_DAY, staged=staged))


def test_a_wrong_question_raises_before_the_first_record(workspace):
    """Mixpanel's 400 is the caller's to correct."""
    with pytest.raises(QueryError):
        next(workspace.stream_events(from_date="2999-01-01", to_date="2999-01-01"))


@pytest.mark.parametrize("staged", [False, True])
@pytest.mark.parametrize("limit", [1, 7, 500])
def test_a_limit_counts_over_all_requests(staged, limit, credentials, settings, emulator):
    """At most this number of events, however the days are packed."""
    daily = settings.model_copy(update={"days_per_request": 1})
    with Workspace(credentials=credentials, settings=daily) as workspace:
        stream = workspace.stream_events(
            from_date=DAY, to_date=DAY + timedelta(days=3), limit=limit, staged=staged
        )
        assert len(list(stream)) == limit


def test_filters_reach_mixpanel(workspace, emulator):
    """Names and expressions narrow the answer."""
    names = {e["event"] for e in workspace.stream_events(**ONE_DAY, events=["Sign Up"], raw=True)}
    assert names == {"Sign Up"}
    none = workspace.stream_events(**ONE_DAY, where='properties["plan"] == "no such plan"')
    assert list(none) == []


def test_a_stream_makes_no_file(workspace, tmp_path):
    """Neither a database nor a spool nor a folder for them; only the requests are counted."""
    list(workspace.stream_events(**ONE_DAY))
    list(workspace.stream_events(**ONE_DAY, raw=True))
    list(workspace.stream_profiles())
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    counted = tmp_path / "home" / ".mp" / "state"
    assert all(counted in p.parents for p in tmp_path.rglob("*") if p.is_file())


def test_a_staged_stream_leaves_no_file(workspace, tmp_path):
    """Read to the end, left early or broken: no spool stays, and no database was made."""
    spools = tmp_path / "spool"
    list(workspace.stream_events(**ONE_DAY, staged=True))
    with workspace.stream_events(**ONE_DAY, staged=True) as events:
        next(events)
        assert list(spools.iterdir())
    next(workspace.stream_events(**ONE_DAY, staged=True))
    gc.collect()
    assert not list(spools.iterdir())
    assert {path.name for path in tmp_path.iterdir()} == {"home", "spool"}


def test_a_staged_stream_of_a_client_lies_in_the_temporary_directory(client, emulator):
    """Without a folder given, none is needed."""
    assert same(client.stream_events(**ONE_DAY, raw=True, staged=True), sent(emulator, DAY))


@pytest.mark.parametrize("how", ["with", "close", "drop"])
def test_leaving_early_closes_the_connection(how, credentials):
    """The server sees the client go; nothing is read on behind the caller's back."""
    big = EmulatorSettings(start=DAY, days=1, exact_events=60_000)
    with (
        Emulator(big) as emulator,
        MixpanelAPIClient(credentials, api_base_url=emulator.base_url, budget=PLENTY) as client,
    ):
        stream = client.stream_events(**ONE_DAY)
        next(stream)
        pool = client._transport._http._transport._pool
        assert [connection.is_idle() for connection in pool.connections] == [False]
        if how == "with":
            with stream:
                pass
        elif how == "close":
            stream.close()
        del stream
        assert not pool.connections


def test_a_closed_stream_is_over(workspace):
    """After `close` nothing more comes, and closing again is fine."""
    stream = workspace.stream_events(**ONE_DAY)
    next(stream)
    stream.close()
    stream.close()
    assert list(stream) == []


def test_events_without_a_usable_time_are_yielded_and_counted_in_a_warning(
    workspace, emulator, caplog
):
    """None stands for a missing, textual or absurd `time`; one warning says how many."""
    emulator.faults.add(Fault("timeless-rows", day=DAY, count=6))
    with caplog.at_level(logging.WARNING):
        events = list(workspace.stream_events(**ONE_DAY))
    timeless = [event for event in events if event["event_time"] is None]
    assert {event["event_name"] for event in timeless} == {"Bad Row"}
    assert len(timeless) == 6
    assert [record.getMessage() for record in caplog.records] == [
        f"export {DAY}: 6 events carry no usable `time`; their event_time is None."
    ]


def test_a_raw_stream_says_nothing_of_times(workspace, emulator, caplog):
    """Raw events have no event_time, so there is nothing to warn of."""
    emulator.faults.add(Fault("timeless-rows", day=DAY, count=6))
    assert same(workspace.stream_events(**ONE_DAY, raw=True), sent(emulator, DAY))
    assert not caplog.records


def test_records_come_while_the_answer_is_still_arriving(credentials):
    """The first events are out long before the last byte is in."""
    with Emulator(EmulatorSettings(start=DAY, days=1, exact_events=60_000)) as emulator:
        emulator.faults.add(Fault("stall-mid-stream", path=EXPORT, at=400_000, seconds=600))
        with MixpanelAPIClient(
            credentials, api_base_url=emulator.base_url, budget=PLENTY
        ) as client:
            started = time.monotonic()
            with client.stream_events(**ONE_DAY) as events:
                next(events)
            assert time.monotonic() - started < 300


def test_an_unreachable_host_is_named(credentials):
    """The first record raises; nothing was delivered, so it is no incomplete export."""
    with (
        MixpanelAPIClient(
            credentials, api_base_url="http://127.0.0.1:9", retries=IMPATIENT, budget=PLENTY
        ) as client,
        pytest.raises(ConnectionFailedError, match=r"127\.0\.0\.1:9 cannot be reached"),
    ):
        next(client.stream_events(**ONE_DAY))


@pytest.fixture
def crowd():
    """A project with 95 profiles on ten pages."""
    with Emulator(EmulatorSettings(days=3, profiles=95, page_size=10)) as emulator:
        yield emulator


@pytest.fixture
def crowded(crowd, credentials):
    with MixpanelAPIClient(
        credentials, api_base_url=crowd.base_url, retries=IMPATIENT, budget=PLENTY
    ) as client:
        yield client


def test_profiles_are_normalized(crowded, crowd):
    """Exactly three keys; `last_seen` is text as sent, or None."""
    profiles = list(crowded.stream_profiles())
    expected = {profile["$distinct_id"]: profile for profile in crowd.truth.profiles()}
    assert len(profiles) == len(expected) == 95
    for profile in profiles:
        assert list(profile) == ["distinct_id", "last_seen", "properties"]
        properties = dict(expected[profile["distinct_id"]]["$properties"] or {})
        assert profile["last_seen"] == properties.pop("$last_seen", None)
        assert profile["properties"] == properties


def test_raw_profiles_are_what_was_received(crowded, crowd):
    """Nothing is added, dropped or converted."""
    raw = list(crowded.stream_profiles(raw=True))
    assert sorted(map(repr, raw)) == sorted(map(repr, crowd.truth.profiles()))
    lines = [json.loads(line) for line in crowded.stream_profile_lines()]
    assert sorted(map(repr, lines)) == sorted(map(repr, raw))


def test_pages_share_one_session(crowded, crowd):
    """Every page after the first names the session that pins the result."""
    list(crowded.stream_profiles())
    asked = [r.params for r in crowd.requests if r.path == ENGAGE]
    assert len({params.get("session_id") for params in asked[1:]}) == 1
    assert [params.get("page", "0") for params in asked] == [str(n) for n in range(10)]


@pytest.mark.parametrize("kind", ["short-page", "missing-page", "cut-json", "503-text", "no-total"])
def test_a_broken_page_is_asked_for_again_unseen(kind, crowded, crowd):
    """A page is checked before its first profile is out."""
    page = 0 if kind == "no-total" else 4
    crowd.faults.add(Fault(kind, path=ENGAGE, page=page, times=2))
    assert len(list(crowded.stream_profiles())) == 95


@pytest.mark.parametrize("kind", ["short-page", "missing-page", "cut-json", "503-text", "404-json"])
def test_a_page_that_never_comes_raises_with_its_count(kind, crowded, crowd):
    """Four pages were delivered; the error says so."""
    crowd.faults.add(Fault(kind, path=ENGAGE, page=4, times=None))
    stream = crowded.stream_profiles()
    with pytest.raises(IncompleteExportError) as caught:
        list(stream)
    assert caught.value.records == stream.delivered == 40


OTHER_PAGES = [(4, 0), (4, 3), (4, 5), (4, 8), (9, 8), (1, 0)]


@pytest.mark.parametrize(("page", "sent"), OTHER_PAGES)
@pytest.mark.parametrize("raw", [False, True])
def test_another_page_in_place_of_one_raises(page, sent, raw, crowded, crowd):
    """Whether it repeats an earlier page or comes too early: not all profiles came."""
    crowd.faults.add(Fault("other-page", path=ENGAGE, page=page, at=sent, times=None))
    stream = crowded.stream_profiles(raw=raw)
    with pytest.raises(IncompleteExportError) as caught:
        list(stream)
    assert caught.value.records == stream.delivered < 100
    assert f"page {max(page, sent)} repeats" in caught.value.message


@pytest.mark.parametrize("read", ["stream_profiles", "stream_profile_lines", "export_profiles"])
def test_pages_that_overlap_raise_at_the_end(read, credentials):
    """As pages without a session do when a profile is added between them."""

    def answer(request):
        page = int(dict(parse_qsl(request.content.decode())).get("page", 0))
        ids = range(page * 10 - bool(page), page * 10 - bool(page) + (10 if page < 2 else 5))
        results = [{"$distinct_id": identity, "$properties": {}} for identity in ids]
        told = {"page": page, "page_size": 10, "session_id": "s", "total": 25}
        return httpx.Response(200, json={**told, "results": results})

    with MixpanelAPIClient(
        credentials, retries=IMPATIENT, budget=PLENTY, transport=httpx.MockTransport(answer)
    ) as client:
        stream = getattr(client, read)()
        with pytest.raises(IncompleteExportError) as caught:
            list(stream)
    assert caught.value.records == 25
    assert (
        "3 pages brought 25 profiles, of which 24 are different ones, but 25 were announced"
        in caught.value.message
    )


def test_a_page_that_is_repeated_once_is_asked_for_again(crowded, crowd):
    """None of its profiles was delivered, so a second request causes no duplicates."""
    crowd.faults.add(Fault("other-page", path=ENGAGE, page=4, at=2))
    assert len({p["distinct_id"] for p in crowded.stream_profiles()}) == 95


@pytest.mark.parametrize("page_size", [10, 19])
def test_a_total_of_page_0_alone_does_not_end_a_stream(page_size, credentials):
    """Full pages behind it belong to the answer; a repeated one of them is seen as well."""
    told = EmulatorSettings(days=3, profiles=95, page_size=page_size, total_is_payload=True)
    with (
        Emulator(told) as crowd,
        MixpanelAPIClient(
            credentials, api_base_url=crowd.base_url, retries=IMPATIENT, budget=PLENTY
        ) as client,
    ):
        assert len(list(client.stream_profiles())) == 95
        crowd.faults.add(Fault("other-page", path=ENGAGE, page=2, at=3, times=None))
        with pytest.raises(IncompleteExportError, match="page 3 repeats"):
            list(client.stream_profiles())


@pytest.mark.parametrize("count", [-25, -5, 5, 25])
def test_a_total_that_moves_later_is_not_believed(count, crowded, crowd):
    """Page 0 pins the result, and what it announced came."""
    crowd.faults.add(Fault("total-changes", path=ENGAGE, page=4, count=count, times=None))
    assert len(list(crowded.stream_profiles())) == 95


@pytest.mark.parametrize(("count", "comes"), [(-5, True), (-50, True), (5, False), (50, False)])
def test_a_wrong_total_of_page_0_loses_nothing_in_silence(count, comes, crowded, crowd):
    """Too small a one ends no stream before its last page; too large a one is an error."""
    crowd.faults.add(Fault("total-changes", path=ENGAGE, page=0, count=count, times=None))
    if comes:
        assert len(list(crowded.stream_profiles())) == 95
    else:
        with pytest.raises(IncompleteExportError):
            list(crowded.stream_profiles())


def test_a_server_that_knows_no_pages_does_not_repeat_for_ever(crowded, crowd):
    """A server that sends page 0 for every page ends in an error after that page."""
    for page in range(1, 12):
        crowd.faults.add(Fault("other-page", path=ENGAGE, page=page, at=0, times=None))
    stream = crowded.stream_profiles()
    with pytest.raises(IncompleteExportError, match="page 1 repeats"):
        list(stream)
    assert stream.delivered == 10


def test_numbers_of_a_page_may_be_text(credentials):
    """All profiles are delivered if a proxy rewrites the numbers of a page as text."""
    told = EmulatorSettings(days=3, profiles=95, page_size=10, numbers_as_text=True)
    with (
        Emulator(told) as crowd,
        MixpanelAPIClient(
            credentials, api_base_url=crowd.base_url, retries=IMPATIENT, budget=PLENTY
        ) as client,
    ):
        assert len(list(client.stream_profiles())) == 95


def test_a_session_that_ends_raises_once_profiles_were_delivered(crowded, crowd):
    """A new session would repeat them."""
    crowd.faults.add(Fault("session-expired", path=ENGAGE, page=3, times=None))
    with pytest.raises(IncompleteExportError, match="session") as caught:
        list(crowded.stream_profiles())
    assert caught.value.records == 30


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ({"distinct_id": "a", "distinct_ids": ["b"]}, "not both"),
        ({"behaviors": [{}], "cohort_id": "1", "where": "x"}, "not both"),
        ({"behaviors": [{}]}, "need a where"),
        ({"include_all_users": True}, "needs a cohort_id"),
        ({"distinct_ids": "abc"}, "lists of names"),
        ({"cohort_id": "mine"}, "cohort's number"),
    ],
)
def test_contradicting_profile_filters_raise_at_the_call(filters, said, workspace):
    """Contradicting filters raise before the iteration."""
    with pytest.raises(ConfigError, match=said):
        workspace.stream_profiles(**filters)


def test_profile_filters_reach_mixpanel(workspace, emulator):
    """One profile, several, a group, some properties."""
    ids = [profile["$distinct_id"] for profile in emulator.truth.profiles()][:3]
    assert [p["distinct_id"] for p in workspace.stream_profiles(distinct_id=ids[0])] == [ids[0]]
    several = workspace.stream_profiles(distinct_ids=ids, output_properties=["plan"])
    found = {profile["distinct_id"]: profile["properties"].keys() for profile in several}
    assert found.keys() == set(ids)
    assert all(names <= {"plan"} for names in found.values())
    assert list(workspace.stream_profiles(distinct_id="nobody at all")) == []


def test_a_profile_query_is_shared_with_the_client(client):
    """The client takes the same filters as one value."""
    assert list(client.stream_profiles(ProfileQuery(distinct_id="nobody at all"))) == []


def test_times_of_a_legacy_project_are_its_wall_clock(credentials, settings):
    """`event_time` is UTC also where `time` is local time dressed as an epoch."""
    legacy = settings.model_copy(
        update={"time_regime": "legacy", "time_zone": "America/New_York", "api_base_url": None}
    )
    zoned = EmulatorSettings(start=DAY, days=1, regime="legacy", zone="America/New_York")
    with Emulator(zoned) as emulator:
        legacy = legacy.model_copy(update={"api_base_url": emulator.base_url})
        with Workspace(credentials=credentials, settings=legacy) as workspace:
            times = [event["event_time"] for event in workspace.stream_events(**ONE_DAY)]
    start = datetime(2024, 1, 3, 5, tzinfo=UTC)
    assert all(start <= time < start + timedelta(days=1) for time in times)
