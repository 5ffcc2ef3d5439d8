"""An emulator with a stopped clock and a plain HTTP client: none of our own client's code."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, date, datetime

import httpx
import pytest

from mixpanel_assets.emulator import Emulator, EmulatorSettings

START = date(2024, 1, 1)
NOW = datetime(2024, 1, 15, 12, tzinfo=UTC)
SMALL = EmulatorSettings(start=START, days=14, events_per_day=250, now=lambda: NOW)

Opened = tuple[Emulator, httpx.Client]


def http_client(emulator: Emulator, **changes: object) -> httpx.Client:
    """Return a client that names the project and the service account on every request."""
    options: dict[str, object] = {
        "base_url": emulator.base_url,
        "auth": (emulator.username, emulator.secret),
        "params": {"project_id": emulator.project_id},
        "trust_env": False,
        "timeout": 10,
    }
    return httpx.Client(**(options | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def small_emulator() -> Iterator[Emulator]:
    """Two small weeks that ended yesterday."""
    with Emulator(SMALL) as emulator:
        yield emulator


@pytest.fixture
def emulator(small_emulator: Emulator) -> Iterator[Emulator]:
    """The small emulator, healthy before and after, its clock where it was."""
    yield small_emulator
    small_emulator.faults.clear()
    small_emulator.clock.reset()


@pytest.fixture
def http(emulator: Emulator) -> Iterator[httpx.Client]:
    """A client of the small emulator."""
    with http_client(emulator) as client:
        yield client


@pytest.fixture
def opened() -> Iterator[Callable[..., Opened]]:
    """Start an emulator with other settings, and a client of it."""
    with ExitStack() as stack:

        def start(**changes: object) -> Opened:
            emulator = stack.enter_context(Emulator(SMALL.but(**changes)))
            return emulator, stack.enter_context(http_client(emulator))

        yield start
