"""An export cut at any byte: the days come whole, or the client says that they did not."""

import random
from collections.abc import Iterable, Iterator
from datetime import date

import httpx
import pytest

from mixpanel_assets.client import MixpanelAPIClient, RetryPolicy, make_credentials
from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets.errors import ConnectionFailedError, IncompleteExportError
from mixpanel_assets_tests.conftest import PLENTY
from mixpanel_assets_tests.laws import TIMES, siblings

DAY = date(2024, 1, 1)
EXPORT = "/api/2.0/export"
ONE_TRY = RetryPolicy(max_retries=0)


@pytest.fixture(scope="module")
def small() -> Iterator[Emulator]:
    """A day of two events, which always come in the same order."""
    settings = EmulatorSettings(days=1, exact_events=2, odd_content=False, stable_order=True)
    with Emulator(settings) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def large() -> Iterator[Emulator]:
    """A day of five hundred events, everything odd among them."""
    with Emulator(EmulatorSettings(days=1, exact_events=500, stable_order=True)) as emulator:
        yield emulator


def client_of(emulator: Emulator) -> MixpanelAPIClient:
    credentials = make_credentials(
        username=emulator.username, secret=emulator.secret, project_id=str(emulator.project_id)
    )
    return MixpanelAPIClient(
        credentials, api_base_url=emulator.base_url, retries=ONE_TRY, budget=PLENTY
    )


def body_of(emulator: Emulator, *, compressed: bool) -> bytes:
    with httpx.stream(
        "GET",
        f"{emulator.base_url}{EXPORT}",
        params={
            "project_id": emulator.project_id,
            "from_date": str(DAY),
            "to_date": str(DAY),
            "time_in_ms": "true",
        },
        auth=(emulator.username, emulator.secret),
        headers={"Accept-Encoding": "gzip" if compressed else "identity"},
        trust_env=False,
    ) as response:
        return b"".join(response.iter_raw())


def answers(emulator, kind, positions, tmp_path) -> Iterator[tuple[int, int | None]]:
    """Cut one answer at each position; yield the position and the lines believed, None if loud."""
    emulator.faults.clear()
    spools = tmp_path / "spool"
    with (
        client_of(emulator) as client,
        client.event_export(from_date=DAY, to_date=DAY, directory=spools) as export,
    ):
        for position in positions:
            emulator.faults.add(Fault(kind, path=EXPORT, at=position))
            try:
                spool = export.download(DAY, DAY)
            except (IncompleteExportError, ConnectionFailedError):
                yield position, None
            else:
                yield position, spool.lines
                spool.discard()
    assert not list(spools.iterdir())


def between_lines(body: bytes) -> dict[int, int]:
    """Return the positions where a cut leaves only whole lines, and how many."""
    unseen = {0: 0, len(body): body.count(b"\n")}
    for position, byte in enumerate(body):
        if byte == ord("\n"):
            lines = body.count(b"\n", 0, position + 1)
            unseen |= {position: lines, position + 1: lines}
    return unseen


def some_of(body: bytes, always: Iterable[int] = ()) -> list[int]:
    """Return positions in a body to cut at: every seventh, or every one if TIMES is large."""
    return sorted({*range(0, len(body), max(1, 7 // TIMES)), *always} - {len(body)})


def test_a_cut_anywhere_in_the_text_is_loud_but_between_lines(small, tmp_path):
    """At positions of a small day; a cut between two lines is the one that none can see."""
    body = body_of(small, compressed=False)
    unseen = between_lines(body)
    positions = some_of(body, always=unseen)
    found = dict(answers(small, "cut-body", positions, tmp_path))
    assert found == {position: unseen.get(position) for position in positions}


@pytest.mark.parametrize("kind", ["cut-chunk", "cut-gzip"])
def test_a_cut_anywhere_in_the_transfer_is_loud(kind, small, tmp_path):
    """Inside chunks or inside gzip, positions of a small day: never believed."""
    body = body_of(small, compressed=True)
    assert body[:2] == b"\x1f\x8b"
    positions = some_of(body)
    found = dict(answers(small, kind, positions, tmp_path))
    assert found == dict.fromkeys(positions)


@pytest.mark.parametrize("kind", siblings(["cut-chunk", "cut-gzip"], keep=1))
def test_a_large_answer_cut_at_random_is_loud(kind, large, tmp_path):
    """Random positions of a large compressed body each way: never believed."""
    body = body_of(large, compressed=True)
    positions = random.Random(7).sample(range(len(body)), min(100 * TIMES, len(body)))
    found = dict(answers(large, kind, positions, tmp_path))
    assert found == dict.fromkeys(positions)
