"""FetchRequest: which events somebody wants in which table, checked before anything is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from mixpanel_assets.client import STREAMED_DAYS, ExportQuery, checked_events
from mixpanel_assets.errors import ConfigError
from mixpanel_assets.warehouse import EVENTS, check_name


@dataclass(frozen=True)
class FetchRequest:
    """What `FetcherService.fetch_events` was asked for; its arguments are explained there.

    Attributes:
        name: The table.
        query: Which events; its `limit` is that of the whole fetch.
        append: Whether they are added to what is there.
        replace: Whether they take the place of what is there.
        chunk_days: The most days that share a request.
        batch_size: Events between two calls that tell how far a request is.
    """

    name: str
    query: ExportQuery
    append: bool
    replace: bool
    chunk_days: int
    batch_size: int

    @property
    def is_asset(self) -> bool:
        """Whether the table is the asset's own."""
        return self.name == EVENTS.name

    @property
    def filters(self) -> dict[str, Any]:
        """What narrows the question, as the ledger keeps it."""
        return self.query.filters

    @property
    def date_range(self) -> tuple[str, str]:
        """First and last day as text, both included."""
        return self.query.from_date.isoformat(), self.query.to_date.isoformat()


def checked_request(
    name: str,
    *,
    from_date: date | str,
    to_date: date | str,
    events: Sequence[str] | None,
    where: str | None,
    limit: int | None,
    append: bool,
    replace: bool,
    chunk_days: int | None,
    batch_size: int,
    parallel: bool,
) -> FetchRequest:
    """Return the request that the arguments make.

    Raises:
        ConfigError: They make none; the message names the argument.
    """
    check_name(name)
    query = checked_events(from_date, to_date, events, where, limit, time_in_ms=True)
    chunk_days = STREAMED_DAYS if chunk_days is None else chunk_days
    _check_number("chunk_days", chunk_days, 1, 100)
    check_batch_size(batch_size)
    request = FetchRequest(name, query, append, replace, chunk_days, batch_size)
    if append and replace:
        raise ConfigError("Give append or replace, not both.")
    if parallel and limit is not None:
        raise ConfigError(
            "limit is for a sequential fetch: requests that run at once cannot share it."
        )
    if request.is_asset and (request.filters or limit is not None):
        raise ConfigError(
            "The table `events` holds whole days. Choose another name for a part of them."
        )
    return request


def check_batch_size(batch_size: int) -> None:
    """Raise `ConfigError` unless it is a number from 100 to 100,000."""
    _check_number("batch_size", batch_size, 100, 100_000)


def _check_number(name: str, value: int, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise ConfigError(f"{name} must be a number from {least} to {most:,}, not {value!r}.")
