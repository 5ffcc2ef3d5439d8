"""What a fetch can be narrowed by, a stream can too, and both then give the same rows."""

import inspect
import json
from datetime import UTC, datetime

import pytest

from mixpanel_assets import FetcherService, MixpanelAPIClient, Workspace
from mixpanel_assets.client import ProfileQuery
from mixpanel_assets.emulator import Emulator, EmulatorSettings
from mixpanel_assets.emulator.profiles import GROUP_KEY
from mixpanel_assets_tests.conftest import START
from mixpanel_assets_tests.laws import siblings

DAYS = {"from_date": "2024-01-02", "to_date": "2024-01-04"}
PAID = 'properties["plan"] == "pro"'
BEHAVIORS = [{"window": "14d", "name": "b1", "event_selectors": [{"event": "Order Completed"}]}]
# How a fetch stores, a stream delivers: what is no filter.
ABOUT_TABLES = {
    *("self", "name", "progress", "append", "replace", "batch_size", "parallel", "max_workers"),
    *("chunk_days", "on_batch_complete", "on_page_complete", "raw", "staged", "query"),
    *("days_per_request", "local_zone", "spool_directory", "confirms"),
}
EVENT_FILTERS = [
    {"events": ["Sign Up", "Order Completed"]},
    {"events": ["No Such Event"]},
    {"where": 'properties["mp_country_code"] == "DE"'},
    {"events": ["Page View"], "where": 'properties["mp_country_code"] == "DE"'},
]
PROFILE_FILTERS = {
    "where": {"where": PAID},
    "cohort_id": {"cohort_id": "2000"},
    "output_properties": {"output_properties": ["plan", "$last_seen"]},
    "distinct_id": {"distinct_id": "known"},
    "distinct_ids": {"distinct_ids": ["known", "also known", "nobody"]},
    "group_id": {"group_id": GROUP_KEY},
    "behaviors": {"behaviors": BEHAVIORS, "where": '(behaviors["b1"] > 0)'},
    "as_of_timestamp": {
        "behaviors": BEHAVIORS,
        "where": '(behaviors["b1"] > 0)',
        "as_of_timestamp": 1_705_000_000,
    },
    "include_all_users": {"cohort_id": "1000", "include_all_users": True},
    "all": {},
}


@pytest.fixture(scope="module")
def shared_emulator():
    """Its clock is fixed, so that filters on recent behaviour match some profiles."""
    now = datetime(2024, 1, 15, 12, tzinfo=UTC)
    settings = EmulatorSettings(start=START, days=14, events_per_day=150, now=lambda: now)
    with Emulator(settings) as emulator:
        yield emulator


@pytest.fixture
def ws(credentials, settings):
    with Workspace(credentials=credentials, settings=settings) as workspace:
        yield workspace


def filters_of(method):
    return set(inspect.signature(method).parameters) - ABOUT_TABLES


def stored_events(ws, table):
    rows = ws.sql_rows(
        f"SELECT event_name, event_time, distinct_id, insert_id, properties::VARCHAR FROM {table}"
    )
    return {
        (name, time.replace(tzinfo=UTC), who, insert_id): json.loads(properties)
        for name, time, who, insert_id, properties in rows
    }


def identity(event):
    return (event["event_name"], event["event_time"], event["distinct_id"], event["insert_id"])


def streamed_events(stream):
    """Return what a table keeps of a stream: of repeats the newest, nothing without a time."""
    newest = {}
    for event in stream:
        properties = event["properties"]
        key = (
            event["event_name"],
            event["event_time"],
            event["insert_id"],
            properties.get("$distinct_id_before_identity", event["distinct_id"]),
        )
        processed = properties.get("mp_processing_time_ms") or 0
        if event["event_time"] is not None and processed >= newest.get(key, (0,))[0]:
            newest[key] = (processed, event)
    return {identity(event): event["properties"] for _, event in newest.values()}


@pytest.mark.parametrize("owner", [Workspace, FetcherService])
def test_fetches_and_streams_know_the_same_filters(owner):
    """Every filter of a fetch is one of the stream, and vice versa."""
    assert filters_of(owner.fetch_events) == filters_of(owner.stream_events)
    assert filters_of(owner.fetch_profiles) == filters_of(owner.stream_profiles)
    assert filters_of(owner.stream_events) == filters_of(MixpanelAPIClient.stream_events)


def test_each_filter_is_compared():
    """A new filter is given a case here."""
    known = set(PROFILE_FILTERS) - {"all"}
    assert (
        known
        == filters_of(Workspace.stream_profiles)
        == set(inspect.signature(ProfileQuery).parameters) - {"workspace_id"}  # the workspace's
    )
    known = {name for case in EVENT_FILTERS for name in case} | {"limit", "from_date", "to_date"}
    assert known == filters_of(Workspace.stream_events)


@pytest.mark.parametrize("staged", siblings([False, True], keep=1))
@pytest.mark.parametrize("filters", EVENT_FILTERS, ids=str)
def test_events_are_the_same_stored_and_streamed(filters, staged, ws):
    """Names, moments, users, ids and every property."""
    result = ws.fetch_events("narrowed", **DAYS, **filters, progress=False)
    stored = stored_events(ws, "narrowed")
    assert len(stored) == result.rows
    streamed = streamed_events(ws.stream_events(**DAYS, **filters, staged=staged))
    assert streamed == stored


@pytest.mark.parametrize("limit", [1, 40, 100_000])
def test_a_limit_is_the_same_for_both(limit, ws):
    """It holds for the whole call, and what comes is among what there is."""
    everything = list(ws.stream_events(**DAYS))
    delivered = list(ws.stream_events(**DAYS, limit=limit))
    ws.fetch_events("narrowed", **DAYS, limit=limit, progress=False)
    stored = stored_events(ws, "narrowed")
    assert len(delivered) <= limit
    assert len(stored) <= limit
    # Of an event that came twice, the older one may be all that lies within the limit.
    known = set(map(identity, everything))
    assert set(map(identity, delivered)) <= known
    assert stored.keys() <= known
    if limit > len(everything):
        assert streamed_events(delivered) == streamed_events(everything)


@pytest.mark.parametrize("limit", [0, -1, 100_001, 1.5, True])
def test_a_wrong_limit_is_refused_by_both(limit, ws):
    """Both calls raise the same error."""
    messages = []
    for ask in (ws.stream_events, lambda **given: ws.fetch_events("narrowed", **given)):
        with pytest.raises(Exception, match="limit") as caught:
            ask(**DAYS, limit=limit)
        messages.append((type(caught.value), str(caught.value)))
    assert messages[0] == messages[1]


@pytest.fixture
def known(emulator):
    """Two ids that have a profile, in the place of words that stand for them."""
    ids = [profile["$distinct_id"] for profile in emulator.truth.profiles()[:2]]
    return dict(zip(("known", "also known"), ids, strict=True))


def with_ids(filters, known):
    return {
        name: known.get(value, value)
        if name == "distinct_id"
        else [known.get(one, one) for one in value]
        if name == "distinct_ids"
        else value
        for name, value in filters.items()
    }


@pytest.mark.parametrize("parallel", siblings([False, True], keep=1))
@pytest.mark.parametrize("name", PROFILE_FILTERS)
def test_profiles_are_the_same_stored_and_streamed(name, parallel, ws, known):
    """Ids, properties and times are equal, and every filter matches some profiles."""
    filters = with_ids(PROFILE_FILTERS[name], known)
    ws.fetch_profiles("people", **filters, parallel=parallel, progress=False)
    rows = ws.sql_rows("SELECT distinct_id, properties::VARCHAR, last_seen FROM people")
    stored = {
        who: (json.loads(properties or "{}"), last_seen and last_seen.replace(tzinfo=UTC))
        for who, properties, last_seen in rows
    }
    streamed = {
        profile["distinct_id"]: (profile["properties"], moment(profile["last_seen"]))
        for profile in ws.stream_profiles(**filters)
    }
    assert stored == streamed
    assert stored


def moment(text):
    return text and datetime.fromisoformat(text).replace(tzinfo=UTC)
