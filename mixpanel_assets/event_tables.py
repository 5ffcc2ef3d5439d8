"""EventTable: a named table that answers on disk are stored in, in one transaction each time."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mixpanel_assets.client import MixpanelAPIClient, Spool
from mixpanel_assets.errors import (
    DatabaseNotFoundError,
    IncompleteExportError,
    TableExistsError,
)
from mixpanel_assets.fetch_requests import FetchRequest
from mixpanel_assets.loads import project_identity
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import (
    Database,
    EventSizes,
    append_events,
    check_table,
    event_sizes,
    make_way,
    must_match,
    named_events,
    prepare,
    stored_project,
)

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class Answer:
    """A whole answer on disk.

    Attributes:
        spool: The file.
        limit: The limit it was asked with, if that kept events back.
    """

    spool: Spool
    limit: int | None = None


class UnstorableError(IncompleteExportError):
    """An answer came whole, but it is not the asked days."""

    def __init__(self, answer: Answer, error: IncompleteExportError) -> None:
        super().__init__(
            error.message,
            from_date=error.from_date,
            to_date=error.to_date,
            reason=error.reason,
            lines=error.lines,
        )
        self.answer = answer


class EventTable:
    """The table that a request wants filled.

    Args:
        client: Whose project it is.
        database: Where the table is.
        settings: How times are read, and what today is.
        request: What is wanted.

    Attributes:
        project: Whose events they are.
        sizes: What days weigh, by what the asset table holds of them.
        is_replaced: Whether there is a table that is to stay until everything has come.
        rows: Events stored so far, each once.

    Raises:
        ConfigError: The file holds another project, or the table something else.
        TableExistsError: The table is there and is neither appended to nor replaced.
    """

    def __init__(
        self,
        client: MixpanelAPIClient,
        database: Database,
        settings: Settings,
        request: FetchRequest,
    ) -> None:
        self._database = database
        self._settings = settings
        self._request = request
        self._run_id = uuid.uuid4().hex
        self.project = project_identity(client.credentials, settings)
        self.sizes = EventSizes({}, {})
        self.is_replaced = False
        self.rows = 0
        try:
            with database.read() as connection:
                self._look(connection)
        except DatabaseNotFoundError:
            pass
        self._is_new = not request.append and not self.is_replaced

    def store(self, answers: Sequence[Answer], *, replace: bool = False) -> None:
        """Add answers in one transaction; the first ones make the table.

        Args:
            answers: What is stored.
            replace: Drop the old table in the same transaction.

        Raises:
            UnstorableError: One of them is not the asked days; nothing has changed.
        """
        with self._database.write() as connection:
            prepare(connection, self.project)
            if replace or self._is_new:
                make_way(connection, self._request.name, replace=replace)
            rows = sum(self._append(connection, answer) for answer in answers)
        self._is_new = False
        self.rows += rows

    def _look(self, connection: duckdb.DuckDBPyConnection) -> None:
        if stored := stored_project(connection):
            must_match(stored, self.project)
        self.sizes = event_sizes(connection)
        if self._request.append:
            check_table(connection, named_events(self._request.name))
            return
        try:
            make_way(connection, self._request.name, replace=False)
        except TableExistsError:
            if not self._request.replace:
                raise
            self.is_replaced = True

    def _append(self, connection: duckdb.DuckDBPyConnection, answer: Answer) -> int:
        spool, filters = answer.spool, self._request.filters
        try:
            days = append_events(
                connection,
                spool.path,
                table=self._request.name,
                from_date=spool.from_date,
                to_date=spool.to_date,
                lines=spool.lines,
                project=self.project,
                filters=_with_limit(filters, answer.limit),
                is_cut=answer.limit is not None,
                received_bytes=spool.received_bytes,
                requests=spool.requests,
                run_id=self._run_id,
                open_days=[self._settings.today()],
            )
        except IncompleteExportError as error:
            raise UnstorableError(answer, error) from error
        return sum(day.row_count for day in days)


def _with_limit(filters: Mapping[str, Any], limit: int | None) -> dict[str, Any]:
    return {**filters, "limit": limit} if limit is not None else dict(filters)
