"""Reads the certificate of a day: its row in the ledger beside what is counted now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from functools import reduce
from operator import xor
from typing import Any

from duckdb import DuckDBPyConnection as Connection

from mixpanel_assets.errors import ConfigError, MissingDaysError
from mixpanel_assets.results import Certificate, Sum
from mixpanel_assets.results.certificate import NOT_ASKED, NOT_KNOWN
from mixpanel_assets.rules.days import counted, how_to_load
from mixpanel_assets.warehouse.events import EVERY_EVENT
from mixpanel_assets.warehouse.faults import number
from mixpanel_assets.warehouse.ledger import OF_TABLE, Receipt, Target
from mixpanel_assets.warehouse.project import stored_project
from mixpanel_assets.warehouse.reconciled import reconciled_days, worst_class
from mixpanel_assets.warehouse.schema import EVENT_COUNTS, QUARANTINE, SCHEMA
from mixpanel_assets.warehouse.tables import day_rows, find_table, known_tables

_OF_RESPONSE = ("request_from", "request_to", "requests", "response_lines", "response_bytes")
_FROM_RECEIPT = (
    *("written_by", *_OF_RESPONSE),
    *("lines", "duplicates", "quarantined", "rows_moved"),
)


def read_certificate(connection: Connection, table: str, day: date) -> Certificate:
    """Return the certificate of a day of an asset's table of events.

    Args:
        connection: Any connection of the database; a file of an earlier version will do.
        table: Its name in schema `mixpanel`.
        day: The export day.

    Raises:
        MissingDaysError: The day was never loaded.
        TableNotFoundError: The table does not exist.
        ConfigError: It is not an asset's table of events.
    """
    target = events_target(connection, table, "Only days of those have a certificate.")
    row = day_rows(connection, target.table, day, day).get(day)
    if row is None or row["fetched_at"] is None or not _is_loaded(row):
        raise _never_loaded(target, day, row)
    receipt = Receipt.of_json(row.get("certificate"))
    received = _received(connection, target, day, receipt, row)
    stored = {
        "rows_kept": row["rows_vanished"] or 0,
        "rows_stored": row["row_count"],
        "rows_counted": number(
            connection, f"SELECT count(*) FROM {target.quoted} WHERE event_date = ?", [day]
        ),
        "lines_stored": row["quarantined"] or 0,
        "lines_counted": number(
            connection,
            f"SELECT count(*) FROM {QUARANTINE.quoted} WHERE {OF_TABLE} AND day = $day",
            target.names | {"day": day},
        ),
    }
    project = stored_project(connection)
    fetched_at: datetime = row["fetched_at"].replace(tzinfo=UTC)
    return Certificate(
        table=target.table,
        day=day,
        project_id=project.project_id if project else "",
        region=project.region if project else "",
        status=row["status"],
        fetched_at=fetched_at,
        run_id=row["run_id"],
        last_error=row["last_error"],
        **received,
        **stored,
        **_live(connection, target, day, fetched_at),
        sums=tuple(_sums(connection, target, day, received | stored)),
        unknown=() if receipt else tuple(name for name in received if received[name] is None),
    )


def events_target(connection: Connection, table: str, advice: str) -> Target:
    """Return an asset's table of events.

    Args:
        connection: Any connection of the database.
        table: Its name.
        advice: The end of the error's message, in sentences.

    Raises:
        TableNotFoundError: It does not exist.
        ConfigError: It is another one.
    """
    target = find_table(connection, table)
    event_tables = {one.target for one in known_tables(connection) if one.type == "events"}
    if target != EVERY_EVENT and (target.schema != SCHEMA or target not in event_tables):
        raise ConfigError(
            f"{table!r} is not an asset's table of events. {advice}", {"table": table}
        )
    return target


def _is_loaded(row: Mapping[str, Any]) -> bool:
    return row["row_count"] > 0 or row["status"] not in ("failed", "not available", "expired")


def _never_loaded(target: Target, day: date, row: Mapping[str, Any] | None) -> MissingDaysError:
    why = "Nothing is known of it: it was not requested, or deleted from this copy since."
    if row is not None:
        why = f"Its status is {row['status']!r}."
        why += f" The last attempt failed: {row['last_error']}" if row["last_error"] else ""
    return MissingDaysError(
        f"{day} of {target.schema}.{target.table} was never loaded, so it has no certificate. "
        f"{why} Load it with {how_to_load([day], target.table)}.",
        table=target.table,
        ranges=[(day, day)],
    )


def _received(
    connection: Connection,
    target: Target,
    day: date,
    receipt: Receipt | None,
    row: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what the response had, as far as it is known."""
    if receipt:
        named = {name: getattr(receipt, name) for name in _FROM_RECEIPT}
        if receipt.request_from is None:
            named |= dict.fromkeys(_OF_RESPONSE)
        verdict, digest = receipt.verdict, receipt.digest
        return {**named, "rows_received": receipt.rows, "verdict": verdict, "digest": digest}
    return {
        **dict.fromkeys(_FROM_RECEIPT),
        "duplicates": row["duplicates_removed"],
        "rows_received": None,
        "verdict": NOT_KNOWN,
        "digest": _older_digest(connection, target, day),
    }


def _older_digest(connection: Connection, target: Target, day: date) -> str | None:
    """Return the digest of a day by those of its events, which schema version 3 has."""
    found = connection.execute(
        f"SELECT digest FROM {EVENT_COUNTS.as_of_now} "
        f"WHERE {OF_TABLE} AND day = $day AND digest IS NOT NULL",
        target.names | {"day": day},
    ).fetchall()
    digests = [int(digest, 16) for (digest,) in found]
    return f"{reduce(xor, digests):032x}" if digests else None


def _live(
    connection: Connection, target: Target, day: date, fetched_at: datetime
) -> dict[str, Any]:
    """Return what Mixpanel counted since the day was loaded."""
    found = [
        one for one in reconciled_days(connection, target, day, day) if one.asked_at >= fetched_at
    ]
    if not found:
        return {
            **dict.fromkeys(("live_stored", "live_count", "live_asked_at")),
            "live_class": NOT_ASKED,
        }
    return {
        "live_stored": sum(one.stored for one in found),
        "live_count": sum(one.live for one in found),
        "live_class": worst_class(found),
        "live_asked_at": max(one.asked_at for one in found),
    }


def _sums(
    connection: Connection, target: Target, day: date, numbers: Mapping[str, Any]
) -> Iterator[Sum]:
    """Yield the sums that the numbers of a day must fulfil."""
    received, stored = numbers["rows_received"], numbers["rows_stored"]
    yield _sum(
        "{} lines = {} rows + {} duplicates + {} quarantined",
        numbers["lines"],
        [received, numbers["duplicates"], numbers["quarantined"]],
    )
    if numbers["request_from"]:
        yield _response(connection, target, day, numbers)
    moved = numbers["rows_moved"]
    yield _sum(
        "{} rows stored = {} received + {} kept - {} moved",
        stored,
        [received, numbers["rows_kept"], moved],
        signs=(1, 1, -1),
    )
    yield _sum("{} rows in the table now = {} stored", numbers["rows_counted"], [stored])
    yield _sum(
        "{} lines in quarantine now = {} by the ledger",
        numbers["lines_counted"],
        [numbers["lines_stored"]],
    )


def _sum(
    words: str, total: int | None, parts: Sequence[int | None], *, signs: Sequence[int] = (1, 1, 1)
) -> Sum:
    text = words.format(*(NOT_KNOWN if one is None else f"{one:,}" for one in (total, *parts)))
    known = [part for part in parts if part is not None]
    if total is None or len(known) < len(parts):
        return Sum(text, None)
    signed = (sign * part for sign, part in zip(signs, known, strict=False))
    return Sum(text, total == sum(signed))


def _response(connection: Connection, target: Target, day: date, numbers: Mapping[str, Any]) -> Sum:
    """Compare the lines of a response with those of its days, as far as they are stored."""
    first, last = numbers["request_from"], numbers["request_to"]
    rows = day_rows(connection, target.table, first, last)
    of_response = [row for row in rows.values() if row["fetched_at"] == rows[day]["fetched_at"]]
    receipts = [Receipt.of_json(row["certificate"]) for row in of_response]
    found = sum(receipt.lines for receipt in receipts if receipt)
    total = numbers["response_lines"]
    text = f"{total:,} lines of the response = {found:,} of {counted(len(of_response), 'day')}"
    if found < total and len(of_response) <= (last - first).days:
        return Sum(f"{text}; its other days were loaded again", None)
    return Sum(text, found == total)
