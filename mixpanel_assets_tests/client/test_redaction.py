"""A secret that a server repeats, in whatever form and status, reaches no message and no log."""

import base64
import html
import json
import logging
import threading
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, quote_plus

import pytest

from mixpanel_assets.auth import check_access
from mixpanel_assets.client import MixpanelAPIClient, ProfileQuery, RetryPolicy, make_credentials
from mixpanel_assets.errors import MixpanelDataError
from mixpanel_assets.settings import Settings
from mixpanel_assets_tests.conftest import PLENTY, START
from mixpanel_assets_tests.laws import siblings

USER = "sa.a1.mp-service-account"
SECRET = 'pl/nt"d+5f1c9a&secret=='
ONCE_MORE = RetryPolicy(max_retries=1, first_wait_seconds=0.001, max_wait_seconds=0.01)
PROXY_PASSWORD = "pr%xy:p@ss-0815"


def made(secret: str = SECRET, username: str = USER):
    return make_credentials(username=username, secret=secret, project_id="12345")


def base64_of(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


FORMS = {
    "plain": SECRET,
    "header": "Basic " + base64_of(f"{USER}:{SECRET}"),
    "base64 alone": base64_of(SECRET),
    "base64 one byte on": base64_of("x" + SECRET + "yz"),
    "base64 two bytes on": base64_of("xy" + SECRET),
    "base64 for addresses": base64.urlsafe_b64encode(f"{USER}:{SECRET}".encode()).decode(),
    "base64 over lines": base64.encodebytes(b"x" * 70 + SECRET.encode()).decode(),
    "base64 quoted": quote(base64_of(f"{USER}:{SECRET}"), safe=""),
    "quoted": quote(SECRET, safe=""),
    "quoted, small letters": quote(SECRET, safe="").lower().replace("5f1c9a", "5f1c9a"),
    "quoted with plus": quote_plus(SECRET),
    "quoted twice": quote(quote(SECRET, safe=""), safe=""),
    "in JSON": json.dumps(SECRET)[1:-1],
    "in JSON in JSON": json.dumps(json.dumps(SECRET))[3:-3],
    "all escaped": "".join(f"\\u{ord(letter):04x}" for letter in SECRET),
    "in PHP's JSON": json.dumps(SECRET)[1:-1].replace("/", "\\/"),
    "in Python's repr": repr(f"'{SECRET}"),
    "in HTML": html.escape(SECRET),
    "hexadecimal": SECRET.encode().hex(),
}


def traces(text: str) -> list[str]:
    """Return pieces of the secret that stand in a text."""
    hidden = [SECRET, "5f1c9a", base64_of(SECRET)[4:20], *FORMS.values(), SECRET.encode().hex()]
    return [one for one in hidden if one in text]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_no_form_of_a_secret_is_left(form):
    """Plain, base64 at any place, quoted or escaped: the text around it stays."""
    cleaned = made().redact(f"Refused: <{form}> is unknown")
    assert cleaned.startswith("Refused: <")
    assert "[secret]" in cleaned
    assert cleaned.endswith("> is unknown")
    assert traces(cleaned) == []


@pytest.mark.parametrize("secret", ["b", "sec", "1234567"])
def test_a_short_secret_blacks_out_no_words(secret):
    """A secret below eight characters stands in ordinary words; only the header is hidden."""
    said = f"been found: {secret}, 12345678 seconds"
    assert made(secret).redact(said) == said
    header = made(secret).auth_header()
    assert header.split()[1] not in made(secret).redact(f"asked with {header}.")


def test_a_foreign_authorization_is_hidden_too():
    """A token that another program sent or a gateway added is hidden."""
    cleaned = made().redact(
        "{'Proxy-Authorization': 'Basic cHJveHk6cGFzczEyMw==', "
        '"authorization": "Bearer eyJhbGciOi.x1", "api_secret": "0123456789abcdef0123456789abcdef"}'
    )
    assert "cHJveHk6" not in cleaned
    assert "eyJhbGciOi" not in cleaned
    assert "0123456789abcdef" not in cleaned
    assert cleaned.count("[secret]") == 3


@pytest.mark.parametrize(
    "said",
    [
        "Authorization: credentials are missing",
        "Basic authentication required",
        "unexpected token: identifier2 in line 3",
        "see https://help.mixpanel.example/path:with@sign?a=b",
    ],
)
def test_an_ordinary_message_stays_as_it_is(said):
    """Words about credentials are no credentials."""
    assert made().redact(said) == said


def test_proxy_passwords_are_hidden(monkeypatch):
    """A proxy's password, with its name in an address or by itself, encoded or not."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://corp:{quote(PROXY_PASSWORD, safe='')}@127.0.0.1:9")
    for form in (
        PROXY_PASSWORD,
        quote(PROXY_PASSWORD, safe=""),
        base64_of(f"corp:{PROXY_PASSWORD}"),
        f"http://other:s3@proxy:3128/{PROXY_PASSWORD}",
    ):
        cleaned = made().redact(f"407 {form} refused")
        assert "0815" not in cleaned
        assert "s3@" not in cleaned
        assert base64_of(PROXY_PASSWORD)[4:12] not in cleaned


@pytest.fixture
def echo() -> Iterator[tuple[str, dict]]:
    """A server that answers everything with a status and a text of the test's choosing."""
    answer: dict = {"status": 200, "body": b"", "type": "application/json"}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16  # an answer in one piece does not wait for the client's word

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if line := answer.get("wire"):
                self.wfile.write(line)
                self.close_connection = True
                return
            self.send_response(answer["status"], answer.get("reason"))
            self.send_header("Content-Type", answer["type"])
            if encoding := answer.get("encoding"):
                self.send_header("Content-Encoding", encoding)
            self.send_header("Content-Length", str(len(answer["body"])))
            self.send_header("Retry-After", "3600")
            self.send_header("Location", f"/{FORMS['quoted']}")
            self.end_headers()
            self.wfile.write(answer["body"])

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", answer
        server.shutdown()
        thread.join()


def everything_of(error: BaseException) -> str:
    """Return what can be seen of an exception: message, attributes, traceback, causes."""
    texts = ["".join(traceback.format_exception(error))]
    while error:
        texts += [repr(error), repr(vars(error)), repr(error.args)]
        if isinstance(error, MixpanelDataError):
            texts.append(json.dumps(error.to_dict(), default=str))
        error = error.__cause__ or error.__context__
    return "\n".join(texts)


def questions(client: MixpanelAPIClient, url: str, folder) -> list:
    return [
        lambda: client.get("query", "/segmentation"),
        lambda: client.post("query", "/jql", {"script": "x"}),
        lambda: client.get("app", "/me"),
        lambda: list(client.event_export(from_date=START, to_date=START, directory=folder)),
        lambda: list(client.stream_events(from_date=START, to_date=START)),
        lambda: list(client.stream_profiles()),
        lambda: client.plan_profiles(folder / "pages", ProfileQuery()),
        lambda: check_access(
            client.credentials, Settings(api_base_url=url, max_retries=0, state_dir=":memory:")
        ),
    ]


STATUSES = [200, 204, 302, 400, 401, 402, 403, 404, 412, 418, 429, 500, 503]


@pytest.mark.parametrize("status", siblings(STATUSES, keep=6))
def test_no_status_lets_a_secret_through(status, echo, tmp_path, caplog):
    """Queries, export, profiles, JQL: message, attributes, causes and logs are clean."""
    url, answer = echo
    answer["status"] = status
    said = " ".join(FORMS.values())
    with (
        MixpanelAPIClient(made(), api_base_url=url, retries=ONCE_MORE, budget=PLENTY) as client,
        caplog.at_level(logging.DEBUG, "mixpanel_assets"),
    ):
        for body in (
            json.dumps({"error": f"no: {said}", "request": said}),
            json.dumps({"error": {"text": "-" * 490 + said}}),
            f"{said} is not JSON, Uncaught exception X: {said}",
        ):
            answer["body"] = b"" if status == 204 else body.encode()
            asked = questions(client, url, tmp_path / "spool")
            for ask in asked[:-1] if status == 429 else asked:  # the last one waits for long
                with pytest.raises(MixpanelDataError) as caught:
                    ask()
                assert traces(everything_of(caught.value)) == []
    assert traces(caplog.text) == []


def test_a_header_that_is_shown_lets_no_secret_through(echo, tmp_path):
    """The message names the encoding of a body that cannot be read."""
    url, answer = echo
    for answer["encoding"] in (f"x{SECRET}", f"br {FORMS['header']}"):
        with MixpanelAPIClient(
            made(), api_base_url=url, retries=ONCE_MORE, budget=PLENTY
        ) as client:
            for ask in questions(client, url, tmp_path / "spool"):
                with pytest.raises(MixpanelDataError) as caught:
                    ask()
                assert traces(everything_of(caught.value)) == []


def test_a_broken_answer_on_the_wire_lets_no_secret_through(echo, tmp_path):
    """A header line that is none is quoted by the HTTP library, in the cause as well."""
    url, answer = echo
    answer["wire"] = f"HTTP/1.1 200 OK\r\n{FORMS['header']} {SECRET}\r\n\r\n".encode()
    with MixpanelAPIClient(made(), api_base_url=url, retries=ONCE_MORE, budget=PLENTY) as client:
        for ask in questions(client, url, tmp_path / "spool"):
            with pytest.raises(MixpanelDataError) as caught:
                ask()
            assert traces(everything_of(caught.value)) == []


def test_names_that_the_app_api_tells_are_shown_without_a_secret(echo):
    """What `mp doctor` and `mp auth test` show of a good answer is text of a server too."""
    url, answer = echo
    settings = Settings(api_base_url=url, max_retries=0, state_dir=":memory:")
    project = {"name": f"shop {FORMS['header']}", "timezone": SECRET}
    answer["body"] = json.dumps({"results": {"projects": {"12345": project}}}).encode()
    assert traces(repr(check_access(made(), settings))) == []
    answer["body"] = json.dumps({"results": {"projects": {SECRET: project}}}).encode()
    with pytest.raises(MixpanelDataError) as caught:
        check_access(made(), settings)
    assert traces(everything_of(caught.value)) == []
