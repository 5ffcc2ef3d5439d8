"""What a snapshot says of itself: when it was taken, and of which database.

Only a file with such a stamp is a snapshot that may be replaced or removed, whatever its name.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from mixpanel_assets.warehouse.answers import first_row
from mixpanel_assets.warehouse.project import ProjectIdentity, made_at, stored_project
from mixpanel_assets.warehouse.schema import STAMP, literal


@dataclass(frozen=True)
class Origin:
    """Which database a file is, or is a copy of: whose data it holds, and when it was made."""

    project: ProjectIdentity | None
    made_at: datetime | None

    @classmethod
    def of(cls, connection: duckdb.DuckDBPyConnection) -> Origin:
        """Return what the file of a connection says."""
        return cls(stored_project(connection), made_at(connection))

    def may_be(self, now: Origin) -> bool:
        """Return whether a database that was this one may be that one now.

        One without a project may have got its project since.
        """
        return self.project is None or self == now

    def __str__(self) -> str:
        if self.project is None:
            return "a database without a project"
        return f"a database of project {self.project.project_id} ({self.project.region})"


@dataclass(frozen=True)
class Stamp:
    """What a snapshot says of itself.

    Attributes:
        taken_at: When it was taken; aware, UTC.
        version: The version of the database that it is a copy of.
        origin: Which database that is.
    """

    taken_at: datetime
    version: str
    origin: Origin

    @classmethod
    def read(cls, connection: duckdb.DuckDBPyConnection) -> Stamp | None:
        """Return the stamp of the file of a connection; None when it has none."""
        try:
            row = first_row(connection, f"SELECT taken_at, version FROM {STAMP}")
        except (duckdb.CatalogException, duckdb.BinderException):
            return None
        if row is None or not isinstance(row[0], datetime):
            return None
        return cls(row[0].replace(tzinfo=UTC), str(row[1]), Origin.of(connection))

    def is_of_now(self, database: Path) -> bool:
        """Return whether the database has not changed since."""
        return self.version == version_of(database)

    def is_of_file(self, database: Path) -> bool:
        """Return whether the file is the one that was copied, changed since or not."""
        return self.version.partition(" ")[0] == version_of(database).partition(" ")[0]

    @property
    def age(self) -> float:
        """Seconds since it was taken."""
        return max(0.0, (datetime.now(UTC) - self.taken_at).total_seconds())


def snapshot_path(database: Path) -> Path:
    """Return where the snapshot of a database lies: `x.duckdb` has `x.snapshot.duckdb`."""
    return database.with_name(f"{database.stem}.snapshot{database.suffix}")


def stamp_of(path: Path) -> Stamp | None:
    """Return the stamp of a file; None when it has none, cannot be read or is only a link."""
    if path.is_symlink() or not path.is_file():
        return None
    try:
        with closing(duckdb.connect()) as connection:
            connection.execute(f"ATTACH {literal(str(path))} AS copy (READ_ONLY, TYPE duckdb)")
            connection.execute("USE copy")
            return Stamp.read(connection)
    except duckdb.Error:
        return None


def log_of(database: Path) -> Path:
    """Return where DuckDB keeps what it has not yet written into the file."""
    return database.with_name(f"{database.name}.wal")


def version_of(database: Path) -> str:
    """Return a text that is another one after each commit; the file need not be opened.

    Opening and closing it here would drop the lock that DuckDB holds on it for this process.
    """
    texts = []
    for path in (database, log_of(database)):
        try:
            found = path.stat()
        except OSError:
            continue
        texts.append(f"{found.st_ino} {found.st_size} {found.st_mtime_ns}")
    return ", ".join(texts)
