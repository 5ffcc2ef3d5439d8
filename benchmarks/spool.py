"""A received file of realistic events from a seed, so that measurements can be repeated."""

from __future__ import annotations

import gzip
import json
import random
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

DAY = date(2026, 3, 1)
_EVENTS = ("Page View", "Sign Up", "Add to Cart", "Order Completed", "Search", "Nightly Sync")
_CITIES = ("Lyon", "Köln", "São Paulo", "Kraków", "Tōkyō", "Austin", "Leeds", "Utrecht")
_BROWSERS = ("Chrome", "Safari", "Firefox", "Edge")
_SYSTEMS = ("Mac OS X", "Windows", "Linux", "iOS", "Android")
_DUPLICATES = 0.03


def write_spool(
    path: Path, *, events: int, seed: int = 7, day: date = DAY, odd: bool = False
) -> int:
    """Write gzipped lines, 3 % of them duplicates; return the bytes before compression.

    Of `odd` lines, each has a price such as 21.90; one in a hundred has a number of 20 digits, an
    escape, no id, or a space; one in all cannot be stored.
    """
    chance = random.Random(seed)
    start = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)
    written, recent = 0, [_event(chance, start)]
    with gzip.open(path, "wb", compresslevel=6) as spool:
        for _ in range(events):
            event = (
                _duplicate(chance, recent)
                if chance.random() < _DUPLICATES
                else _event(chance, start)
            )
            recent = [*recent[-50:], event]
            line = _line(event)
            written += spool.write(_odd(line, chance) if odd else line)
        if odd:
            written += spool.write(_line(recent[-1]).replace(b'"Coupon":null', _HALF_PAIR))
    return written


_HALF_PAIR = rb'"Coupon":"\ud83d"'
_ODD = (
    (b'"$screen_height":', b'"Order":12345678901234567890,"$screen_height":'),
    (b'"mp_lib":"web"', rb'"mp_lib":"\u0077eb"'),
    (b'"$insert_id":', b'"id":'),
    (b'"Coupon":', b'"Coupon": '),
)


def _odd(line: bytes, chance: random.Random) -> bytes:
    line = line.replace(b'"First Order":', b'"Price":21.90,"First Order":')
    if chance.random() < 0.01:
        line = line.replace(*chance.choice(_ODD))
    return line


def _line(event: dict[str, Any]) -> bytes:
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _duplicate(chance: random.Random, recent: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one of the last events again, processed later, as Mixpanel sends it."""
    event = chance.choice(recent)
    later = event["properties"]["mp_processing_time_ms"] + chance.randrange(1000)
    return {**event, "properties": {**event["properties"], "mp_processing_time_ms": later}}


def _event(chance: random.Random, start: int) -> dict[str, Any]:
    time = start + chance.randrange(86_400_000)
    user = chance.randrange(50_000)
    path = f"https://shop.example/{chance.choice(('thanks', 'cart', 'item', 'search'))}"
    return {
        "event": chance.choice(_EVENTS),
        "properties": {
            "time": time,
            "distinct_id": f"user-{user}",
            "$browser": chance.choice(_BROWSERS),
            "$browser_version": chance.randrange(90, 130),
            "$city": chance.choice(_CITIES),
            "$current_url": f"{path}/{chance.randrange(9999)}",
            "$device_id": f"{chance.getrandbits(64):016x}",
            "$insert_id": f"{chance.getrandbits(64):016x}",
            "$lib_version": "2.56.0",
            "$mp_api_endpoint": "api-js.mixpanel.com",
            "$mp_api_timestamp_ms": time + chance.randrange(5000),
            "$os": chance.choice(_SYSTEMS),
            "$screen_height": chance.choice((720, 900, 1080, 1440)),
            "$user_id": f"user-{user}",
            "mp_country_code": "FR",
            "mp_lib": "web",
            "mp_processing_time_ms": time + 5000 + chance.randrange(60_000),
            "Amount": chance.randrange(100_000) / 100,
            "Coupon": None,
            "First Order": chance.random() < 0.1,
            "Tags": ["new", "eu"],
            "Items": [{"sku": f"A{chance.randrange(999)}", "qty": chance.randrange(1, 4)}],
        },
    }
