"""Leases of days: among machines with a shared state, one load at a time owns a day.

Brokers deliver a run twice, and a machine that was given up may come back.
"""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import date
from functools import cached_property

from mixpanel_assets.client import MixpanelAPIClient
from mixpanel_assets.client.ledger import LedgerOnServer
from mixpanel_assets.errors import DatabaseLockedError, MixpanelDataError
from mixpanel_assets.rules.days import describe_days
from mixpanel_assets.rules.postgres import machine
from mixpanel_assets.warehouse import Database

logger = logging.getLogger(__name__)

FREE_AFTER_SECONDS = 120.0
_RENEW_EVERY_SECONDS = 20.0

_CREATE = """
CREATE TABLE leases (
    database VARCHAR, table_name VARCHAR, day DATE, owner VARCHAR, run VARCHAR, machine VARCHAR,
    renewed_at BIGINT, PRIMARY KEY (database, table_name, day)
)
"""
_IS_THERE = "SELECT to_regclass('leases') IS NOT NULL"
# Times in the future were written before the server's clock was set back: they count as now.
_SET_BACK = "UPDATE leases SET renewed_at = ? WHERE renewed_at > ?"
_FREE = """
DELETE FROM leases WHERE renewed_at < ? AND database = ? AND table_name = ?
  AND day = ANY(?::date[])
"""
_OTHERS = """
SELECT day, run, machine, (? - renewed_at) / 1000 FROM leases
WHERE database = ? AND table_name = ? AND day = ANY(?::date[]) AND owner <> ? ORDER BY day
"""
_TAKE = """
INSERT INTO leases SELECT ?, ?, day, ?, ?, ?, ? FROM unnest(?::date[]) AS day
"""
_RENEW = "UPDATE leases SET renewed_at = ? WHERE owner = ?"
_RENEWED = _RENEW + " AND day = ANY(?::date[]) RETURNING day"
_RELEASE = "DELETE FROM leases WHERE owner = ?"


class DayLeases:
    """The leases of one load, which owns its days while it renews them by the server's clock.

    Without a server that counts the requests, the lock of the file is enough, and nothing is held.

    Args:
        client: Counts its requests on the server that holds the leases.
        database: Where the days are stored; other databases of the project have days of their own.
        table: The table whose days are loaded.
        run_id: For messages to other loads; None: the process.
        renew_seconds: Seconds between two renewals.
    """

    def __init__(
        self,
        client: MixpanelAPIClient,
        database: Database,
        table: str,
        run_id: str | None,
        *,
        renew_seconds: float = _RENEW_EVERY_SECONDS,
    ) -> None:
        self._client = client
        self._database = database
        self._table_name = table
        # Not the run's id: a run that is delivered twice has two owners.
        self._owner = uuid.uuid4().hex
        self._run = f"run {run_id}" if run_id else f"process {os.getpid()}"
        self._renew_seconds = renew_seconds
        self._days: frozenset[date] = frozenset()

    @cached_property
    def _table(self) -> tuple[str, str]:
        return self._database.shared_name, self._table_name

    @property
    def _store(self) -> LedgerOnServer | None:
        store = self._client.budget.store
        return store if isinstance(store, LedgerOnServer) else None

    @contextmanager
    def held(self, days: Collection[date]) -> Iterator[None]:
        """Own some days inside the block.

        Raises:
            DatabaseLockedError: Another load owns one of them; nothing is held.
        """
        if (store := self._store) is None or not days:
            yield
            return
        self._take(store, days)
        ended = threading.Event()
        heartbeat = threading.Thread(target=self._renew_until, args=(store, ended), daemon=True)
        heartbeat.start()
        try:
            yield
        finally:
            ended.set()
            heartbeat.join()
            self._days = frozenset()
            with suppress(MixpanelDataError), store.open() as ledger_db:  # else they expire
                ledger_db.execute(_RELEASE, (self._owner,))

    def confirm(self, days: Collection[date]) -> None:
        """Renew the leases of days that are about to be committed.

        Raises:
            DatabaseLockedError: They were lost to another load.
        """
        store, held_days = self._store, self._days.intersection(days)
        if store is None or not held_days:
            return
        with store.open() as ledger_db:
            now = store.now_ms(ledger_db)
            values = (now, self._owner, sorted(held_days))
            renewed = {day for (day,) in ledger_db.execute(_RENEWED, values)}
            if not (lost := sorted(held_days - renewed)):
                return
            owners = ledger_db.execute(_OTHERS, (now, *self._table, lost, self._owner)).fetchall()
        owner = f"{owners[0][1]} on {owners[0][2]} loads" if owners else "another load has taken"
        raise DatabaseLockedError(
            self._database.place,
            message=f"{describe_days(lost)} of {self._table[1]} was not stored: this process did "
            f"not answer for {FREE_AFTER_SECONDS:.0f} s, and {owner} the day. Nothing has changed; "
            "this load is not needed any more.",
        )

    def _take(self, store: LedgerOnServer, days: Collection[date]) -> None:
        wanted_days = sorted(days)
        with store.open() as ledger_db:
            ((is_there,),) = ledger_db.execute(_IS_THERE)
            if not is_there:
                ledger_db.execute(_CREATE)
            now = store.now_ms(ledger_db)
            expired_at = now - round(FREE_AFTER_SECONDS * 1000)
            ledger_db.execute(_SET_BACK, (now, now))
            ledger_db.execute(_FREE, (expired_at, *self._table, wanted_days))
            owned = ledger_db.execute(_OTHERS, (now, *self._table, wanted_days, self._owner))
            if not (others := owned.fetchall()):
                values = (*self._table, self._owner, self._run, machine(), now, wanted_days)
                ledger_db.execute(_TAKE, values)
        if others:  # after the commit, which keeps the times that were set back
            raise self._refusal(others)
        self._days = frozenset(wanted_days)

    def _refusal(self, others: list[tuple[date, str, str, int]]) -> DatabaseLockedError:
        _, run, host, seconds = others[0]
        return DatabaseLockedError(
            self._database.place,
            message=f"{describe_days([day for day, *_ in others])} of {self._table[1]} is being "
            f"loaded by {run} on {host}, which answered {seconds} s ago. Wait for it, or end it: "
            f"the days are free {FREE_AFTER_SECONDS:.0f} s after its last answer.",
        )

    def _renew_until(self, store: LedgerOnServer, ended: threading.Event) -> None:
        while not ended.wait(self._renew_seconds):
            try:
                with store.open() as ledger_db:
                    ledger_db.execute(_RENEW, (store.now_ms(ledger_db), self._owner))
            except MixpanelDataError as error:  # `confirm` says whether the days were lost
                logger.warning("The leases of this load could not be renewed: %s", error)
