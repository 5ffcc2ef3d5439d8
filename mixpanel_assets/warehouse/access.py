"""Whether a database may be read from, or loaded into, for a project."""

from __future__ import annotations

import copy
from contextlib import suppress

from mixpanel_assets.errors import DatabaseLockedError, DatabaseNotFoundError
from mixpanel_assets.warehouse.database import Database
from mixpanel_assets.warehouse.project import ProjectIdentity, check_loadable

_BRIEFLY_SECONDS = 0.5  # most writes are over by then


def check_before_load(database: Database, project: ProjectIdentity) -> None:
    """See that a load could be stored, before it spends a request.

    A database that another process holds is not waited for: the load looks again when it stores.

    Raises:
        ConfigError: The file holds another project, or the same read in another time regime.
        StorageError: The path cannot be a database's, the file is none or cannot be used, its
            tables were changed by hand, or the database is gone and something of it is left.
    """
    database.make_place()
    hurried = copy.copy(database)
    hurried.lock_timeout = min(_BRIEFLY_SECONDS, database.lock_timeout or _BRIEFLY_SECONDS)
    with suppress(DatabaseLockedError, DatabaseNotFoundError), hurried.read() as connection:
        check_loadable(connection, project)
