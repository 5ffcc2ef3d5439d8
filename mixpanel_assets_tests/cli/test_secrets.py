"""No command prints a secret that Mixpanel or a proxy repeats in a response."""

import base64
import json
from urllib.parse import quote

import pytest

from mixpanel_assets.emulator import Fault
from mixpanel_assets_tests.laws import siblings

DAYS = ("--from", "2024-01-01", "--to", "2024-01-02")
EVENT = ("-e", "Sign Up")

COMMANDS = [
    ("-v", "sync", *DAYS),
    ("sync", *DAYS, "--format", "jsonl"),
    ("fetch", "events", *DAYS),
    ("fetch", "events", *DAYS, "--stdout"),
    ("fetch", "events", *DAYS, "--stdout", "--raw"),
    ("fetch", "profiles"),
    ("fetch", "profiles", "--stdout", "--raw"),
    ("-v", "query", "segmentation", *EVENT, *DAYS),
    ("query", "segmentation", *EVENT, *DAYS, "--format", "table"),
    ("query", "funnel", "7509", *DAYS, "--format", "plain"),
    ("query", "retention", "-b", "Sign Up", "-r", "Sign Up", *DAYS),
    ("query", "jql", "-c", "function main() { return 1 }", "--format", "csv"),
    ("query", "event-counts", *EVENT, *DAYS),
    ("query", "property-counts", *EVENT, "-p", "plan", *DAYS),
    ("query", "activity-feed", "-U", "u1"),
    ("query", "saved-report", "1"),
    ("query", "frequency", *DAYS),
    ("query", "segmentation-sum", *EVENT, "--on", 'properties["amount"]', *DAYS),
    ("inspect", "events", "--format", "plain"),
    ("inspect", "properties", *EVENT),
    ("inspect", "values", "-p", "plan"),
    ("inspect", "funnels"),
    ("inspect", "cohorts"),
    ("inspect", "reports"),
    ("inspect", "top-events"),
    ("inspect", "lexicon-schemas"),
    ("doctor",),
    ("doctor", "--format", "json"),
    ("auth", "test"),
    ("auth", "show"),
]
FEW = [("-v", "sync", *DAYS), ("fetch", "profiles"), ("query", "jql", "-c", "x"), ("doctor",)]
KINDS = [
    *("error-object-in-stream", "junk-line", "401-json", "500-json", "400-timeout", "402-json"),
    *("403-json", "404-json", "412-json", "429-export-text", "502-text"),
]


@pytest.mark.parametrize(
    ("kind", "commands"),
    siblings([("error-200", COMMANDS), *((kind, FEW) for kind in KINDS)], keep=3),
)
def test_no_command_shows_a_secret_that_is_repeated(kind, commands, mp_here, emulator, tmp_path):
    """Whatever the status: plain, quoted, escaped or encoded, on no stream and in no file."""
    pair = base64.b64encode(f"{emulator.username}:{emulator.secret}".encode()).decode()
    alone = base64.b64encode(f"x{emulator.secret}y".encode()).decode()
    said = f"no: Authorization: Basic {pair} <{emulator.secret}> {quote(pair, safe='')} {alone}"
    forms = [emulator.secret, pair, quote(pair, safe=""), alone[4:-4], json.dumps(pair)]
    emulator.faults.add(Fault(kind, path="*", times=None, text=said, seconds=3600))
    for command in commands:
        ran = mp_here(*command, MP_MAX_RETRIES="0", MP_OP_RETRIES="0")
        shown = ran.stdout + ran.stderr
        assert [form for form in forms if form in shown] == [], command
    for path in tmp_path.rglob("*"):
        if path.is_file():
            found = path.read_bytes()
            assert [form for form in forms if form.encode() in found] == [], path
