"""Starting, stopping, the log, the control paths and the speed of the emulator."""

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets_tests.laws import siblings

from .conftest import NOW, SMALL, START, Opened, http_client
from .rows import export

DAY = START + timedelta(days=4)


def test_it_starts_on_a_free_port_and_stops_without_a_trace() -> None:
    """Several run at the same time; after the end there are no threads and no listeners."""
    before = threading.active_count()
    with Emulator(SMALL) as one, Emulator(SMALL) as other:
        assert one.port != other.port
        assert one.base_url == f"http://127.0.0.1:{one.port}"
        for emulator in (one, other):
            with http_client(emulator) as client:
                assert client.get("/api/app/me").status_code == 200
        url = one.base_url
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False)
    assert threading.active_count() == before


def test_it_can_be_started_again() -> None:
    """`start` and `stop` work by hand, on a port of one's choice; stopping twice is fine."""
    emulator = Emulator(SMALL).start()
    port = emulator.port
    emulator.stop()
    emulator.stop()
    again = Emulator(SMALL, port=port).start()
    try:
        assert again.port == port
        with pytest.raises(OSError, match="in use"):
            Emulator(SMALL, port=port).start()
    finally:
        again.stop()


def test_an_address_is_known_only_while_it_runs() -> None:
    """Before the start, `base_url` raises an error instead of returning a wrong address."""
    with pytest.raises(RuntimeError, match="not been started"):
        _ = Emulator(SMALL).base_url


def test_it_imports_nothing_of_ours_and_no_orchestrator() -> None:
    """The emulator cannot share a mistake with the client: it loads none of its siblings."""
    code = (
        "import sys, mixpanel_assets.emulator\n"
        "ours = {n for n in sys.modules if n.startswith('mixpanel_assets.')}\n"
        "bad = {n for n in ours if not n.startswith('mixpanel_assets.emulator')}\n"
        "bad |= {'dagster', 'duckdb', 'httpx', 'pandas'} & set(sys.modules)\n"
        "sys.exit(f'{sorted(bad)}' if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))


def test_the_default_project_has_data_from_2024_until_today() -> None:
    """A demo needs no settings: early 2024 and the last two weeks hold events."""
    with Emulator() as emulator:
        today = datetime.now(UTC).date()
        assert emulator.truth.days()[0] == START
        assert emulator.truth.days()[-1] in (today, today + timedelta(days=1))
        assert emulator.truth.count(START + timedelta(days=13)) > 100
        assert emulator.truth.count(today - timedelta(days=14)) > 100
        assert len(emulator.truth.profiles()) == 250


def test_end_and_days_exclude_each_other() -> None:
    """There is one way at a time to say where the data end."""
    assert EmulatorSettings(end=DAY).last == DAY
    assert EmulatorSettings(days=5).last == DAY
    with pytest.raises(ValueError, match="not both"):
        EmulatorSettings(end=DAY, days=5)


def test_every_request_is_logged(opened: Callable[..., Opened]) -> None:
    """The log has the parameters, the days and the bytes on the wire."""
    emulator, client = opened()
    with client.stream(
        "GET",
        "/api/2.0/export",
        params={**client.params, "from_date": str(START), "to_date": str(DAY)},
    ) as answer:
        size = sum(map(len, answer.iter_raw()))
    client.post("/api/query/engage", data={"page_size": "5"})
    first, second = emulator.requests
    assert (first.method, first.path, first.status) == ("GET", "/api/2.0/export", 200)
    assert first.days == tuple(START + timedelta(days=number) for number in range(5))
    assert first.bytes_sent == size
    assert first.started == NOW
    assert second.params["page_size"] == "5"
    assert second.bytes_sent > 1000


def test_another_process_can_control_it(opened: Callable[..., Opened]) -> None:
    """Truth, faults, log, clock and retention are reachable over HTTP without credentials."""
    emulator, client = opened()
    open_client = httpx.Client(base_url=emulator.base_url, trust_env=False)
    with closing(open_client) as control:
        totals = control.get(
            "/emulator/truth", params={"from_date": str(DAY), "to_date": str(DAY)}
        ).json()
        assert totals["events"] == emulator.truth.count(DAY) == totals["days"][str(DAY)]
        assert totals["by_event"] == emulator.truth.count_by_event(DAY)
        fault = {"kind": "500-empty", "path": "/api/2.0/export", "day": str(DAY), "times": 2}
        waiting = control.post("/emulator/faults", json=[fault]).json()
        assert [{name: entry[name] for name in fault} for entry in waiting] == [fault]
        assert export(client, DAY).status_code == 500
        assert control.delete("/emulator/faults").json() == []
        assert export(client, DAY).status_code == 200
        logged = control.get("/emulator/requests").json()
        assert [entry["status"] for entry in logged] == [500, 200]
        assert logged[0]["days"] == [str(DAY)]
        assert control.delete("/emulator/requests").json() == []
        told = control.post("/emulator/clock", json={"now": "2025-01-01T00:00:00"}).json()
        assert told == {"now": "2025-01-01T00:00:00+00:00"}
        control.post("/emulator/clock", json={"advance_seconds": 90})
        assert emulator.clock.now() == datetime(2025, 1, 1, 0, 1, 30, tzinfo=UTC)
        control.post("/emulator/clock", json={"reset": True})
        assert emulator.clock.now() == NOW
        assert control.post("/emulator/retention", json={"days": 7}).json() == {"days": 7}
        assert emulator.truth.count(DAY) == 0


def test_wrong_control_requests_are_400(emulator: Emulator) -> None:
    """A misspelt fault, date or clock is refused with the reason."""
    with closing(httpx.Client(base_url=emulator.base_url, trust_env=False)) as control:
        answers = [
            control.post("/emulator/faults", json=[{"kind": "nope"}]),
            control.post("/emulator/faults", json=[{"kind": "reset", "dey": "x"}]),
            control.post("/emulator/faults", content=b"{"),
            control.get("/emulator/truth", params={"from_date": "yesterday"}),
            control.post("/emulator/clock", json={"now": "noon"}),
            control.post("/emulator/retention", json={"days": "ten"}),
        ]
    assert [answer.status_code for answer in answers] == [400] * 6
    assert "no such fault" in answers[0].json()["error"]


CONTROLS = [
    ("GET", "/emulator/requests"),
    ("GET", "/emulator/truth"),
    ("POST", "/emulator/faults"),
    ("DELETE", "/emulator/faults"),
    ("POST", "/emulator/clock"),
    ("POST", "/emulator/retention/"),
]


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:{port}"},
        {"Host": "127.0.0.1.evil.example:{port}"},
        {"Host": "127.0.0.1:1"},
        {"Host": "localhost"},
        {"Host": ""},
        {"Origin": "https://evil.example"},
        {"Origin": "http://localhost.evil.example:{port}"},
        {"Origin": "https://127.0.0.1:{port}"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "null"},
        {"Origin": ""},
    ],
)
def test_a_web_page_cannot_control_it(emulator: Emulator, headers: dict[str, str]) -> None:
    """Neither a name that was pointed at this machine nor a form of elsewhere gets through."""
    fault = json.dumps([{"kind": "500-empty", "path": "*"}])
    sent = {name: value.format(port=emulator.port) for name, value in headers.items()}
    with closing(httpx.Client(base_url=emulator.base_url, trust_env=False)) as page:
        for method, path in CONTROLS:
            answer = page.request(
                method, path, content=fault, headers={"Content-Type": "text/plain", **sent}
            )
            assert answer.status_code == 403
            assert "programs on this machine only" in answer.json()["error"]
    assert emulator.faults.waiting() == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LocalHost", "[::1]"])
def test_this_machine_can_control_it_under_each_of_its_names(emulator: Emulator, host: str) -> None:
    """Its own pages too, if there were any."""
    address = f"{host}:{emulator.port}"
    with closing(httpx.Client(base_url=emulator.base_url, trust_env=False)) as client:
        for more in ({}, {"Origin": f"http://{address}"}):
            answer = client.get("/emulator/clock", headers={"Host": address, **more})
            assert answer.status_code == 200


def test_answers_do_not_wait_for_acknowledgements(http: httpx.Client) -> None:
    """At least one of many small responses is faster than a delayed acknowledgement (40 ms)."""
    seconds = []
    for _ in range(25):
        before = time.perf_counter()
        http.get("/api/app/me")
        seconds.append(time.perf_counter() - before)
    assert min(seconds[5:]) < 0.03


@pytest.mark.slow
@pytest.mark.parametrize("encoding", siblings(["identity", "gzip"], keep=1))
def test_big_days_are_sent_block_by_block(encoding: str) -> None:
    """A day of many blocks arrives completely; the rate is printed (the aim is 40 MB/s)."""
    settings = SMALL.but(exact_events=60_000, duplicates_rate=0.01)
    with Emulator(settings) as emulator:
        login = b64encode(f"{emulator.username}:{emulator.secret}".encode()).decode()
        query = f"project_id={emulator.project_id}&from_date={DAY}&to_date={DAY}"
        headers = {"Authorization": f"Basic {login}", "Accept-Encoding": encoding}
        before = time.perf_counter()
        with closing(http.client.HTTPConnection("127.0.0.1", emulator.port)) as connection:
            connection.request("GET", f"/api/2.0/export?{query}", headers=headers)
            answer = connection.getresponse()
            size = sum(map(len, iter(lambda: answer.read(1 << 20), b"")))
        seconds = time.perf_counter() - before
        assert emulator.truth.count(DAY) == 60_000
        sent = sum(len(line) + 1 for line in emulator.truth.lines(DAY))
    print(
        f"{encoding}: {sent / 1e6:.0f} MB as {size / 1e6:.0f} MB, {sent / 1e6 / seconds:.0f} MB/s"
    )
    assert (size == sent) is (encoding == "identity")


def test_answers_can_be_late(opened: Callable[..., Opened]) -> None:
    """`latency_seconds` is the delay of every response."""
    _, client = opened(latency_seconds=0.1)
    before = time.perf_counter()
    client.get("/api/app/me")
    assert time.perf_counter() - before >= 0.1


def test_records_survive_json(emulator: Emulator) -> None:
    """Every line is one JSON object with text `event` and object `properties`."""
    for line in emulator.truth.lines(DAY):
        record = json.loads(line)
        assert isinstance(record["event"], str)
        assert isinstance(record["properties"], dict)


def test_a_fault_is_logged_by_name(emulator: Emulator, http: httpx.Client) -> None:
    """The log tells requests that were hit from those that were not."""
    emulator.faults.add(Fault("truncate-own-line"))
    export(http, DAY)
    export(http, DAY)
    assert [entry.fault for entry in emulator.requests[-2:]] == ["truncate-own-line", None]
