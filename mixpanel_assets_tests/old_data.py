"""A small database, its snapshot and a spool folder, as one version of the schema writes them.

Run `python -m mixpanel_assets_tests.old_data` before each change of schema and commit the new
folder `data/schema_<version>`: later code must open, migrate and serve it.
"""

import gzip
import json
import shutil
import tempfile
from contextlib import suppress
from datetime import date
from pathlib import Path

import duckdb

from mixpanel_assets import Workspace
from mixpanel_assets.client import make_credentials
from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets.errors import IncompleteExportError, MixpanelDataError
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse.project import schema_version
from mixpanel_assets.warehouse.readers_copy import Publisher

DATA = Path(__file__).with_name("data")
# The first of these databases was written before the sample had early clicks.
SHOP = EmulatorSettings(
    start=date(2024, 1, 1),
    days=6,
    events_per_day=30,
    profiles=25,
    page_size=10,
    early_clicks=False,
)
FILES = ("warehouse.duckdb", "warehouse.snapshot.duckdb")


def main() -> None:
    """Write the folder of the present version."""
    target = DATA / f"schema_{schema_version()}"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    with tempfile.TemporaryDirectory() as folder, Emulator(SHOP) as emulator:
        _load(emulator, Path(folder))
        for name in FILES:
            packed = gzip.compress((Path(folder) / name).read_bytes(), 9, mtime=0)
            (target / f"{name}.gz").write_bytes(packed)
        shutil.copytree(Path(folder) / "spool", target / "spool")
        truth = _counts(Path(folder) / FILES[0])
    (target / "counts.json").write_text(json.dumps(truth, indent=2) + "\n")


def _load(emulator: Emulator, folder: Path) -> None:
    """Fill every table: whole days, a broken one, an empty one, profiles, and named tables."""
    credentials = make_credentials(
        username=emulator.username, secret=emulator.secret, project_id=str(emulator.project_id)
    )
    settings = Settings(
        api_base_url=emulator.base_url,
        database=folder / FILES[0],
        state_dir=str(folder / "state"),
        max_retries=0,
    )
    with Workspace(credentials=credentials, settings=settings) as workspace:
        emulator.faults.add(Fault("surrogate-rows", day=date(2024, 1, 3), count=1))
        # Too many of its lines cannot be stored: the day fails, its answer stays in the spool.
        emulator.faults.add(Fault("timeless-rows", day=date(2024, 1, 5), count=20))
        with suppress(IncompleteExportError):
            workspace.sync_events(date(2024, 1, 1), date(2024, 1, 7))
        workspace.sync_profiles()
        workspace.fetch_events("visits", from_date="2024-01-02", to_date="2024-01-03")
        workspace.fetch_profiles("people")
        emulator.faults.add(Fault("503-empty", path="*engage*", page=2, times=None))
        with suppress(MixpanelDataError):
            workspace.sync_profiles()
    Publisher(workspace.storage.database, "on", print).publish(is_last=True)


def _counts(database: Path) -> dict[str, int]:
    """Return the number of rows of every table."""
    with duckdb.connect(database, read_only=True) as connection:
        names = connection.execute(
            "SELECT schema_name || '.' || table_name FROM duckdb_tables() ORDER BY ALL"
        ).fetchall()
        return {name: connection.table(name).count("*").fetchall()[0][0] for (name,) in names}


if __name__ == "__main__":
    main()
