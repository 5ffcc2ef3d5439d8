"""What clients send is in the export, the reports and the profiles, as at Mixpanel."""

import base64
import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode
from zoneinfo import ZoneInfo

import httpx
import jsonschema
import pytest

from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets.emulator.received import MOST_IDS, Identities

from .conftest import NOW, SMALL, START, Opened, http_client
from .rows import Record, export, records, settled, texts
from .test_official_shapes import document, schema
from .test_queries import ask

YESTERDAY = (NOW - timedelta(days=1)).date()
MOMENT = int(NOW.timestamp()) - 86_400
TOKEN = EmulatorSettings.project_token
NOTHING = SMALL.but(days=0)
UUID = "0190f3a2-7c1b-4d2e-9f00-aabbccddeeff"


@pytest.fixture(scope="module")
def empty_emulator() -> Iterator[Emulator]:
    """A project that holds what clients send and nothing else."""
    with Emulator(NOTHING) as started:
        yield started


@pytest.fixture
def emulator(empty_emulator: Emulator) -> Iterator[Emulator]:
    """The project before anything was sent, and nothing is left of it."""
    yield empty_emulator
    empty_emulator.forget()
    empty_emulator.faults.clear()
    empty_emulator.state.requests.clear()


def event(name: str = "Sent", at: float = MOMENT, /, **properties: Any) -> Record:
    own = {
        "token": TOKEN,
        "time": at,
        "distinct_id": "u1",
        "$insert_id": f"i{at * 1000:.0f}-{name}",
    }
    return {"event": name, "properties": {**own, **properties}}


def stored(emulator: Emulator) -> list[Record]:
    """Return every line of the project, in milliseconds, by time of processing."""
    lines = [
        json.loads(line)
        for day in emulator.truth.days()
        for line in emulator.truth.lines(day, time_in_ms=True)
    ]
    return sorted(lines, key=lambda row: row["properties"]["mp_processing_time_ms"])


def sent(http: httpx.Client, path: str, body: object, **params: object) -> httpx.Response:
    return http.post(path, json=body, params={**http.params, **params})  # type: ignore[dict-item]


def official(path: str, status: str) -> dict[str, Any]:
    """Return the schema of a response in the official file, with resolved references."""
    whole = document("ingestion")
    answer = whole["paths"][path]["post"]["responses"][status]
    answer = whole["components"]["responses"][answer["$ref"].rsplit("/", 1)[-1]]
    (content,) = answer["content"].values()
    return {**content["schema"], "components": whole["components"]}


# How an event can be sent.

BATCH = [event("One"), event("Two", text="Å >>> ??? ~~~ ÿÿÿ")]
TEXT = json.dumps(BATCH)
BASE64 = base64.b64encode(TEXT.encode()).decode()
FORM = {"content-type": "application/x-www-form-urlencoded"}
NDJSON = {"content-type": "application/x-ndjson"}
JSON = {"content-type": "application/json"}
GZIP = {"content-encoding": "gzip"}
LINES = "\n".join(map(json.dumps, BATCH)).encode() + b"\n\n"


@pytest.mark.parametrize(
    ("path", "headers", "body"),
    [
        ("/track", JSON, TEXT.encode()),
        ("/track/", JSON, TEXT.encode()),
        ("/track", JSON | GZIP, gzip.compress(TEXT.encode())),
        ("/track", FORM, urlencode({"data": TEXT}).encode()),
        ("/track", FORM, urlencode({"data": BASE64, "verbose": "0"}).encode()),
        ("/track", FORM, b"data=" + BASE64.encode()),
        ("/track", FORM, TEXT.encode()),
        ("/track?data=" + quote(BASE64), {}, None),
        ("/track?data=" + BASE64, {}, None),
        ("/region/us/track", JSON, TEXT.encode()),
        ("/import", JSON, TEXT.encode()),
        ("/import?strict=1", NDJSON, LINES),
        ("/import/?strict=1", NDJSON | GZIP, gzip.compress(LINES)),
        ("/import", FORM, urlencode({"data": BASE64}).encode()),
    ],
)
def test_every_way_of_sending_arrives(
    emulator: Emulator, path: str, headers: dict[str, str], body: bytes | None
) -> None:
    """JSON, lines, forms, base64 with its plus signs unescaped, compressed or in the address."""
    assert "+" in BASE64
    method = "GET" if body is None else "POST"
    # The secret needs no parameter, with which the client would replace those of the address.
    secret = (SMALL.project_secret, "")
    with http_client(emulator, auth=secret, params=None) as http:
        answer = http.request(method, path, headers=headers, content=body)
    assert answer.status_code == 200
    if "json" in headers.get("content-type", "") and "import" in path:
        assert answer.json() == {"code": 200, "num_records_imported": 2, "status": "OK"}
    else:
        assert answer.text == "1"
    rows = stored(emulator)
    assert [row["event"] for row in rows] == ["One", "Two"]
    assert rows[1]["properties"]["text"] == "Å >>> ??? ~~~ ÿÿÿ"


def test_an_event_is_stored_with_what_the_server_adds(
    emulator: Emulator, http: httpx.Client
) -> None:
    """The row has the sender's properties and the server's; neither the token nor the address."""
    one = event("Sent", MOMENT + 0.25, ip="136.24.0.114", plan="pro", n=None, deep={"a": [1]})
    assert sent(http, "/track", [one]).text == "1"
    assert sent(http, "/import", [event("Sent", MOMENT, distinct_id="")]).status_code == 200
    tracked, imported = (row["properties"] for row in stored(emulator))
    now_ms = int(NOW.timestamp() * 1000)
    size = len(json.dumps(one, ensure_ascii=False, separators=(",", ":")).encode())
    assert tracked == {
        "time": MOMENT * 1000 + 250,
        "distinct_id": "u1",
        "$insert_id": one["properties"]["$insert_id"],
        "plan": "pro",
        "n": None,
        "deep": {"a": [1]},
        "$mp_api_endpoint": "api.mixpanel.com",
        "$mp_api_timestamp_ms": now_ms,
        "$mp_event_size": size,
        "mp_processing_time_ms": now_ms + 700,
    }
    assert imported["$import"] is True
    assert imported["distinct_id"] == ""
    assert imported["mp_processing_time_ms"] > tracked["mp_processing_time_ms"]
    exported = records(export(http, YESTERDAY, time_in_ms="true"))
    assert texts(exported) == texts(stored(emulator))
    (whole,) = {row["properties"]["time"] for row in records(export(http, YESTERDAY))}
    assert whole == MOMENT


@pytest.mark.parametrize(
    ("at", "arrives"),
    [
        (MOMENT, MOMENT * 1000),
        (MOMENT * 1000 + 7, MOMENT * 1000 + 7),
        (MOMENT + 0.123, MOMENT * 1000 + 123),
        (MOMENT + 86_400 + 3_599, (MOMENT + 86_400) * 1000),
        (MOMENT + 86_400 + 3_601, None),
        (MOMENT - 4 * 86_400, (MOMENT - 4 * 86_400) * 1000),
        (MOMENT - 4 * 86_400 - 1, None),
        (1e300, None),
        (-5, None),
        ("yesterday", None),
        (True, None),
        (None, (MOMENT + 86_400) * 1000),
    ],
)
def test_the_time_of_a_tracked_event(
    emulator: Emulator, http: httpx.Client, at: Any, arrives: int | None
) -> None:
    """Seconds or milliseconds of the last five days; an hour ahead is now, more is refused."""
    answer = sent(http, "/track", [event("Sent", MOMENT, time=at)], verbose=1).json()
    assert answer["status"] == int(arrives is not None)
    assert ("properties.time" in (answer["error"] or "")) is (arrives is None)
    assert [row["properties"]["time"] for row in stored(emulator)] == ([arrives] if arrives else [])


@pytest.mark.parametrize(
    ("at", "message"),
    [
        (31_536_000, None),
        (31_536_000_000, None),
        (31_535_999, "must not be before 1971-01-01T00:00:00"),
        (MOMENT + 86_400 + 3_601, "more than 1 hour in the future"),
        ((MOMENT + 86_400 + 3_601) * 1000, "more than 1 hour in the future"),
        (None, "must be specified as seconds since epoch"),
    ],
)
def test_the_time_of_an_imported_event(
    emulator: Emulator, http: httpx.Client, at: Any, message: str | None
) -> None:
    """Any time since 1971."""
    answer = sent(http, "/import", [event("Sent", MOMENT, time=at)], strict=1)
    assert answer.status_code == (400 if message else 200)
    if message:
        (failed,) = answer.json()["failed_records"]
        assert failed["field"] == "properties.time"
        assert message in failed["message"]
    assert [str(day) for day in emulator.truth.days()] == ([] if message else ["1971-01-01"])


# Answers.


def test_a_token_names_the_project(emulator: Emulator, http: httpx.Client) -> None:
    """A stranger's token is a valid one, and its event is not seen; without one it is 0."""
    stranger = event("Sent", MOMENT, token="of-another-project")
    nameless = event("Sent", MOMENT, token="")
    for answer in (sent(http, "/track", [stranger]), sent(http, "/track", [stranger, nameless])):
        assert answer.text == "1"
        jsonschema.validate(answer.json(), official("/track", "200"))
    refused = sent(http, "/track", nameless)
    assert (refused.status_code, refused.text) == (200, "0")
    assert refused.headers["content-type"].startswith("text/plain")
    told = sent(http, "/track", nameless, verbose=1).json()
    assert told == {"error": "token, missing or empty", "status": 0}
    for body in (b"", b"data=", b"data=%%%", b"{", b"[]"):
        assert http.post("/track", content=body, headers=FORM).text == "0"
    assert stored(emulator) == []
    assert sent(http, "/track", [stranger, event()], verbose=1).json() == {
        "error": None,
        "status": 1,
    }
    assert len(stored(emulator)) == 1


def test_tracking_without_credentials(emulator: Emulator) -> None:
    """`/track`, `/engage` and `/groups` need the token alone."""
    with http_client(emulator, auth=None, params={}) as http:
        assert sent(http, "/track", event()).text == "1"
        update = {"$token": TOKEN, "$distinct_id": "u1", "$set": {"a": 1}}
        assert sent(http, "/engage", update).text == "1"
    assert len(stored(emulator)) == len(emulator.truth.profiles()) - 250 == 1


def test_pixels_and_callbacks(http: httpx.Client) -> None:
    """`img=1` is an image; `callback` calls a function, and nothing else."""
    image = sent(http, "/track", event(), img=1)
    assert image.headers["content-type"] == "image/gif"
    assert image.content.startswith(b"GIF89a")
    called = sent(http, "/track", event(), callback="app.done", verbose=1)
    assert called.headers["content-type"].startswith("text/javascript")
    assert called.text == 'app.done({"error":null,"status":1});'
    assert sent(http, "/track", event(), callback="<script>").text == "1"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"$insert_id": None}, "$insert_id"),
        ({"$insert_id": ""}, "$insert_id"),
        ({"$insert_id": "a:b"}, "$insert_id"),
        ({"$insert_id": "x" * 37}, "$insert_id"),
        ({"$insert_id": "undefined"}, "$insert_id"),
        ({"distinct_id": "Anonymous"}, "distinct_id"),
        ({"distinct_id": "0"}, "distinct_id"),
        ({f"p{number}": number for number in range(255)}, "properties"),
        ({"list": list(range(255))}, "properties.list"),
        ({"deep": {"a": {"b": {"c": {"d": 1}}}}}, "properties.deep"),
        ({"text": "x" * 1_000_000}, "event"),
    ],
)
def test_strict_imports_tell_what_is_wrong_with_each_record(
    emulator: Emulator, http: httpx.Client, changes: dict[str, Any], field: str
) -> None:
    """The status is 400, the valid records are stored, and the failed ones are named."""
    batch = [event("Good"), event("Bad", MOMENT, **changes), event("Good", MOMENT + 1)]
    answer = sent(http, "/import", batch, strict=1)
    assert answer.status_code == 400
    jsonschema.validate(answer.json(), official("/import", "400"))
    told = answer.json()
    assert (told["code"], told["num_records_imported"], told["status"]) == (400, 2, "Bad Request")
    (failed,) = told["failed_records"]
    assert (failed["index"], failed["field"]) == (1, field)
    assert failed.get("insert_id") == batch[1]["properties"]["$insert_id"]
    assert failed["message"].startswith(f"'{field}' is invalid: ")
    assert [row["event"] for row in stored(emulator)] == ["Good", "Good"]
    # Without `strict` the same event is taken.
    assert sent(http, "/import", batch[1], strict=0).json()["num_records_imported"] == 1


@pytest.mark.parametrize(
    "record",
    [
        7,
        {"properties": {"time": MOMENT}},
        {"event": "", "properties": {"time": MOMENT}},
        {"event": "Bad", "properties": [1]},
        {"event": "Bad"},
    ],
)
def test_what_is_no_event_is_never_taken(
    emulator: Emulator, http: httpx.Client, record: object
) -> None:
    """Neither address takes it, strict or not."""
    assert sent(http, "/track", [record]).text == "0"
    for strict, status in ((0, 200), (1, 400)):
        answer = sent(http, "/import", [record], strict=strict)
        assert (answer.status_code, answer.json().get("num_records_imported")) == (status, 0)
    assert stored(emulator) == []


@pytest.mark.parametrize("value", [r'"half \ud83d"', "NaN", "1e999"])
def test_values_that_no_reader_could_take_are_refused(
    emulator: Emulator, http: httpx.Client, value: str
) -> None:
    """Half a surrogate pair and numbers that JSON does not have."""
    text = json.dumps([event("Bad", MOMENT, odd=0)]).replace('"odd": 0', f'"odd": {value}')
    assert http.post("/track", content=text.encode(), headers=JSON).text == "0"
    assert stored(emulator) == []


def test_the_key_of_failed_ids_is_a_setting(opened: Callable[..., Opened]) -> None:
    """The documentation has `insert_id` in its file and `$insert_id` in its prose."""
    _, http = opened(days=0, failed_record_id="$insert_id")
    answer = sent(http, "/import", event("Bad", MOMENT, time=0), strict=1).json()
    assert answer["failed_records"][0]["$insert_id"] == event("Bad")["properties"]["$insert_id"]


@pytest.mark.parametrize(
    ("auth", "params", "status"),
    [
        ((SMALL.username, SMALL.secret), {"project_id": "12345"}, 200),
        ((SMALL.username, SMALL.secret), {"project_id": "1"}, 401),
        ((SMALL.username, SMALL.secret), {}, 401),
        ((SMALL.username, "wrong"), {"project_id": "12345"}, 401),
        ((SMALL.project_secret, ""), {}, 200),
        ((SMALL.project_secret, ""), {"project_id": "12345"}, 401),
        ((SMALL.project_token, ""), {}, 200),
        (None, {}, 401),
        (None, {"api_key": SMALL.api_key}, 200),
        (None, {"api_key": "wrong"}, 401),
    ],
)
def test_who_may_import(
    emulator: Emulator, auth: tuple[str, str] | None, params: dict[str, str], status: int
) -> None:
    """Account with project, secret, token or key without one; all else is 401."""
    with http_client(emulator, auth=auth, params={}) as http:
        answer = sent(http, "/import", event(), **params)
    assert answer.status_code == status
    jsonschema.validate(answer.json(), official("/import", str(status)))
    assert len(stored(emulator)) == (status == 200)


def test_too_much_is_413(opened: Callable[..., Opened]) -> None:
    """More than 2000 records, or more bytes than the limit, even when they are compressed."""
    emulator, http = opened(days=0, max_import_bytes=300_000)
    many = [event("E", MOMENT + number / 1000) for number in range(2001)]
    wide = event("E", MOMENT, text="x" * 300_000)
    packed = gzip.compress(json.dumps([wide]).encode())
    for path in ("/import", "/track"):
        answers = [
            http.post(path, content=packed, headers=JSON | GZIP),
            sent(http, path, [wide]),
            sent(http, path, [{"event": "E"}] * 2001),
        ]
        for answer in answers:
            assert answer.status_code == 413
            jsonschema.validate(answer.json(), official("/import", "413"))
    assert sent(http, "/import", many[:1500], strict=1).json()["num_records_imported"] == 1500
    assert len(stored(emulator)) == 1500


@pytest.mark.parametrize("kind", ["429-window", "503-json", "timeout"])
def test_faults_reach_senders(emulator: Emulator, http: httpx.Client, kind: Any) -> None:
    """A sender's waiting and trying again can be tested like a reader's."""
    emulator.faults.add(Fault(kind, path="/import", seconds=0.01))
    if kind == "timeout":
        with pytest.raises(httpx.RemoteProtocolError):
            sent(http, "/import", event())
    else:
        answer = sent(http, "/import", event())
        assert answer.status_code == int(kind[:3])
        if kind == "429-window":
            jsonschema.validate(answer.json(), official("/import", "429"))
            assert answer.json()["status"] == "Too Many Requests"
    assert sent(http, "/import", event()).status_code == 200


def test_the_log_holds_no_data(emulator: Emulator, http: httpx.Client) -> None:
    """The log has the parameters, but not the sent data."""
    http.post("/track", data={"data": TEXT, "verbose": "1"})
    (entry,) = emulator.requests
    assert (entry.path, entry.status) == ("/track", 200)
    assert entry.params == {"project_id": "12345", "verbose": "1"}


# What becomes of events.


def test_long_text_is_cut_and_ignored_events_are_dropped(
    emulator: Emulator, http: httpx.Client
) -> None:
    """Text ends after 255 characters, except in Mixpanel's own properties."""
    long = "Å" * 300
    one = event("Sent", MOMENT, note=long, **{"$current_url": long})
    assert sent(http, "/track", [one, event("Gone", MOMENT, **{"$ignore": True})]).text == "1"
    (row,) = stored(emulator)
    assert row["properties"]["note"] == long[:255]
    assert row["properties"]["$current_url"] == long


def test_ids_that_were_not_sent_are_made(emulator: Emulator, http: httpx.Client) -> None:
    """Each event gets an `$insert_id` of its own; a person only if the address may be used."""
    bare = {"event": "Bare", "properties": {"token": TOKEN, "time": MOMENT}}
    sent(http, "/track", [bare, bare])
    sent(http, "/track", [bare], ip=1)
    sent(http, "/import", [bare])
    own = [row["properties"] for row in stored(emulator)]
    assert len({row["$insert_id"] for row in own}) == 4
    assert ["distinct_id" in row for row in own] == [False, False, True, True]
    assert own[2]["distinct_id"] == own[3]["distinct_id"]
    assert emulator.truth.count(YESTERDAY) == 4


def test_repeats_are_exported_and_count_once(emulator: Emulator, http: httpx.Client) -> None:
    """The export has duplicates, reports use the row received last."""
    for plan in ("free", "pro"):
        sent(http, "/track", event("Sent", MOMENT, plan=plan))
    assert len(records(export(http, YESTERDAY))) == 2
    dates = {"from_date": str(YESTERDAY), "to_date": str(YESTERDAY)}
    counts = ask(http, "segmentation", **dates, event="Sent", on='properties["plan"]')
    assert counts["data"]["values"] == {"pro": {str(YESTERDAY): 1}}
    assert emulator.truth.duplicates(YESTERDAY) == 1
    assert ask(http, "events/names", type="general") == ["Sent"]


def test_rows_of_the_sample_that_come_back_are_repeats(opened: Callable[..., Opened]) -> None:
    """A day that is exported and imported again has every event once."""
    emulator, http = opened(odd_content=False)
    before = emulator.truth.count_by_event(START)
    rows = [
        row
        for row in emulator.truth.events(START, time_in_ms=True)
        if "$distinct_id_before_identity" not in row["properties"]
    ]
    assert sent(http, "/import", rows).json()["num_records_imported"] == len(rows) > 200
    without_id = sum("$insert_id" not in row["properties"] for row in rows)
    assert sum(emulator.truth.count_by_event(START).values()) == sum(before.values()) + without_id
    lines = records(export(http, START, time_in_ms="true"))
    assert texts(settled(lines)) == texts(emulator.truth.events(START, time_in_ms=True))
    names = Counter(row["event"] for row in emulator.truth.events(START))
    assert emulator.truth.count_by_event(START) == names


def test_late_events_are_in_their_old_day(opened: Callable[..., Opened]) -> None:
    """An export of a past day has more rows once a client sent some; other days do not."""
    emulator, http = opened()
    day = START + timedelta(days=3)
    before = {one: emulator.truth.count(one) for one in emulator.truth.days()}
    at = datetime(day.year, day.month, day.day, 8, tzinfo=UTC).timestamp()
    sent(http, "/import", [event("Late", at + number) for number in range(20)])
    after = {one: emulator.truth.count(one) for one in emulator.truth.days()}
    assert after == before | {day: before[day] + 20}
    lines = records(export(http, day))
    assert len(lines) == len(list(emulator.truth.lines(day)))
    assert sum(row["event"] == "Late" for row in lines) == 20
    assert emulator.truth.totals()["by_event"]["Late"] == 20
    emulator.faults.add(Fault("lag", seconds=3600))
    assert not any(row["event"] == "Late" for row in records(export(http, day)))
    emulator.clock.advance(3700)
    assert sum(row["event"] == "Late" for row in records(export(http, day))) == 20


def test_what_was_sent_can_be_forgotten(opened: Callable[..., Opened]) -> None:
    """The project is the sample again, and what is sent next is another story."""
    emulator, http = opened()
    before = emulator.truth.totals()
    profiles = emulator.truth.profiles()
    for name in ("One", "Two"):
        sent(http, "/track", event(name, MOMENT, **{"$device_id": "D", "$user_id": name}))
        update(http, "$set", {"a": name})
        assert emulator.truth.count_by_event(YESTERDAY)[name] == 1
        assert emulator.truth.totals()["events"] == before["events"] + 1
        assert profile(emulator, "u1")["a"] == name
        emulator.forget()
        assert emulator.truth.totals() == before
        assert emulator.truth.profiles() == profiles


def test_days_outside_of_the_sample(opened: Callable[..., Opened]) -> None:
    """Events of any day are held, and their names are known."""
    emulator, http = opened(unknown_event="400")
    old = datetime(2019, 5, 1, 12, tzinfo=UTC)
    refused = export(http, old.date(), event='["Ancient"]')
    assert refused.status_code == 400
    sent(http, "/import", event("Ancient", old.timestamp()))
    assert emulator.truth.days()[0] == old.date()
    assert len(records(export(http, old.date(), event='["Ancient"]'))) == 1
    assert emulator.truth.totals()["days"]["2019-05-01"] == 1


def test_old_events_of_every_sender_are_deleted(opened: Callable[..., Opened]) -> None:
    """Retention leaves out days of the sample and of clients alike."""
    emulator, http = opened(retention_days=3)
    sent(http, "/import", [event("Old", MOMENT - 10 * 86_400), event("New", MOMENT)])
    days = emulator.truth.days()
    assert days == [YESTERDAY - timedelta(days=back) for back in (2, 1, 0)]
    assert emulator.truth.totals()["by_event"]["New"] == 1
    assert "Old" not in emulator.truth.totals()["by_event"]
    assert records(export(http, YESTERDAY - timedelta(days=10))) == []


def test_a_legacy_project_shifts_times_and_days(opened: Callable[..., Opened]) -> None:
    """`time` is the wall clock of the zone, which also decides the day; reports agree."""
    zone = "America/Los_Angeles"
    emulator, http = opened(days=0, regime="legacy", zone=zone)
    true = datetime(2024, 1, 12, 3, tzinfo=UTC)
    sent(http, "/track", event("Sent", true.timestamp()))
    wall = true.astimezone(ZoneInfo(zone)).replace(tzinfo=UTC)
    assert emulator.truth.days() == [wall.date()] != [true.date()]
    (row,) = records(export(http, wall.date()))
    assert row["properties"]["time"] == int(wall.timestamp())
    dates = {"from_date": "2024-01-10", "to_date": "2024-01-14"}
    values = ask(http, "segmentation", **dates, event="Sent")["data"]["values"]["Sent"]
    assert values[str(wall.date())] == sum(values.values()) == 1


def test_a_step_taken_before_midnight_counts(emulator: Emulator, http: httpx.Client) -> None:
    """After a start in the first second of the range, step two can be before the range."""
    midnight = datetime(2024, 1, 13, tzinfo=UTC).timestamp()
    sent(http, "/track", [event("Order Completed", midnight - 0.5), event("Sign Up", midnight + 1)])
    dates = {"from_date": "2024-01-13", "to_date": "2024-01-13"}
    steps = ask(http, "funnels", **dates, funnel_id=9070)["data"]["2024-01-13"]["steps"]
    assert [step["count"] for step in steps] == [1, 1]


# Which ids belong to the same user.


def test_a_device_becomes_a_user(opened: Callable[..., Opened]) -> None:
    """Simplified: one event with both ids re-keys what the device did before, and does later."""
    emulator, http = opened(days=0)
    seen = {"$device_id": "D1", "distinct_id": ""}
    sent(http, "/track", event("Before", MOMENT, **seen))
    assert stored(emulator)[0]["properties"]["distinct_id"] == "$device:D1"
    sent(http, "/track", event("Login", MOMENT + 1, **{**seen, "$user_id": 'Ü "1"'}))
    sent(http, "/track", event("After", MOMENT + 2, **seen))
    # The device has a user: another one does not take it over.
    sent(http, "/track", event("Other", MOMENT + 3, **{**seen, "$user_id": "U2"}))
    ids = {
        row["event"]: (
            row["properties"]["distinct_id"],
            row["properties"].get("$distinct_id_before_identity"),
        )
        for row in records(export(http, YESTERDAY))
    }
    assert ids == {
        "Before": ('Ü "1"', "$device:D1"),
        "Login": ('Ü "1"', None),
        "After": ('Ü "1"', "$device:D1"),
        "Other": ("U2", None),
    }
    assert emulator.truth.users(YESTERDAY) == 2


def test_rows_of_the_sample_are_rekeyed_too(opened: Callable[..., Opened]) -> None:
    """A device of the sample that a client connects with a user; other rows are unchanged."""
    emulator, http = opened()
    day = START + timedelta(days=4)
    before = list(emulator.truth.lines(day))
    anonymous = [
        row["properties"]["distinct_id"]
        for row in map(json.loads, before)
        if str(row["properties"].get("distinct_id")).startswith("$device:")
    ]
    device = Counter(anonymous).most_common(1)[0][0]
    own = {"$device_id": device.removeprefix("$device:"), "$user_id": "new-user"}
    sent(http, "/import", event("Login", MOMENT, **own))
    after = [json.loads(line) for line in emulator.truth.lines(day)]
    changed = [row for row in after if row["properties"].get("distinct_id") == "new-user"]
    assert len(changed) == anonymous.count(device) > 0
    for row in changed:
        assert row["properties"].pop("$distinct_id_before_identity") == device
        row["properties"]["distinct_id"] = device
    assert texts(after) == texts(map(json.loads, before))
    assert emulator.truth.count(day) == len(settled(map(json.loads, before)))


def test_identity_events_do_nothing_in_simplified_projects(opened: Callable[..., Opened]) -> None:
    """They are stored like others, or the import is refused and nothing is stored."""
    batch = [
        event("Sent"),
        {"event": "$merge", "properties": {"token": TOKEN, "$distinct_ids": ["u1", "u2"]}},
    ]
    emulator, http = opened(days=0)
    assert sent(http, "/import", batch, strict=1).json()["num_records_imported"] == 2
    assert {row["properties"].get("distinct_id") for row in stored(emulator)} >= {"u1"}
    assert emulator.state.received.identities.canonical("u2") == "u2"
    emulator, http = opened(days=0, identity_events="refused")
    answer = sent(http, "/import", batch, strict=1)
    assert answer.status_code == 400
    assert answer.json()["num_records_imported"] == 0
    assert all(isinstance(failed, str) for failed in answer.json()["failed_records"])
    assert stored(emulator) == []


def test_original_merges(opened: Callable[..., Opened]) -> None:
    """`$identify`, `$create_alias` and `$merge` make one person, in rows of the past too."""
    emulator, http = opened(days=0, id_merge="original")
    ids = ["user-1", UUID, "alias-1", "user-2"]
    sent(http, "/track", [event(f"E{n}", MOMENT + n, distinct_id=one) for n, one in enumerate(ids)])
    assert emulator.truth.users(YESTERDAY) == 4

    def joined(name: str, path: str = "/track", **own: Any) -> int:
        answer = sent(http, path, {"event": name, "properties": {"token": TOKEN, **own}}, strict=1)
        assert answer.json()["num_records_imported"] == 1
        return emulator.truth.users(YESTERDAY)

    assert joined("$identify", **{"$identified_id": "user-1", "$anon_id": UUID}) == 3
    assert joined("$create_alias", distinct_id="user-1", alias="alias-1") == 2
    assert joined("$merge", **{"$distinct_ids": ["user-2", "user-1"]}) == 2, "only /import merges"
    assert joined("$merge", "/import", **{"$distinct_ids": ["user-2", "user-1"]}) == 1
    rows = [row["properties"] for row in records(export(http, YESTERDAY))]
    (canonical,) = {own["distinct_id"] for own in rows}
    assert canonical in ids
    before = {own.get("$distinct_id_before_identity", canonical) for own in rows}
    assert before == set(ids)
    failed = [
        row["properties"]["$failure_reason"]
        for row in stored(emulator)
        if "$failure_reason" in row["properties"]
    ]
    assert failed == ["accepted only by /import"]


@pytest.mark.parametrize(
    ("name", "own", "problem"),
    [
        ("$identify", {"$identified_id": "u", "$anon_id": "short"}, "UUID"),
        ("$identify", {"$identified_id": "other", "$anon_id": UUID}, "another id"),
        ("$identify", {"$anon_id": UUID.replace("0", "1")}, "missing"),
        ("$create_alias", {"distinct_id": "x", "alias": "a"}, "another id"),
        ("$create_alias", {"alias": "b"}, "missing"),
        ("$merge", {"$distinct_ids": ["one"]}, "two ids"),
        ("$merge", {"$distinct_ids": ["full", "more"]}, str(MOST_IDS)),
    ],
)
def test_merges_that_do_not_happen_say_why(name: str, own: dict[str, Any], problem: str) -> None:
    """Ids that are no UUID, that belong to another person, that are missing or too many."""
    identities = Identities()
    assert identities.merge("$identify", {"$identified_id": "u", "$anon_id": UUID}) is None
    assert identities.merge("$create_alias", {"distinct_id": "u", "alias": "a"}) is None
    for number in range(MOST_IDS - 1):
        assert identities.merge("$merge", {"$distinct_ids": ["full", str(number)]}) is None
    version = identities.version
    assert problem in (identities.merge(name, own) or "")
    assert identities.version == version
    assert identities.canonical("$device:" + UUID) == identities.canonical("u")


# Profiles.


def profile(emulator: Emulator, identity: str, group: str | None = None) -> Any:
    number = None if group is None else emulator.truth.data_group_id(group)
    found = [one for one in emulator.truth.profiles(number) if one["$distinct_id"] == identity]
    return found[0]["$properties"] if found else None


def update(http: httpx.Client, operation: str, value: Any, **changes: Any) -> httpx.Response:
    record = {"$token": TOKEN, "$distinct_id": "u1", operation: value, **changes}
    return sent(http, "/engage", [record], verbose=1)


@pytest.mark.parametrize(
    ("operation", "value", "after"),
    [
        ("$set", {"n": "x", "new": None}, {"n": "x", "l": ["a"], "t": "t", "new": None}),
        ("$set_once", {"n": "x", "new": 1}, {"n": 5, "l": ["a"], "t": "t", "new": 1}),
        ("$add", {"n": -2.5, "m": 3, "t": 1}, {"n": 2.5, "l": ["a"], "t": "t", "m": 3}),
        (
            "$append",
            {"l": "a", "k": {"x": 1}},
            {"n": 5, "l": ["a", "a"], "t": "t", "k": [{"x": 1}]},
        ),
        ("$append", {"t": "u"}, {"n": 5, "l": ["a"], "t": ["t", "u"]}),
        ("$union", {"l": ["b", "a", "b"], "k": [1]}, {"n": 5, "l": ["a", "b"], "t": "t", "k": [1]}),
        ("$remove", {"l": "a", "n": 5, "k": 1}, {"n": 5, "l": [], "t": "t"}),
        ("$unset", ["n", "k"], {"l": ["a"], "t": "t"}),
        ("$delete", "", None),
        ("$delete", None, None),
    ],
)
def test_operations_on_user_profiles(
    emulator: Emulator, http: httpx.Client, operation: str, value: Any, after: Any
) -> None:
    """Each operation changes a profile; some do nothing without a profile."""
    changes = {"$ignore_time": True}
    update(http, operation, value, **changes)
    makes_one = operation not in ("$remove", "$unset", "$delete")
    assert (profile(emulator, "u1") is not None) is makes_one
    update(http, "$delete", "")
    update(http, "$set", {"n": 5, "l": ["a"], "t": "t"}, **changes)
    assert update(http, operation, value, **changes).json() == {"error": None, "status": 1}
    assert profile(emulator, "u1") == after


def test_operations_on_group_profiles(emulator: Emulator, http: httpx.Client) -> None:
    """A known key changes the sample's groups; a new key gets a number of its own."""

    def group(key: str, identity: str, operation: str, value: Any) -> str:
        record = {"$token": TOKEN, "$group_key": key, "$group_id": identity, operation: value}
        return sent(http, "/groups", [record]).text

    before = profile(emulator, "company-3", "company")
    assert group("company", "company-3", "$set", {"plan": "team"}) == "1"
    moment = NOW.strftime("%Y-%m-%dT%H:%M:%S")
    assert profile(emulator, "company-3", "company") == before | {
        "plan": "team",
        "$last_seen": moment,
    }
    for operation, value in (
        ("$set", {"a": 1, "b": [1, 2]}),
        ("$set_once", {"a": 2, "c": 3}),
        ("$union", {"b": [2, 4]}),
        ("$remove", {"b": 1}),
        ("$add", {"c": 4}),
        ("$unset", ["a"]),
    ):
        assert group("team", "blue", operation, value) == "1"
    assert profile(emulator, "blue", "team") == {"b": [2, 4], "c": 7, "$last_seen": moment}
    number = emulator.truth.data_group_id("team")
    assert -(2**63) <= int(number) < 2**63
    answer = http.post("/api/query/engage", data={"data_group_id": number}).json()
    assert [one["$distinct_id"] for one in answer["results"]] == ["blue"]
    assert group("company", "company-3", "$append", {"a": 1}) == "0"
    assert group("company", "company-3", "$delete", "") == "1"
    assert len(emulator.truth.profiles(emulator.truth.data_group_id("company"))) == 11
    assert profile(emulator, "company-3") is None


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"$token": ""}, "$token, missing or empty"),
        ({"$distinct_id": None}, "$distinct_id, missing or empty"),
        ({"$set": 5}, "'$set' is invalid"),
        ({"$unset": ["a"]}, "'operation' is invalid"),
        ({"$set": None, "$append": {}}, "'operation' is invalid"),
    ],
)
def test_wrong_updates_are_told(
    emulator: Emulator, http: httpx.Client, changes: dict[str, Any], error: str
) -> None:
    """The status is 200 all the same; `strict=1` names the records."""
    record = {"$token": TOKEN, "$distinct_id": "u1", "$set": {"a": 1}} | changes
    answer = sent(http, "/engage", [record], verbose=1)
    assert answer.status_code == 200
    assert answer.json()["status"] == 0
    assert error in answer.json()["error"]
    strict = sent(http, "/engage", [record], strict=1)
    assert strict.status_code == 200
    assert error in strict.json()["failed_records"][0]["message"]
    assert profile(emulator, "u1") is None


@pytest.mark.parametrize(
    ("operation", "value"),
    [("$add", {"a": "1"}), ("$add", {"a": True}), ("$union", {"a": 1}), ("$unset", [1])],
)
def test_values_of_a_wrong_type_change_nothing(
    emulator: Emulator, http: httpx.Client, operation: str, value: Any
) -> None:
    """An operation is done wholly or not at all."""
    assert update(http, operation, value).json()["status"] == 0
    assert profile(emulator, "u1") is None


def test_profiles_are_changed_in_place_and_reports_follow(
    emulator: Emulator, http: httpx.Client
) -> None:
    """Cohorts, filters and types see the change; an open session of pages does not."""
    paying = ask(http, "cohorts/list")[0]["count"]
    first = http.post("/api/query/engage", data={"page_size": "100"}).json()
    last = emulator.truth.profiles()[-1]["$distinct_id"]
    for identity, properties in (("u1", {"plan": "team"}), (last, {"plan": "none"})):
        update(http, "$set", properties, **{"$distinct_id": identity})
    update(http, "$delete", "", **{"$distinct_id": first["results"][3]["$distinct_id"]})
    was = [one["plan"] for one in (profile(emulator, "u1"), profile(emulator, last))]
    assert was == ["team", "none"]
    profiles = emulator.truth.profiles()
    assert (len(profiles), profiles[-1]["$distinct_id"]) == (250, "u1")
    plans = [(one["$properties"] or {}).get("plan") for one in profiles]
    assert ask(http, "cohorts/list")[0]["count"] == 2 + sum(p in ("pro", "team") for p in plans)
    assert abs(paying - ask(http, "cohorts/list")[0]["count"]) <= 2
    pinned = http.post(
        "/api/query/engage",
        data={"page": "2", "session_id": first["session_id"], "page_size": "100"},
    ).json()["results"]
    assert len(pinned) == 50
    assert pinned[-1]["$properties"]["plan"] != "none"
    sent(http, "/track", event("Sent"))
    dates = {"from_date": str(YESTERDAY), "to_date": str(YESTERDAY)}
    found = ask(http, "segmentation", **dates, event="Sent", where='user["plan"] == "team"')
    assert found["data"]["values"]["Sent"] == {str(YESTERDAY): 1}


def test_a_profile_can_be_changed_by_any_id_of_the_person(
    emulator: Emulator, http: httpx.Client
) -> None:
    """An update of a device with a user changes the user."""
    sent(http, "/track", event("Login", MOMENT, **{"$device_id": "D1", "$user_id": "u1"}))
    update(http, "$set", {"a": 1}, **{"$distinct_id": "$device:D1"})
    assert profile(emulator, "u1")["a"] == 1
    assert profile(emulator, "$device:D1") is None


def test_updates_do_not_come_compressed(emulator: Emulator, http: httpx.Client) -> None:
    """`/engage` takes no gzip, as documented, and forms and base64 like `/track`."""
    record = {"$token": TOKEN, "$distinct_id": "u1", "$set": {"a": 1}}
    text = json.dumps([record]).encode()
    packed = http.post("/engage", content=gzip.compress(text), headers=JSON | GZIP)
    assert (packed.status_code, packed.text) == (200, "0")
    assert profile(emulator, "u1") is None
    answer = http.post("/engage/", data={"data": base64.b64encode(text).decode()})
    jsonschema.validate(answer.json(), official("/engage#profile-set", "200"))
    assert profile(emulator, "u1")["a"] == 1


def test_an_update_takes_as_long_in_a_large_project() -> None:
    """The sample's profiles are looked at once, not with every update."""
    with Emulator(NOTHING.but(profiles=3_000)) as emulator, http_client(emulator) as http:
        batch = [
            {"$token": TOKEN, "$distinct_id": f"u{number}", "$set": {"n": number}}
            for number in range(2_000)
        ]
        assert sent(http, "/engage", batch).text == "1"
        assert len(emulator.truth.profiles()) == 5_000


def test_official_paths_of_ingestion_are_known(http: httpx.Client) -> None:
    """Every path of the official file is taken, except those of lookup tables."""
    paths = {path.partition("#")[0] for path in document("ingestion")["paths"]}
    assert paths == {"/track", "/import", "/engage", "/groups", "/lookup-tables"} | {
        "/lookup-tables/{id}"
    }
    for path in paths:
        expected = 404 if "lookup" in path else 200
        assert sent(http, path, event()).status_code == expected
    assert schema("query", "/engage", "post")
