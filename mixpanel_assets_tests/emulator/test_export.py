"""`GET /api/2.0/export`: what is sent, for which days, and how it looks on the wire."""

import json
from collections.abc import Callable
from datetime import date, timedelta

import httpx
import pytest

from mixpanel_assets.emulator import Emulator

from .conftest import START, Opened
from .rows import export, records, settled, texts

DAY = START + timedelta(days=4)


def test_a_day_holds_what_the_truth_says(emulator: Emulator, http: httpx.Client) -> None:
    """Without duplicates by the documented key, a response has exactly the day's records."""
    sent = records(export(http, DAY))
    assert texts(settled(sent)) == texts(emulator.truth.events(DAY))
    assert len(sent) - len(settled(sent)) == emulator.truth.duplicates(DAY) > 0


def test_both_dates_are_included(emulator: Emulator, http: httpx.Client) -> None:
    """A range of three days includes both ends."""
    last = DAY + timedelta(days=2)
    sent = settled(records(export(http, DAY, last)))
    days = [DAY, DAY + timedelta(days=1), last]
    assert len(sent) == sum(map(emulator.truth.count, days))


def test_a_future_to_date_is_refused_in_plain_text(http: httpx.Client) -> None:
    """Tomorrow is a 400 whose body is a bare sentence."""
    answer = export(http, DAY, date(2024, 1, 16))
    assert answer.status_code == 400
    assert answer.text == "to_date cannot be later than today"
    assert answer.headers["content-type"].startswith("text/plain")


def test_the_injected_clock_decides_what_today_is(emulator: Emulator, http: httpx.Client) -> None:
    """A date that was in the future is accepted once the clock has moved on."""
    emulator.clock.advance(86_400)
    assert export(http, DAY, date(2024, 1, 16)).status_code == 200


def test_today_grows_with_the_clock(opened: Callable[..., Opened]) -> None:
    """Events that have not happened yet are neither sent nor counted."""
    emulator, http = opened(days=None)
    today = date(2024, 1, 15)
    noon = settled(records(export(http, today, time_in_ms="true")))
    assert max(record["properties"]["time"] for record in noon) <= emulator.clock.now_ms()
    assert len(noon) == emulator.truth.count(today)
    emulator.clock.advance(6 * 3600)
    assert len(settled(records(export(http, today)))) > len(noon)


def test_old_days_are_deleted_by_the_clock(opened: Callable[..., Opened]) -> None:
    """A day that is too old is zero bytes, and neither the truth nor a report counts it."""
    emulator, http = opened(retention_days=10)
    kept = DAY + timedelta(days=1)
    assert emulator.truth.days()[0] == DAY
    assert len(settled(records(export(http, DAY)))) == emulator.truth.count(DAY) > 0
    emulator.clock.advance(86_400)
    answer = export(http, DAY)
    assert (answer.status_code, answer.content) == (200, b"")
    assert emulator.truth.days()[0] == kept
    assert emulator.truth.count(DAY) == 0
    assert len(settled(records(export(http, DAY, kept)))) == emulator.truth.count(kept) > 0
    found = http.get(
        "/api/query/events",
        params={
            "event": '["Page View"]',
            "type": "general",
            "unit": "day",
            "from_date": str(DAY),
            "to_date": str(kept),
        },
    ).json()
    counts = found["data"]["values"]["Page View"]
    assert (counts.get(str(DAY), 0), counts[str(kept)] > 0) == (0, True)
    emulator.retention_days = None
    assert emulator.truth.count(DAY) > 0


@pytest.mark.parametrize("day", ["2023-12-31", "2011-07-10", "2024-01-15"])
def test_days_without_events_are_zero_bytes(http: httpx.Client, day: str) -> None:
    """Before the project's first day and after its last one, the response is 200 and empty."""
    answer = export(http, day)
    assert (answer.status_code, answer.content) == (200, b"")


def test_the_body_is_chunked_plain_text(http: httpx.Client) -> None:
    """No length is announced and no charset is declared."""
    headers = export(http, DAY).headers
    assert headers["transfer-encoding"] == "chunked"
    assert "content-length" not in headers
    assert headers["content-type"] == "text/plain"


def test_gzip_only_when_asked(http: httpx.Client) -> None:
    """A client that does not accept gzip gets plain bytes, the other one the same rows packed."""
    plain = http.get(
        "/api/2.0/export",
        params={**http.params, "from_date": str(DAY), "to_date": str(DAY)},
        headers={"Accept-Encoding": "identity"},
    )
    packed = export(http, DAY)
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert texts(records(plain)) == texts(records(packed))


def test_small_bodies_are_never_packed(http: httpx.Client) -> None:
    """Up to 1400 bytes go out as they are."""
    answer = export(http, DAY, limit=1, event='["Page View"]')
    assert 0 < len(answer.content) <= 1400
    assert "content-encoding" not in answer.headers


def test_rows_come_in_another_order_each_time(http: httpx.Client) -> None:
    """Two calls bring the same lines, arranged differently."""
    first, second = export(http, DAY).content, export(http, DAY).content
    assert first != second
    assert sorted(first.split(b"\n")) == sorted(second.split(b"\n"))


def test_the_order_can_be_fixed(opened: Callable[..., Opened]) -> None:
    """With `stable_order`, two calls bring the same bytes."""
    _, http = opened(stable_order=True)
    assert export(http, DAY).content == export(http, DAY).content


def test_only_the_named_events_come(emulator: Emulator, http: httpx.Client) -> None:
    """`event` keeps the events of a JSON array of names."""
    sent = settled(records(export(http, DAY, event='["Sign Up","Order Completed"]')))
    counts = emulator.truth.count_by_event(DAY)
    assert len(sent) == counts["Sign Up"] + counts["Order Completed"]


def test_a_bare_event_name_is_refused(http: httpx.Client) -> None:
    """`event` without brackets is a 400 that names the problem."""
    answer = export(http, DAY, event="Sign Up")
    assert answer.status_code == 400
    assert answer.text.startswith("Error in event selectors: invalid string:")


def test_an_unknown_event_is_empty_or_refused(opened: Callable[..., Opened]) -> None:
    """Both readings of the documentation are available."""
    _, lenient = opened()
    _, strict = opened(unknown_event="400")
    assert export(lenient, DAY, event='["Nope"]').content == b""
    assert export(strict, DAY, event='["Nope"]').status_code == 400


def test_where_filters_by_time_and_property(emulator: Emulator, http: httpx.Client) -> None:
    """A filter on `$time` and a property keeps exactly the rows that fulfil it."""
    noon = 1_704_412_800 + 43_200
    where = f'properties["$time"] >= datetime({noon}) and properties["mp_country_code"] == "UA"'
    sent = settled(records(export(http, DAY, where=where, time_in_ms="true")))
    expected = [
        record
        for record in emulator.truth.events(DAY, time_in_ms=True)
        if record["properties"]["time"] >= noon * 1000
        and record["properties"].get("mp_country_code") == "UA"
    ]
    assert expected
    assert texts(sent) == texts(expected)


def test_a_broken_where_is_refused(http: httpx.Client) -> None:
    """A syntax error in `where` is a 400, not an empty day."""
    assert export(http, DAY, where="country == 1").status_code == 400


def test_limit_is_a_cap(http: httpx.Client) -> None:
    """`limit` bounds the rows and cannot be over 100000."""
    assert len(records(export(http, DAY, limit=7))) == 7
    assert export(http, DAY, limit=100_001).status_code == 400


def test_time_is_in_seconds_unless_asked(emulator: Emulator, http: httpx.Client) -> None:
    """`time_in_ms` changes `time` and nothing else."""
    seconds = settled(records(export(http, DAY)))
    milliseconds = settled(records(export(http, DAY, time_in_ms="true")))
    assert texts(milliseconds) == texts(emulator.truth.events(DAY, time_in_ms=True))
    for record in milliseconds:
        record["properties"]["time"] //= 1000
    assert texts(seconds) == texts(milliseconds)


@pytest.mark.parametrize(
    "dates",
    [{}, {"from_date": "2024-01-05"}, {"from_date": "yesterday", "to_date": "2024-01-05"},
     {"from_date": "2024-01-06", "to_date": "2024-01-05"}],
)  # fmt: skip
def test_wrong_dates_are_refused(http: httpx.Client, dates: dict[str, str]) -> None:
    """Missing, unreadable and swapped dates are 400."""
    answer = http.get("/api/2.0/export", params={**http.params, **dates})
    assert answer.status_code == 400


def test_plans_can_limit_length_and_history(opened: Callable[..., Opened]) -> None:
    """Ranges that are too long or too old are refused when the project is set up so."""
    _, http = opened(export_max_days=3, history_days=10)
    assert export(http, "2024-01-10", "2024-01-13").status_code == 400
    old = export(http, "2024-01-01")
    assert old.status_code == 403
    assert "exceeds 10 days" in json.loads(old.text)["error"]


def test_rows_look_like_the_documented_sample(emulator: Emulator) -> None:
    """An order carries the system properties and value types of the documented line."""
    orders = [row for row in emulator.truth.events(DAY) if row["event"] == "Order Completed"]
    own = orders[0]["properties"]
    assert {
        "time", "distinct_id", "$browser", "$city", "$device_id", "$insert_id", "$lib_version",
        "$mp_api_endpoint", "$mp_api_timestamp_ms", "$mp_event_size", "$os", "$region",
        "$screen_height", "$user_id", "mp_country_code", "mp_lib", "mp_processing_time_ms",
    } <= own.keys()  # fmt: skip
    assert isinstance(own["amount"], float)
    assert isinstance(own["items"][0], dict)
    assert own["Ship To"]["city"] is None
    assert {row["properties"]["coupon"] for row in orders} <= {None, "WELCOME10"}
    assert own["$mp_api_timestamp_ms"] <= own["mp_processing_time_ms"]
