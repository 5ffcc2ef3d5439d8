"""Load: what an asset returns instead of rows. It fetches and stores itself, piece by piece."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from mixpanel_assets.settings import Settings, load_settings
from mixpanel_assets.warehouse import Database


@dataclass(kw_only=True)
class Load(ABC):
    """Something that knows how to put itself into a database, partition by partition.

    Attributes:
        materialized: The metadata of each partition that is stored, by its key. Whoever runs
            the load fills it, so that a load that breaks off has its finished partitions
            recorded all the same.
    """

    materialized: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    @abstractmethod
    def store(self, database: Database) -> None:
        """Fetch and store everything.

        Raises:
            MixpanelDataError: Part of it could not be had; what was stored before stays.
        """


class HoldsDatabase(Protocol):
    """A `StorageEngine`, as far as loads are concerned."""

    @property
    def database(self) -> Database:
        """What opens the file."""


def database_in(
    storage: Database | HoldsDatabase, settings: Settings | None
) -> tuple[Database, Settings]:
    """Return a database and the settings that hold for it.

    Args:
        storage: The database, or what holds it.
        settings: None: the MP_* variables; responses wait beside the file then.
    """
    database = storage if isinstance(storage, Database) else storage.database
    if settings is None:
        place = database.path
        settings = load_settings().model_copy(
            update={"database": place, "spool_dir": place.with_name("spool")}
        )
    return database, settings
