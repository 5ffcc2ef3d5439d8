"""Stored days are compared with the same days read again: exactly the differences are found."""

import json
import shutil
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from mixpanel_assets.client import MixpanelAPIClient, make_credentials
from mixpanel_assets.emulator import Emulator
from mixpanel_assets.errors import ConfigError, DatabaseNotFoundError
from mixpanel_assets.loading.events import EventLoad
from mixpanel_assets.loading.verification import verify_days
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import Database, DayDifference
from mixpanel_assets_tests.conftest import PLENTY
from mixpanel_assets_tests.laws import siblings

FIRST, LAST = date(2024, 1, 2), date(2024, 1, 4)
DAY = date(2024, 1, 3)
OF_THE_DAY = f"event_date = DATE '{DAY}'"
FIRST_ROWS = f"rowid IN (SELECT rowid FROM mixpanel.events WHERE {OF_THE_DAY} ORDER BY ALL LIMIT 3)"


@pytest.fixture(scope="module")
def loaded(shared_emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of three stored days."""
    shared_emulator.faults.clear()
    path = tmp_path_factory.mktemp("loaded") / "w.duckdb"
    credentials = make_credentials(
        username=shared_emulator.username, secret=shared_emulator.secret, project_id="12345"
    )
    settings = Settings(api_base_url=shared_emulator.base_url, database=path)
    with MixpanelAPIClient(
        credentials, api_base_url=shared_emulator.base_url, budget=PLENTY
    ) as client:
        EventLoad(client, settings, from_date=FIRST, to_date=LAST).store(Database(path))
    return path


@pytest.fixture
def database(loaded: Path, settings: Settings) -> Database:
    """Three stored days, in a file of this test's own."""
    return Database(Path(shutil.copy(loaded, settings.database_path("12345"))))


def verified(
    client: MixpanelAPIClient, settings: Settings, database: Database, **days: Any
) -> dict[date, DayDifference]:
    found = verify_days(client, settings, database, **{"from_date": FIRST, "to_date": LAST, **days})
    return {one.day: one for one in found}


def test_days_that_are_the_same_do_not_differ(client, settings, database, emulator):
    """Ids that we made included; it costs what the load cost, and leaves nothing behind."""
    since = len(emulator.requests)
    found = verified(client, settings, database)
    assert [(day, one.differs) for day, one in found.items()] == [
        (FIRST + timedelta(days=number), False) for number in range(3)
    ]
    assert found[DAY].stored == found[DAY].fetched > 0
    assert len(emulator.requests) == since + 1
    assert not list(Path(settings.spool_path("12345")).iterdir())


@pytest.mark.parametrize(
    ("change", "expected"),
    siblings(
        [
            (f"DELETE FROM mixpanel.events WHERE {FIRST_ROWS}", {"missing": 3}),
            (f"INSERT INTO mixpanel.events FROM mixpanel.events WHERE {FIRST_ROWS}", {"gone": 3}),
            (
                "UPDATE mixpanel.events SET properties = "
                f"json_merge_patch(properties, '{{\"new\":1}}') WHERE {FIRST_ROWS}",
                {"changed": 3},
            ),
            (f"UPDATE mixpanel.events SET distinct_id = 'x' WHERE {FIRST_ROWS}", {"changed": 3}),
            (
                f"UPDATE mixpanel.events SET time_raw = time_raw + 1 WHERE {FIRST_ROWS}",
                {"missing": 3, "gone": 3},
            ),
            (
                f"UPDATE mixpanel.events SET insert_id = 'x' || insert_id WHERE {FIRST_ROWS}",
                {"missing": 3, "gone": 3},
            ),
        ],
        keep=3,
    ),
)
def test_each_kind_of_difference_is_counted(client, settings, database, change, expected):
    """On its day alone."""
    with database.write() as connection:
        connection.execute(change)
    found = verified(client, settings, database)
    assert [day for day, one in found.items() if one.differs] == [DAY]
    one = found[DAY]
    counts = {"missing": one.missing, "gone": one.gone, "changed": one.changed}
    assert {kind: count for kind, count in counts.items() if count} == expected
    assert one.stored - one.gone == one.fetched - one.missing
    assert one.events
    assert not found[FIRST].events


@pytest.mark.parametrize(
    "change",
    [
        "json_merge_patch(properties, '{\"mp_processing_time_ms\":1}')",
        "'{\"$is_reshuffled\":true,' || substr(properties::VARCHAR, 2)",
    ],
)
def test_what_mixpanel_rewrites_is_no_difference(client, settings, database, change):
    """Such as when it processed an event."""
    with database.write() as connection:
        connection.execute(f"UPDATE mixpanel.events SET properties = {change} WHERE {OF_THE_DAY}")
    assert not any(one.differs for one in verified(client, settings, database).values())


def test_the_order_of_properties_is_no_difference(client, settings, database):
    """JSON objects have none."""
    with database.write() as connection:
        rows = connection.execute(
            f"SELECT rowid, properties::VARCHAR FROM mixpanel.events WHERE {OF_THE_DAY}"
        ).fetchall()
        for row, text in rows[:50]:
            turned = json.dumps(dict(reversed(json.loads(text).items())))
            connection.execute(
                "UPDATE mixpanel.events SET properties = ? WHERE rowid = ?", [turned, row]
            )
    assert not any(one.differs for one in verified(client, settings, database).values())


def test_a_day_that_was_never_loaded_differs(client, settings, database):
    """A missing day differs even if Mixpanel has no events of it."""
    found = verified(client, settings, database, from_date=date(2024, 1, 1))
    assert [day for day, one in found.items() if one.differs] == [date(2024, 1, 1)]
    assert found[date(2024, 1, 1)].status is None


def test_only_finished_days_of_a_database_can_be_compared(
    client: MixpanelAPIClient, settings: Settings, emulator: Emulator, tmp_path: Path
):
    """No request is sent for other days."""
    since = len(emulator.requests)
    database = Database(tmp_path / "none.duckdb")
    with pytest.raises(DatabaseNotFoundError):
        verified(client, settings, database)
    with pytest.raises(ConfigError, match="has not ended"):
        verified(client, settings, database, to_date=settings.today())
    assert len(emulator.requests) == since
