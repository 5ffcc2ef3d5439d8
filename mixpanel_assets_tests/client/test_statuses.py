"""Only a status of 200 is an answer; whatever stands between us and Mixpanel is named."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mixpanel_assets.client import MixpanelAPIClient
from mixpanel_assets.errors import ConnectionFailedError, ServerError
from mixpanel_assets_tests.conftest import IMPATIENT, PLENTY, START


@pytest.fixture
def stranger(request) -> Iterator[str]:
    """A server that answers every request with one status and no body."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(request.param)
            self.send_header("Location", "/login")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("stranger", "error"),
    [
        *((status, ConnectionFailedError) for status in (301, 302, 304, 307, 308)),
        *((status, ServerError) for status in (204, 206)),
    ],
    indirect=["stranger"],
)
def test_an_empty_answer_with_another_status_is_no_empty_day(
    stranger, error, credentials, tmp_path
):
    """A login page, a captive portal or a cache never empties a day."""
    with (
        MixpanelAPIClient(
            credentials, api_base_url=stranger, retries=IMPATIENT, budget=PLENTY
        ) as client,
        pytest.raises(error),
    ):
        list(client.event_export(from_date=START, to_date=START, directory=tmp_path / "spool"))
