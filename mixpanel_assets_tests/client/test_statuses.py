"""Only a status of 200 is an answer; whatever stands between us and Mixpanel is named."""

import gzip
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from mixpanel_assets import __version__
from mixpanel_assets.client import MixpanelAPIClient, RetryPolicy
from mixpanel_assets.errors import (
    ConfigError,
    ConnectionFailedError,
    MixpanelDataError,
    QueryError,
    RateLimitError,
    ServerError,
)
from mixpanel_assets_tests.conftest import PLENTY, START


@pytest.fixture
def refused(odd_server, credentials, tmp_path):
    """Request a day of events, a profile page or a report; return the error."""

    def refused(question: str) -> MixpanelDataError:
        impatient = RetryPolicy(max_retries=1, first_wait_seconds=0.001, max_wait_seconds=0)
        day = {"from_date": START, "to_date": START}
        with MixpanelAPIClient(
            credentials, api_base_url=odd_server.url, retries=impatient, budget=PLENTY
        ) as client:
            questions = {
                "export": lambda: list(client.event_export(**day, directory=tmp_path / "spool")),
                "stream": lambda: list(client.stream_events(**day)),
                "profiles": lambda: list(client.stream_profiles()),
                "report": lambda: client.get("query", "/events/names"),
            }
            with pytest.raises(MixpanelDataError) as caught:
                questions[question]()
        return caught.value

    return refused


@pytest.mark.parametrize(
    ("status", "error"),
    [
        *((status, ConnectionFailedError) for status in (301, 302, 304, 307, 308)),
        *((status, ServerError) for status in (204, 206)),
    ],
)
def test_an_empty_answer_with_another_status_is_no_empty_day(status, error, odd_server, refused):
    """A login page, a captive portal or a cache never empties a day."""
    odd_server.answers(status, Location="/login")
    assert type(refused("export")) is error


QUESTIONS = pytest.mark.parametrize("question", ["export", "stream", "profiles", "report"])


@QUESTIONS
@pytest.mark.parametrize("coding", ["br", "zstd", "deflate", "gzip, gzip", "x-made-up"])
def test_a_content_encoding_that_was_not_asked_for_is_named(question, coding, odd_server, refused):
    """A proxy compressed the answer again: neither the day nor the line is broken."""
    odd_server.answers(200, gzip.compress(b"{}\n"), Content_Encoding=coding)
    error = refused(question)
    assert f"`Content-Encoding: {coding}`" in error.message
    assert "proxy" in error.message
    assert "line" not in error.message


@pytest.mark.parametrize("coding", ["identity", "GZIP"])
def test_the_encodings_that_were_asked_for_are_read(coding, odd_server, credentials):
    """However they are written."""
    body = b'["Sign Up"]'
    odd_server.answers(
        200, gzip.compress(body) if coding == "GZIP" else body, Content_Encoding=coding
    )
    with MixpanelAPIClient(credentials, api_base_url=odd_server.url, budget=PLENTY) as client:
        assert client.get("query", "/events/names") == ["Sign Up"]


@QUESTIONS
@pytest.mark.parametrize("status", [201, 202, 203, 204, 206])
def test_another_status_of_success_is_named_without_its_body(question, status, odd_server, refused):
    """A part of an answer is data of users, which belong into no error."""
    odd_server.answers(status, '{"event":"planted-user-data","properties":{}}')
    error = refused(question)
    assert f"answered {status}, which is not a complete response" in error.message
    assert "planted" not in str(error.to_dict())
    assert "Mixpanel failed" not in error.message


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (407, "<html>login</html>", QueryError, "user name and password of the proxy"),
        (413, "", QueryError, "shorter filter"),
        (414, "URI too long", QueryError, "shorter filter"),
        (404, "<!DOCTYPE html><title>nginx</title>", QueryError, "MP_API_BASE_URL"),
        (404, '{"error": "no such report"}', QueryError, "no such report"),
        (403, "<html><title>Blocked</title>by the firewall", QueryError, "an HTML page"),
        (400, "", QueryError, "answered 400 without a reason"),
        (500, "", ServerError, "answered 500 without a reason"),
        (503, "<html><title>Down</title></html>", ServerError, "an HTML page ('Down')"),
    ],
)
def test_a_refusal_says_what_it_is(status, body, kind, said, odd_server, refused):
    """A proxy that wants a login, a filter that is too long, a wrong address."""
    odd_server.answers(status, body)
    error = refused("report")
    assert type(error) is kind
    assert said in error.message
    assert "<" not in error.message
    assert ".." not in error.message


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("86400", 86_400),
        ("120.5", 121),
        ("0", None),
        ("9" * 5000, None),
        ("-5", None),
        ("soon", None),
        ("", None),
        ("١٢", None),
        ("nan", None),
        ("inf", None),
    ],
)
def test_the_wait_that_a_429_names_is_told_and_junk_is_not(value, seconds, odd_server, refused):
    """In one sentence that says what came, and one that says why it is not waited for."""
    odd_server.answers(429, '{"error": "slow down"}')
    if value.isascii():
        odd_server.headers = {"Retry-After": value}
    error = refused("report")
    assert isinstance(error, RateLimitError)
    told = f"asks to wait {seconds:,} s" if seconds else "asks to wait"
    assert (told in error.message) is bool(seconds)
    assert error.message.count("GET /events/names") == 1
    assert "It was not sent again, because" in error.message


def test_a_date_to_wait_for_is_understood(odd_server, refused):
    """HTTP allows a date, too."""
    odd_server.answers(429, "", Retry_After=format_datetime(datetime.now(UTC) + timedelta(days=1)))
    assert "asks to wait 86," in refused("report").message


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("NO_PROXY", "localhost,[::1"),
        ("NO_PROXY", "fd00::/8,[::1]"),
        ("HTTPS_PROXY", "http://user:planted/pass@proxy:8080"),
        ("HTTPS_PROXY", "telnet://proxy"),
    ],
)
def test_settings_of_the_network_work_or_are_named(variable, value, credentials, monkeypatch):
    """One sentence that names the variable, never its value: it may hold a password."""
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv(variable, value)
    with (
        MixpanelAPIClient(credentials, api_base_url="https://mixpanel.test") as client,
        pytest.raises(ConfigError) as caught,
    ):
        client.get("query", "/events/names")
    assert variable in caught.value.message
    assert "planted" not in f"{caught.value!r} {caught.value} {caught.value.__cause__!r}"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:8765/?a=b", "a query string"),
        ("http://127.0.0.1:8765/#a", "a fragment"),
        ("http://127.0.0.1:99999", "port"),
        ("http://127.0.0.1:0", "port"),
        ("http://127.0.0.1:abc", "no address|not an address"),
        ("127.0.0.1:8765", "look like"),
        ("ftp://127.0.0.1", "look like"),
    ],
)
def test_an_address_that_would_be_mangled_is_refused(url, said, credentials):
    """The error has the reason, before any request is sent."""
    with pytest.raises(ConfigError, match=said):
        MixpanelAPIClient(credentials, api_base_url=url)


def test_every_request_names_the_project_and_its_version(odd_server, refused):
    """Mixpanel's support can tell our requests from those of others."""
    odd_server.answers(500)
    refused("report")
    assert odd_server.user_agents == {f"mixpanel-assets/{__version__} httpx/{httpx.__version__}"}
