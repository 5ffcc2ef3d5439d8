"""The examples of `docs/operations.md`, run as they stand."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mixpanel_assets.cli.demo import environment_of
from mixpanel_assets.emulator import Fault

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "operations.md").read_text()


@pytest.mark.slow
def test_a_failed_run_is_told_to_a_webhook(emulator, monkeypatch, tmp_path):
    """The message to the webhook says what to do next."""
    told: list[str] = []

    class Webhook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.append(json.loads(body)["text"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    for name, value in environment_of(emulator).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MP_DATABASE", str(tmp_path / "w.duckdb"))
    monkeypatch.setenv("MP_MAX_RETRIES", "0")
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    with HTTPServer(("127.0.0.1", 0), Webhook) as server, dg.instance_for_test() as instance:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("ALERT_URL", f"http://127.0.0.1:{server.server_port}/")
        names: dict[str, Any] = {}
        exec(compile(code, "operations.md", "exec"), names)
        job = names["defs"].resolve_job_def("close_yesterday_and_tell")
        emulator.faults.add(Fault("500-json", path="/api/2.0/export", times=None))
        result = job.execute_in_process(
            instance=instance, partition_key="2024-01-03", raise_on_error=False
        )
        server.shutdown()
    assert not result.success
    [text] = told
    assert text.startswith("close_yesterday_and_tell failed: ")
    assert "500" in text


def test_every_job_and_schedule_is_described():
    """The page names what the code location has, and the other way round."""
    from mixpanel_assets.defs.location import build_definitions

    repository = build_definitions().get_repository_def()
    sections = re.findall(r"^## (?:Schedules|Jobs)\n.*?(?=^## )", PAGE, re.MULTILINE | re.DOTALL)
    assert len(sections) == 2
    rows = set(re.findall(r"^\| (`.*?`) \|", "".join(sections), re.MULTILINE))
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    schedules = {schedule.name for schedule in repository.schedule_defs}
    jobs = {name for name in repository.job_names if not name.startswith(("__", "ask_", "stream_"))}
    assert named == schedules | jobs | {"tidy_lake"}  # the last only where there is a lake
