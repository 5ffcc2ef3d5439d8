"""Faults at the wire, seen by clients that hide nothing."""

import gzip
import http.client
import json
import socket
import time
import zlib
from base64 import b64encode
from collections.abc import Callable
from contextlib import closing
from datetime import date, timedelta
from typing import Any

import httpx
import pytest

from mixpanel_assets.emulator import Emulator, Fault
from mixpanel_assets.emulator.faults import KINDS

from .conftest import START, Opened
from .rows import export, records, settled, texts

DAY = START + timedelta(days=4)
EXPORT = "/api/2.0/export"


def raw(emulator: Emulator, *, packed: bool = False, more: str = "") -> bytes:
    """Return every byte of a response, with headers and chunk frames."""
    login = b64encode(f"{emulator.username}:{emulator.secret}".encode()).decode()
    query = f"project_id={emulator.project_id}&from_date={DAY}&to_date={DAY}{more}"
    encoding = "gzip" if packed else "identity"
    request = (
        f"GET {EXPORT}?{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Authorization: Basic {login}\r\nAccept-Encoding: {encoding}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", emulator.port), timeout=60) as connection:
        connection.sendall(request.encode())
        found = b""
        while piece := connection.recv(65_536):
            found += piece
    return found


def body(answer: bytes) -> tuple[bytes, bool]:
    """Return what the chunks hold, and whether the last one was announced."""
    _, _, rest = answer.partition(b"\r\n\r\n")
    found = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            return found, True
        found, rest = found + rest[:length], rest[length + 2 :]
    return found, False


@pytest.fixture
def steady(opened: Callable[..., Opened]) -> Emulator:
    """A tiny emulator that sends the same bytes every time."""
    return opened(stable_order=True, exact_events=3, odd_content=False)[0]


def test_a_marker_on_a_line_of_its_own(emulator: Emulator, http: httpx.Client) -> None:
    """Complete rows, then the marker, status 200 and a clean end; the next response is complete."""
    emulator.faults.add(Fault("truncate-own-line", path=EXPORT, day=DAY, at=20))
    lines = export(http, DAY).content.split(b"\n")
    assert len(lines) == 21
    assert lines[-1] == b"terminated early"
    assert all(json.loads(line)["event"] for line in lines[:-1])
    assert texts(settled(records(export(http, DAY)))) == texts(emulator.truth.events(DAY))


def test_a_marker_in_the_middle_of_a_record(emulator: Emulator, http: httpx.Client) -> None:
    """The marker stands where a value was due."""
    emulator.faults.add(Fault("truncate-mid-record", day=DAY))
    last = export(http, DAY).content.split(b"\n")[-1]
    assert last.endswith(b'":terminated early')
    assert last.startswith(b'{"event":"')


def test_a_marker_instead_of_everything(emulator: Emulator, http: httpx.Client) -> None:
    """The body is only the marker; older servers had another one."""
    old = "export terminated early"
    emulator.faults.add(Fault("truncate-whole-body"), Fault("truncate-whole-body", text=old))
    assert export(http, DAY).content == b"terminated early"
    assert export(http, DAY).text == old


def test_an_error_object_at_the_end(emulator: Emulator, http: httpx.Client) -> None:
    """The last line is JSON, but no event."""
    emulator.faults.add(Fault("error-object-in-stream"))
    assert list(records(export(http, DAY))[-1]) == ["error"]


def test_rows_missing_without_a_trace(emulator: Emulator, http: httpx.Client) -> None:
    """The response is well-formed, but some rows are missing."""
    whole = len(records(export(http, DAY)))
    emulator.faults.add(Fault("missing-rows", count=9))
    assert len(records(export(http, DAY))) == whole - 9


def test_an_empty_answer_though_there_are_events(emulator: Emulator, http: httpx.Client) -> None:
    """Status 200 and zero bytes."""
    emulator.faults.add(Fault("empty-200", path=EXPORT))
    answer = export(http, DAY)
    assert (answer.status_code, answer.content) == (200, b"")


def test_a_body_cut_at_any_byte(steady: Emulator) -> None:
    """The body ends after exactly that many bytes, HTTP and gzip end properly."""
    whole, _ = body(raw(steady))
    for at in range(0, len(whole) + 1, 97):
        steady.faults.add(Fault("cut-body", at=at))
        assert body(raw(steady)) == (whole[:at], True)
    steady.faults.add(Fault("cut-body", at=1500))
    packed, ended = body(raw(steady, packed=True))
    assert ended
    assert gzip.decompress(packed) == whole[:1500]


def test_a_gzip_stream_cut_at_any_byte(steady: Emulator) -> None:
    """HTTP ends properly, gzip does not."""
    whole, _ = body(raw(steady, packed=True))
    assert gzip.decompress(whole)
    for at in range(0, len(whole), 61):
        steady.faults.add(Fault("cut-gzip", at=at))
        cut, ended = body(raw(steady, packed=True))
        assert (cut, ended) == (whole[:at], True)
        unpacker = zlib.decompressobj(31)
        unpacker.decompress(cut)
        assert not unpacker.eof


@pytest.mark.parametrize("packed", [False, True])
def test_a_connection_that_ends_inside_a_chunk(steady: Emulator, packed: bool) -> None:
    """The bytes before the cut arrive, but neither the rest of the chunk nor the last chunk."""
    whole, _ = body(raw(steady, packed=packed))
    for at in (0, 1, 9, len(whole) // 2, len(whole) - 1, len(whole), len(whole) + 5):
        steady.faults.add(Fault("cut-chunk", at=at))
        assert body(raw(steady, packed=packed)) == (whole[:at], False)


def test_clients_notice_a_dropped_connection(emulator: Emulator, http: httpx.Client) -> None:
    """An HTTP library reports the missing end; the next request on a new connection is fine."""
    emulator.faults.add(Fault("drop-connection"))
    with pytest.raises(httpx.RemoteProtocolError):
        export(http, DAY)
    assert export(http, DAY).status_code == 200


def test_a_reset_connection(emulator: Emulator, http: httpx.Client) -> None:
    """The connection ends with RST, not with FIN."""
    emulator.faults.add(Fault("reset"))
    with pytest.raises(httpx.ReadError, match="reset"):
        export(http, DAY)


def test_json_answers_can_be_cut_too(emulator: Emulator, http: httpx.Client) -> None:
    """The same cuts exist on the Query API."""
    emulator.faults.add(
        Fault("cut-chunk", path="/api/query/*"), Fault("cut-gzip", path="/api/query/*", at=5)
    )
    with pytest.raises(httpx.RemoteProtocolError):
        http.post("/api/query/engage")
    assert len(http.post("/api/query/engage").content) == 5


def arrived(http: httpx.Client) -> tuple[bytes, bool]:
    """Return the bytes of a short time, and whether the client had a timeout."""
    params = {**http.params, "from_date": str(DAY), "to_date": str(DAY)}
    found = b""
    try:
        with http.stream("GET", EXPORT, params=params, timeout=0.3) as answer:
            for piece in answer.iter_raw():
                found += piece
    except httpx.ReadTimeout:
        return found, True
    return found, False


def test_a_slow_first_byte_and_a_stall(emulator: Emulator, http: httpx.Client) -> None:
    """A client with a short timeout fails; before a stall, exactly the configured bytes arrive."""
    emulator.faults.add(Fault("slow-first-byte", seconds=30), Fault("stall-mid-stream", at=5000))
    assert arrived(http) == (b"", True)
    found, gave_up = arrived(http)
    assert (len(found), gave_up) == (5000, True)
    assert arrived(http)[1] is False


def test_an_answer_that_never_comes(emulator: Emulator, http: httpx.Client) -> None:
    """`timeout` sends nothing; with `seconds`, the connection is closed after them."""
    emulator.faults.add(Fault("timeout", seconds=0.05))
    with pytest.raises(httpx.RemoteProtocolError):
        export(http, DAY)


def test_stopping_does_not_wait_for_a_stall(opened: Callable[..., Opened]) -> None:
    """An emulator with a hanging response stops immediately."""
    emulator, http = opened()
    emulator.faults.add(Fault("timeout"))
    with pytest.raises(httpx.ReadTimeout):
        http.get("/api/app/me", timeout=0.1)
    before = time.monotonic()
    emulator.stop()
    assert time.monotonic() - before < 50


@pytest.mark.parametrize(
    ("kind", "status", "text"),
    [
        ("400-auth-text", 400, "Unable to authenticate request"),
        ("400-timeout", 400, "Timeout Error."),
        ("401-json", 401, "Invalid service account credentials"),
        ("402-json", 402, "Your plan does not allow API calls."),
        ("403-history", 403, "Date range exceeds 90 days into the past"),
        ("404-json", 404, ""),
        ("412-json", 412, ""),
        ("500-json", 500, '"error"'),
        ("502-text", 502, "Service temporarily unavailable"),
        ("503-empty", 503, ""),
        ("504-empty", 504, ""),
        ("html-200", 200, "<!DOCTYPE html>"),
        ("error-200", 200, '{"error":'),
    ],
)
@pytest.mark.parametrize("path", [EXPORT, "/api/query/cohorts/list"])
def test_other_answers_on_request(
    emulator: Emulator, http: httpx.Client, kind: Any, status: int, text: str, path: str
) -> None:
    """Each response has its status and text, once."""
    emulator.faults.add(Fault(kind, path=path))
    params = {**http.params, "from_date": str(DAY), "to_date": str(DAY)}
    answers = [http.get(path, params=params) for _ in range(2)]
    assert answers[0].status_code == status
    assert text in answers[0].text
    assert answers[1].status_code == 200
    assert emulator.requests[-2].fault == kind


def test_faults_wait_for_their_path_day_and_turn(emulator: Emulator, http: httpx.Client) -> None:
    """A fault affects the named requests, after the skipped ones, the given number of times."""
    emulator.faults.add(Fault("500-empty", path=EXPORT, day=DAY, skip=1, times=2))
    other = DAY + timedelta(days=1)
    assert [export(http, other).status_code for _ in range(2)] == [200, 200]
    assert http.post("/api/query/cohorts/list").status_code == 200
    assert [export(http, DAY).status_code for _ in range(4)] == [200, 500, 500, 200]
    assert emulator.faults.waiting() == []


def test_a_fault_can_last(emulator: Emulator, http: httpx.Client) -> None:
    """Without `times` it is permanent until it is cleared; a range with its day matches."""
    emulator.faults.add(Fault("503-json", day=DAY, times=None))
    assert [export(http, START, DAY).status_code for _ in range(3)] == [503] * 3
    emulator.faults.clear()
    assert export(http, START, DAY).status_code == 200


def test_faults_happen_in_the_order_they_were_added(emulator: Emulator, http: httpx.Client) -> None:
    """Several faults are a script."""
    emulator.faults.add(Fault("429-bare", times=2), Fault("truncate-whole-body"))
    assert [export(http, DAY).status_code for _ in range(2)] == [429, 429]
    assert export(http, DAY).content == b"terminated early"


def test_both_names_of_a_path_are_one(emulator: Emulator, http: httpx.Client) -> None:
    """A fault on `/api/2.0/engage` hits `/api/query/engage`, in every region."""
    emulator.faults.add(Fault("500-empty", path="/api/2.0/engage", times=2))
    assert http.post("/api/query/engage").status_code == 500
    assert http.post(f"{emulator.region_url('us')}/api/2.0/engage").status_code == 500


def test_late_events_appear_later(emulator: Emulator, http: httpx.Client) -> None:
    """The first read misses them, the second has them, and so has the truth."""
    before = emulator.truth.count(DAY)
    emulator.faults.add(Fault("late-events", day=DAY, count=7, skip=1))
    assert len(settled(records(export(http, DAY)))) == before
    again = settled(records(export(http, DAY)))
    assert len(again) == before + 7 == emulator.truth.count(DAY)
    assert texts(again) == texts(emulator.truth.events(DAY))


def test_late_events_can_come_to_an_empty_day(emulator: Emulator, http: httpx.Client) -> None:
    """A day before the project began can gain rows."""
    day = date(2023, 12, 24)
    emulator.faults.add(Fault("late-events", day=day, count=2))
    assert len(records(export(http, day))) == 2 == emulator.truth.count(day)


def test_rows_can_be_deleted(emulator: Emulator, http: httpx.Client) -> None:
    """Deleted events are missing with all their duplicates; clearing restores them."""
    before = emulator.truth.count(DAY)
    emulator.faults.add(Fault("delete-rows", day=DAY, count=4))
    sent = settled(records(export(http, DAY)))
    assert len(sent) == before - 4 == emulator.truth.count(DAY)
    emulator.faults.clear()
    assert emulator.truth.count(DAY) == before


def test_rows_can_be_re_keyed(emulator: Emulator, http: httpx.Client) -> None:
    """Other ids, with the former ids in another property; the number of events is unchanged."""
    emulator.faults.add(Fault("restamp", day=DAY, count=6))
    sent = settled(records(export(http, DAY)))
    merged = [
        row["properties"] for row in sent if row["properties"].get("distinct_id") == "user-merged"
    ]
    emulator.faults.clear()
    old = {
        row["properties"].get("$insert_id"): row["properties"] for row in emulator.truth.events(DAY)
    }
    assert len(merged) == 6
    for own in merged:
        assert own["$distinct_id_before_identity"] == old[own["$insert_id"]]["distinct_id"]
    assert len(sent) == emulator.truth.count(DAY)


def test_fresh_rows_can_lag(opened: Callable[..., Opened]) -> None:
    """Rows younger than the lag are not sent yet, though the truth knows them."""
    emulator, http = opened(days=None)
    today = date(2024, 1, 15)
    emulator.faults.add(Fault("lag", seconds=3600))
    assert len(settled(records(export(http, today)))) < emulator.truth.count(today)
    emulator.clock.set(emulator.clock.now().replace(hour=23, minute=59))
    emulator.clock.advance(7200)
    assert len(settled(records(export(http, today)))) == emulator.truth.count(today)


def test_odd_content_can_come_to_one_day(opened: Callable[..., Opened]) -> None:
    """A plain project gets a day with everything awkward in it."""
    emulator, http = opened(odd_content=False)
    before = emulator.truth.count(DAY)
    emulator.faults.add(Fault("odd-content", day=DAY))
    sent = export(http, DAY)
    assert "\u2028".encode() in sent.content
    assert len(settled(records(sent))) == emulator.truth.count(DAY) > before + 30


@pytest.mark.parametrize("kind", ["foreign-rows", "timeless-rows", "surrogate-rows"])
def test_bad_rows_can_come(emulator: Emulator, http: httpx.Client, kind: Any) -> None:
    """Rows of another day, without a time or with half a surrogate pair are sent and counted."""
    before = emulator.truth.count(DAY)
    known = len(emulator.truth.unstorable(DAY))
    emulator.faults.add(Fault(kind, day=DAY, count=4))
    answer = export(http, DAY)
    assert texts(settled(records(answer))) == texts(emulator.truth.events(DAY))
    assert emulator.truth.count(DAY) == before + 4
    bad = emulator.truth.unstorable(DAY)
    assert len(bad) - known == (0 if kind == "foreign-rows" else 4)
    assert set(bad) <= set(answer.content.split(b"\n"))
    params = {**http.params, "from_date": str(DAY), "to_date": str(DAY), "event": "Bad Row"}
    shown = http.get("/api/query/segmentation", params=params).json()["data"]["values"]
    assert shown == {"Bad Row": {str(DAY): 4 if kind == "surrogate-rows" else 0}}


@pytest.mark.parametrize("junk", [None, "[1]", "", '{"event":"a","properties":{},}'])
def test_a_line_that_is_no_record(emulator: Emulator, http: httpx.Client, junk: str | None) -> None:
    """One line among good ones is something that lenient readers accept."""
    emulator.faults.add(Fault("junk-line", text=junk, at=3))
    lines = export(http, DAY).content.split(b"\n")
    assert lines[3] == (junk or ("" if junk == "" else "5")).encode()
    assert len(lines) == len(export(http, DAY).content.split(b"\n")) + 1


def test_unknown_faults_are_refused() -> None:
    """A misspelt kind, or a change of data without a day, is an error at once."""
    with pytest.raises(ValueError, match="no such fault"):
        Fault("truncated")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs a day"):
        Fault("delete-rows")
    with pytest.raises(ValueError, match="needs the name"):
        Fault("hidden-event")
    assert len(KINDS) > 40


def test_a_standard_client_sees_an_incomplete_read(emulator: Emulator) -> None:
    """`http.client` raises for a chunk without its end."""
    emulator.faults.add(Fault("cut-chunk", at=100))
    login = b64encode(f"{emulator.username}:{emulator.secret}".encode()).decode()
    with closing(http.client.HTTPConnection("127.0.0.1", emulator.port, timeout=60)) as connection:
        query = f"project_id={emulator.project_id}&from_date={DAY}&to_date={DAY}"
        connection.request("GET", f"{EXPORT}?{query}", headers={"Authorization": f"Basic {login}"})
        with connection.getresponse() as answer, pytest.raises(http.client.IncompleteRead):
            answer.read()
