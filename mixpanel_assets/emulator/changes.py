"""Changes of exported days: late, merged, deleted, odd and invalid rows."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import date

from mixpanel_assets.emulator import oddities
from mixpanel_assets.emulator.faults import Fault
from mixpanel_assets.emulator.sample import DAY_MS, Block, Shop, odd_block

_INSERT_ID = re.compile(rb'"\$insert_id":"([0-9a-f]{16})"')
_DISTINCT_ID = re.compile(rb'"distinct_id":"([^"\\]+)"')
_PROCESSED = re.compile(rb'"mp_processing_time_ms":(\d+)')


def apply_changes(
    shop: Shop, day: date, block: Block, changes: Sequence[Fault], *, time_in_ms: bool
) -> Block:
    """Return a changed copy of the first block of a day."""
    for number, change in enumerate(changes):
        if change.kind in ("late-events", "late-release"):
            block = block + _late_rows(shop, day, change, number, time_in_ms)
        elif change.kind in ("forwarded-rows", "repeated-rows"):
            block = block + _other_rows(shop, day, change, number, time_in_ms)
        elif change.kind == "odd-content":
            odd_rows = [
                replace(row, head=row.head.replace("{day}", "{day}-more"))
                for row in oddities.rows(rich=True, room=1_000, turn=3)
            ]
            block = block + odd_block(shop.sample(day), odd_rows, time_in_ms=time_in_ms)
        elif change.kind in ("foreign-rows", "timeless-rows", "surrogate-rows"):
            block = block + _bad_rows(shop, day, change, time_in_ms)
        elif change.kind == "delete-rows":
            block = _delete_rows(block, change.count)
        elif change.kind == "restamp":
            block = _restamp(block, change.count)
    return block


def late_times(shop: Shop, day: date, count: int) -> list[int]:
    """Return the values of `time` of late rows, in milliseconds."""
    begin = shop.sample(day).start_ms + 3_600_000
    return [begin + row * 7_001 % (DAY_MS // 2) for row in range(count)]


def _late_rows(shop: Shop, day: date, change: Fault, number: int, time_in_ms: bool) -> Block:
    """Return rows of a phone that was offline: they arrived later, by default three days."""
    late_rows: Block = []
    late_ms = 3 * DAY_MS if change.seconds is None else int(change.seconds * 1000)
    for row, time in enumerate(late_times(shop, day, change.count)):
        received_ms = time + late_ms
        record = {
            "event": change.text or "Page View",
            "properties": {
                "time": time if time_in_ms else time // 1000,
                "distinct_id": f"user-late-{row}",
                "$insert_id": f"late-{day}-{number}-{row}",
                "$os": "Android",
                "mp_lib": "android",
                "$mp_api_endpoint": "api.mixpanel.com",
                "$mp_api_timestamp_ms": received_ms,
                "mp_processing_time_ms": received_ms + 800,
                "page": "Home",
            },
        }
        line = json.dumps(record, separators=(",", ":")).encode()
        late_rows.append((line, time, received_ms + 800))
    return late_rows


def _other_rows(shop: Shop, day: date, change: Fault, number: int, time_in_ms: bool) -> Block:
    """Return rows that reports do not count: forwarded ones, or repeats with another time.

    Of the repeats of an `$insert_id`, reports count the first one.
    """
    start_of_day_ms = shop.sample(day).start_ms
    rows: Block = []
    for row in range(change.count + (change.kind == "repeated-rows")):
        time = start_of_day_ms + 36_000_000 + row * 1000
        insert_id = f"repeat-{day}-{number}"
        own = {"$mp_is_forwarded": True} if change.kind == "forwarded-rows" else {}
        if own:
            insert_id = f"forwarded-{day}-{number}-{row}"
        record = {
            "event": change.text or "Page View",
            "properties": {
                "time": time if time_in_ms else time // 1000,
                "distinct_id": "user-9200",
                "$insert_id": insert_id,
                **own,
                "mp_processing_time_ms": time + 900,
            },
        }
        line = json.dumps(record, separators=(",", ":")).encode()
        rows.append((line, time, time + 900))
    return rows


# In place of a valid `time`: nothing, null, text, the far future.
_NO_TIMES = ("", '"time":null,', '"time":"noon",', '"time":99999999999999999,')


def _bad_rows(shop: Shop, day: date, change: Fault, time_in_ms: bool) -> Block:
    """Return complete lines that cannot be stored, or that belong to the previous day."""
    start_of_day_ms = shop.sample(day).start_ms
    bad_rows: Block = []
    for row in range(change.count):
        happened_ms = start_of_day_ms + 40_000_000 + row * 1000
        time = happened_ms - DAY_MS if change.kind == "foreign-rows" else happened_ms
        time_json = f'"time":{time if time_in_ms else time // 1000},'
        if change.kind == "timeless-rows":
            time_json = _NO_TIMES[row % len(_NO_TIMES)]
        title = r"half \ud83d" if change.kind == "surrogate-rows" else "bad row"
        line = (
            f'{{"event":"Bad Row","properties":{{{time_json}"distinct_id":"user-9100",'
            f'"$insert_id":"bad-{change.kind}-{day}-{row}","title":"{title}",'
            f'"mp_processing_time_ms":{happened_ms + 900}}}}}'
        )
        bad_rows.append((line.encode(), happened_ms, happened_ms + 900))
    return bad_rows


def _choose_ids(block: Block, count: int) -> set[bytes]:
    """Return insert ids of ordinary rows, the same ones in every call."""
    insert_ids = {_insert_id(line) for line, _, _ in block} - {b""}
    return set(sorted(insert_ids)[:count])


def _insert_id(line: bytes) -> bytes:
    match = _INSERT_ID.search(line)
    return match.group(1) if match else b""


def _delete_rows(block: Block, count: int) -> Block:
    deleted_ids = _choose_ids(block, count)
    return [row for row in block if _insert_id(row[0]) not in deleted_ids]


def _restamp(block: Block, count: int) -> Block:
    """Change the `distinct_id` of rows, as a late merge of identities does."""
    merged_ids = _choose_ids([row for row in block if b"before_identity" not in row[0]], count)
    ids = rb'"distinct_id":"user-merged","$distinct_id_before_identity":"\1"'
    restamped: Block = []
    for line, happened_ms, processed_ms in block:
        if _insert_id(line) in merged_ids and b"before_identity" not in line:
            processed_ms += DAY_MS
            line = _DISTINCT_ID.sub(ids, line, count=1)
            line = _PROCESSED.sub(b'"mp_processing_time_ms":%d' % processed_ms, line, count=1)
        restamped.append((line, happened_ms, processed_ms))
    return restamped
