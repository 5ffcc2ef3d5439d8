"""The ledger of one API family: who may ask now, what was spent, what a 429 forbade.

The times of requests lie in a pyrate-limiter bucket; what 429s said in a table of ours beside
it. Every decision is made under one lock, with the time read under it.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pyrate_limiter import RateItem, SQLiteBucket, SQLiteQueries

from mixpanel_assets.client.limits import ApiLimits, BudgetSettings
from mixpanel_assets.client.places import Place
from mixpanel_assets.client.types import Api, ApiUsage


@dataclass(frozen=True)
class Permit:
    """A request may be sent.

    Attributes:
        refusals: 429s without a time, one after the other, up to now.
    """

    refusals: int = 0


@dataclass(frozen=True)
class Denial:
    """A request may not be sent yet.

    Attributes:
        seconds: Asking again sooner is useless.
        reason: Why, in words.
    """

    seconds: float
    reason: str


class Ledger:
    """Spends the budget of one API family of one project.

    Args:
        api: The API family.
        settings: How much may be spent.
        place: Where it is written down.
    """

    def __init__(self, api: Api, settings: BudgetSettings, place: Place) -> None:
        self.api = api
        self.limits: ApiLimits = settings.limits(api)
        self._rates = self.limits.rates()
        self._settings = settings
        self._place = place

    def take(self, *, counted: bool = True) -> Permit | Denial:
        """Spend one request, or say how long that is not possible.

        Args:
            counted: False for requests that Mixpanel does not count; 429s hold for them too.
        """
        with self._open() as (connection, lock):
            now = _now()
            not_before, refusals = self._refusals(connection, now)
            if now < not_before:
                return Denial((not_before - now) / 1000, "Mixpanel answered 429")
            if not counted or not self._rates:
                return Permit(refusals)
            bucket = self._bucket(connection, lock)
            self._tidy(connection, now)
            item = RateItem(self.api, now)
            if bucket.put(item):
                return Permit(refusals)
            return Denial(_waiting(bucket, item) / 1000, self._spent(bucket))

    def refused(self, permit: Permit, retry_after: float | None) -> None:
        """Note a 429: nobody asks before the time it names.

        Args:
            permit: What the refused request was sent with.
            retry_after: Seconds that Mixpanel named; None doubles the wait of the last time.
        """
        longest = self._settings.longest_refusal_seconds
        with self._open() as (connection, _):
            now = _now()
            not_before, refusals = self._refusals(connection, now)
            if retry_after is None:
                if refusals > permit.refusals:
                    return  # sent before the wait that another 429 has already begun
                retry_after = min(
                    self._settings.refusal_wait_seconds * 2.0 ** min(refusals, 30), longest
                )
                refusals += 1
            # A 429 that says "now" is not obeyed to the letter: that would be a busy loop.
            retry_after = max(retry_after, min(1.0, self._settings.refusal_wait_seconds))
            until = now + math.ceil(min(retry_after, longest) * 1000)
            self._write_refusals(connection, max(until, not_before), refusals)

    def accepted(self, permit: Permit) -> None:
        """Note an answer that is no 429: the next wait without a time starts small again."""
        if permit.refusals:
            with self._open() as (connection, _):
                not_before, refusals = self._refusals(connection, _now())
                if refusals == permit.refusals:
                    self._write_refusals(connection, not_before, 0)

    def usage(self) -> ApiUsage:
        """Return what is spent and left at this moment."""
        limit = self.limits.per_window or 0
        window = round(self.limits.window_seconds * 1000)
        with self._open() as (connection, _):
            now = _now()
            not_before, _refusals = self._refusals(connection, now)
            query = f'SELECT item_timestamp FROM "{self.api}" WHERE item_timestamp >= ? ORDER BY 1'
            times = [time for (time,) in connection.execute(query, (now - window,))]
        blocked_until = not_before if now < not_before else 0
        slot = times[-limit] + window if limit and len(times) >= limit else 0
        return ApiUsage(
            api=self.api,
            limit=limit,
            used=len(times),
            left=max(0, limit - len(times)),
            window_seconds=self.limits.window_seconds,
            next_slot_at=_moment(max(slot, blocked_until)),
            refills_at=_moment(times[-1] + window if times else 0),
            blocked_until=_moment(blocked_until),
        )

    @contextmanager
    def _open(self) -> Iterator[tuple[sqlite3.Connection, Any]]:
        with self._place.open() as (connection, lock):
            connection.execute(SQLiteQueries.CREATE_BUCKET_TABLE.format(table=self.api))
            connection.execute(
                "CREATE TABLE IF NOT EXISTS refusals "
                "(api VARCHAR PRIMARY KEY, not_before INTEGER, count INTEGER)"
            )
            yield connection, lock
            connection.commit()

    def _bucket(self, connection: sqlite3.Connection, lock: Any) -> SQLiteBucket:
        return SQLiteBucket(self._rates, connection, self.api, lock=lock)

    def _refusals(self, connection: sqlite3.Connection, now: int) -> tuple[int, int]:
        query = "SELECT not_before, count FROM refusals WHERE api = ?"
        not_before, count = connection.execute(query, (self.api,)).fetchone() or (0, 0)
        # A clock that was set back must not turn an hour's wait into a day's.
        return min(not_before, now + round(self._settings.longest_refusal_seconds * 1000)), count

    def _write_refusals(self, connection: sqlite3.Connection, not_before: int, count: int) -> None:
        connection.execute(
            "INSERT OR REPLACE INTO refusals VALUES (?, ?, ?)", (self.api, not_before, count)
        )

    def _tidy(self, connection: sqlite3.Connection, now: int) -> None:
        # Requests of the future were made before the clock was set back: count them as of now.
        connection.execute(
            f'UPDATE "{self.api}" SET item_timestamp = ? WHERE item_timestamp > ?', (now, now)
        )
        oldest = now - round(self.limits.window_seconds * 1000)
        connection.execute(f'DELETE FROM "{self.api}" WHERE item_timestamp < ?', (oldest,))

    def _spent(self, bucket: SQLiteBucket) -> str:
        if bucket.failing_rate and bucket.failing_rate.limit == self.limits.per_window:
            return (
                f"all {self.limits.per_window} {self.api} requests of "
                f"{self.limits.window_seconds:,.0f} s are spent"
            )
        return f"{self.api} requests keep {self.limits.spacing_seconds} s apart"


def _waiting(bucket: SQLiteBucket, item: RateItem) -> int:
    waiting = bucket.waiting(item)
    assert isinstance(waiting, int), "the SQLite bucket answers at once"
    return max(1, waiting)


def _now() -> int:
    return math.floor(datetime.now(UTC).timestamp() * 1000)


def _moment(milliseconds: int) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None
