"""EventTable: a named table that answers on disk are stored in, in one transaction each time."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from mixpanel_assets.client import MixpanelAPIClient, Spool
from mixpanel_assets.errors import (
    DatabaseNotFoundError,
    IncompleteExportError,
    TableExistsError,
)
from mixpanel_assets.fetch_requests import FetchRequest
from mixpanel_assets.loads import project_identity
from mixpanel_assets.planning import days_between
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import (
    Database,
    DayReport,
    EventSizes,
    append_events,
    check_before_load,
    check_table,
    event_sizes,
    make_way,
    mark_empty_days,
    named_events,
    prepare,
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


class UnconfirmedDaysError(Exception):
    """Days have no events, and only one response says so."""

    def __init__(self, days: set[date]) -> None:
        super().__init__(f"{len(days)} days came without events")
        self.days = days


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
        empty_before: Days that came without events once; one more such response is believed.

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
        self.empty_before: set[date] = set()
        check_before_load(database, self.project)
        with suppress(DatabaseNotFoundError), database.read() as connection:
            self._look(connection)
        self._is_new = not request.append and not self.is_replaced

    def store(self, answers: Sequence[Answer], *, replace: bool = False) -> set[date]:
        """Add answers in one transaction; the first ones make the table.

        Args:
            answers: What is stored.
            replace: Drop the old table in the same transaction.

        Returns:
            Days without events that are not stored yet, because no earlier response of this
            table said so.

        Raises:
            UnstorableError: One of them is not the asked days; nothing has changed.
        """
        with self._storing(answers, replace=replace) as unconfirmed:
            return unconfirmed

    def store_all(self, answers: Sequence[Answer], *, replace: bool = False) -> None:
        """Do what `store` does, or nothing if days without events are not confirmed.

        Raises:
            UnconfirmedDaysError: Nothing has changed.
            UnstorableError: See `store`.
        """
        with self._storing(answers, replace=replace) as unconfirmed:
            if unconfirmed:
                raise UnconfirmedDaysError(unconfirmed)

    def store_empty(self, days: Sequence[date]) -> None:
        """Note that days have no events; their response was stored before."""
        with self._database.write() as connection:
            mark_empty_days(
                connection,
                days,
                table=self._request.name,
                filters=_with_limit(self._request.filters, None),
                run_id=self._run_id,
            )

    @contextmanager
    def _storing(self, answers: Sequence[Answer], *, replace: bool) -> Iterator[set[date]]:
        """Yield the unconfirmed days before the transaction is committed."""
        with self._database.write() as connection:
            prepare(connection, self.project)
            if replace or self._is_new:
                make_way(connection, self._request.name, replace=replace)
            reports = [self._append(connection, answer) for answer in answers]
            written = {report.day for days in reports for report in days}
            asked = {day for answer in answers for day in _days_of(answer)}
            yield asked - written
        self._is_new = False
        self.rows += sum(report.row_count for days in reports for report in days)

    def _look(self, connection: duckdb.DuckDBPyConnection) -> None:
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

    def _append(self, connection: duckdb.DuckDBPyConnection, answer: Answer) -> list[DayReport]:
        spool, filters = answer.spool, self._request.filters
        try:
            return append_events(
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
                empty_before=self.empty_before,
            )
        except IncompleteExportError as error:
            raise UnstorableError(answer, error) from error


def _days_of(answer: Answer) -> list[date]:
    return days_between(answer.spool.from_date, answer.spool.to_date)


def _with_limit(filters: Mapping[str, Any], limit: int | None) -> dict[str, Any]:
    return {**filters, "limit": limit} if limit is not None else dict(filters)
