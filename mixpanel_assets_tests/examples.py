"""The prepared names and the database that examples in docstrings and documents run with."""

import doctest
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import mixpanel_assets
from mixpanel_assets import (
    ConfigManager,
    MixpanelAPIClient,
    StorageEngine,
    TableMetadata,
    Workspace,
)
from mixpanel_assets.client import ProfileQuery
from mixpanel_assets.defs.ops import SegmentationConfig
from mixpanel_assets.emulator import Emulator, EmulatorSettings
from mixpanel_assets.settings import load_settings
from mixpanel_assets.warehouse.inspector import TableInspector
from mixpanel_assets.warehouse.stored_queries import StoredQueries

START = date(2024, 1, 1)
NOW = datetime(2024, 1, 31, 23, 59, 59, tzinfo=UTC)
SCRIPT = 'function main() { return Events(params).groupBy(["name"], mixpanel.reducer.count()) }'
SECRET = "secret-of-the-examples"


def shop() -> Emulator:
    """Return a pretend project of one small January."""
    return Emulator(
        EmulatorSettings(
            start=START,
            days=31,
            events_per_day=60,
            profiles=40,
            username="name.a1b2c3.mp-service-account",
            secret=SECRET,
            now=lambda: NOW,
        )
    )


def environment(emulator: Emulator, folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Make this folder the place, and the emulator the Mixpanel, of all that follows."""
    patch.chdir(folder)
    for name, value in {
        "MP_USERNAME": emulator.username,
        "MP_SECRET": emulator.secret,
        "SHOP_MIXPANEL_SECRET": emulator.secret,
        "MP_PROJECT_ID": str(emulator.project_id),
        "MP_REGION": "eu",
        "MP_API_BASE_URL": emulator.base_url,
        "MP_DATABASE": str(folder / "shop.duckdb"),
        "MP_CONFIG_PATH": str(folder / "config.toml"),
        # So that no example spends another one's requests.
        "MP_STATE_DIR": str(folder / "state"),
    }.items():
        patch.setenv(name, value)


def fill(path: Path) -> None:
    """Store a week as the assets do, and January and people as tables of one's own."""
    with Workspace(path=path) as ws:
        ws.sync_events(START, START + timedelta(days=6))
        ws.sync_profiles()
        ws.fetch_events("january", from_date=START, to_date="2024-01-31", progress=False)
        ws.fetch_profiles("people", progress=False)


@contextmanager
def names(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield what an example may use without making it."""
    path = folder / "shop.duckdb"
    settings = load_settings()
    with ExitStack() as opened:
        ws = opened.enter_context(Workspace(path=path))
        yield {
            **{name: getattr(mixpanel_assets, name) for name in mixpanel_assets.__all__},
            # An example speaks to Mixpanel itself.
            "MixpanelAPIClient": partial(MixpanelAPIClient, api_base_url=settings.api_base_url),
            "date": date,
            "datetime": datetime,
            "timedelta": timedelta,
            "UTC": UTC,
            "Path": Path,
            "ProfileQuery": ProfileQuery,
            "SegmentationConfig": SegmentationConfig,
            "StoredQueries": StoredQueries,
            "TableInspector": TableInspector,
            "day": START,
            "now": NOW,
            "path": path,
            "folder": folder,
            "script": SCRIPT,
            "ws": ws,
            "workspace": ws,
            "settings": settings,
            "database": ws.storage.database,
            "storage": ws.storage,
            "client": ws.api,
            "credentials": ws.credentials,
            "discovery": mixpanel_assets.DiscoveryService(ws.api),
            "live": mixpanel_assets.LiveQueryService(ws.api),
            "inspector": _Opened(ws.storage, TableInspector),
            "queries": _Opened(ws.storage, StoredQueries),
            "fetcher": mixpanel_assets.FetcherService(ws.api, ws.storage.database, settings),
            "pages": mixpanel_assets.ParallelProfileFetcherService(
                ws.api, ws.storage.database, settings
            ),
            "resource": mixpanel_assets.MixpanelResource(),
            "accounts": _accounts(),
            "secret": SECRET,
            "events": [
                {
                    "event_name": "Sign Up",
                    "event_time": datetime(2024, 1, 1, 9, tzinfo=UTC),
                    "distinct_id": "user-1",
                    "insert_id": "a1",
                    "properties": {"plan": "free"},
                }
            ],
            "metadata": TableMetadata("events", NOW, "2024-01-01", "2024-01-01"),
        }


def _accounts() -> ConfigManager:
    accounts = ConfigManager()
    for name in ("market", "outlet"):
        accounts.add_account(name, "name.a1.mp-service-account", SECRET, "12345", "eu")
    return accounts


class _Opened:
    """A service over a connection that is there for each call alone."""

    def __init__(self, storage: StorageEngine, kind: Any) -> None:
        self._storage, self._kind = storage, kind

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            with self._storage.read() as connection:
                return getattr(self._kind(connection), name)(*arguments, **named)

        return call


class OutputsThatAreShown(doctest.OutputChecker):
    """Compares what an example shows; one that shows nothing has only to run."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        """Whether the output is as shown; `...` stands for anything."""
        return not want or super().check_output(want, got, optionflags)


def failures(name: str, text: str, known: dict[str, Any]) -> str:
    """Run the examples of a docstring and return what went wrong; empty when nothing did."""
    told: list[str] = []
    runner = doctest.DocTestRunner(
        OutputsThatAreShown(),
        verbose=False,
        optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE,
    )
    runner.run(doctest.DocTestParser().get_doctest(text, known, name, None, 0), out=told.append)
    return "".join(told)


def copied(source: Path, folder: Path) -> Path:
    """Put a copy of the filled database into a folder of one example."""
    return Path(shutil.copy(source, folder / "shop.duckdb"))
