"""Load: what an asset returns instead of rows; it downloads and stores them piece by piece."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mixpanel_assets.settings import Settings, load_settings
from mixpanel_assets.warehouse import Database


@dataclass(kw_only=True)
class Load(ABC):
    """Rows that a load stores itself, partition by partition.

    Attributes:
        materialized: The metadata of each stored partition, by its key. The code that makes the
            load fills it, so that partitions are recorded even if the load fails later.
    """

    materialized: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    @abstractmethod
    def store(self, database: Database) -> None:
        """Fetch and store everything; what is stored is kept if a later part fails."""


class HoldsDatabase(Protocol):
    """What loads need of a `StorageEngine`."""

    @property
    def database(self) -> Database:
        """Opens the file."""


def settings_beside(database: Database, settings: Settings) -> Settings:
    """Return settings for this database; responses are kept beside the file, if it is one."""
    changes: dict[str, Any] = {"database": database.location}
    if isinstance(database.location, Path):
        changes["spool_dir"] = database.location.with_name("spool")
    return settings.model_copy(update=changes)


def database_in(
    storage: Database | HoldsDatabase, settings: Settings | None
) -> tuple[Database, Settings]:
    """Return the database of a storage and the settings that hold for it.

    Without settings: the MP_* variables; responses are kept beside the file then.
    """
    database = storage if isinstance(storage, Database) else storage.database
    if settings is None:
        settings = settings_beside(database, load_settings())
    return database, settings
