"""The laws of a load, on generated events."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from decimal import Decimal
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_assets.rules.made_ids import made_id
from mixpanel_assets_tests.laws import examples, new_folder, siblings
from mixpanel_assets_tests.warehouse.conftest import (
    ACCEPT_SMALLER,
    DAY,
    DAY_MS,
    START_MS,
    Warehouse,
)

LAW = examples(3)
DAYS = 3
LAST = DAY + timedelta(days=DAYS - 1)
FIXED = ("time", "distinct_id", "$insert_id")

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
numbers = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.decimals(allow_nan=False, allow_infinity=False, min_value=-9, max_value=9),
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, text),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(text | st.sampled_from(FIXED), inner)
    ),
    max_leaves=6,
)
names = st.one_of(text, st.sampled_from(["", "a.b", 'a"b', "a\\b", "Time", "TIME", "$x", "k\0"]))
properties = st.dictionaries(names.filter(lambda name: name not in FIXED), values, max_size=4)


@st.composite
def events(draw: st.DrawFn, days: int = 1) -> dict[str, Any]:
    """An event from a small world, so that repeats and twins come up."""
    fixed: dict[str, Any] = {
        "time": START_MS + draw(st.integers(0, days - 1)) * DAY_MS + draw(st.integers(0, 1)),
        "distinct_id": draw(st.sampled_from(["u", "v", "", None])),
        "$insert_id": draw(st.sampled_from(["i", "j", "", None])),
        "$distinct_id_before_identity": draw(st.sampled_from(["b", None])),
        "mp_processing_time_ms": draw(st.sampled_from([START_MS + 1, START_MS + 2, None])),
        "n": draw(st.integers(0, 1)),
    }
    kept = {name: value for name, value in fixed.items() if draw(st.booleans()) or name == "time"}
    return {"event": draw(st.sampled_from(["A", "B"])), "properties": kept}


def dumps(value: Any) -> bytes:
    """Write JSON with the digits of decimals, which `json` itself would round."""
    if isinstance(value, dict):
        pairs = (json.dumps(key).encode() + b":" + dumps(item) for key, item in value.items())
        return b"{" + b",".join(pairs) + b"}"
    if isinstance(value, list):
        return b"[" + b",".join(map(dumps, value)) + b"]"
    return str(value).encode() if isinstance(value, Decimal) else json.dumps(value).encode()


def loads(line: str | bytes) -> Any:
    return json.loads(line, parse_float=Decimal)


def fresh() -> Warehouse:
    return Warehouse(new_folder())


@cache
def shared() -> Warehouse:
    return fresh()


def table(records: list[Any]) -> list[tuple[Any, ...]]:
    """Return what the days hold after a load that accepts smaller days."""
    shared().load(records, to_date=LAST, reload=ACCEPT_SMALLER)
    return shared().rows()


@LAW
@given(st.lists(properties, min_size=1, max_size=5))
def test_values_survive(sent):
    """Properties read back equal to what was sent, digits included, and DuckDB can query them."""
    fixed = {"time": START_MS, "distinct_id": "u", "$insert_id": ""}
    lines = [
        dumps({"event": "A", "properties": {**fixed, "$n": number, **record}})
        for number, record in enumerate(sent)
    ]
    warehouse = shared()
    warehouse.load(lines, to_date=LAST, reload=ACCEPT_SMALLER)
    found = warehouse.query(
        "SELECT properties, json_keys(properties), to_json(properties ->> '$.\"$n\"') FROM events "
        "ORDER BY (properties ->> '$.\"$n\"')::INTEGER"
    )
    expected = [loads(dumps({"$n": number, **record})) for number, record in enumerate(sent)]
    assert [loads(row[0]) for row in found] == expected
    assert [set(row[1]) for row in found] == [set(record) for record in expected]


@LAW
@given(st.lists(events(), max_size=8), st.lists(events(), max_size=8))
def test_replacing_twice_is_replacing_once(before, records):
    """Where smaller days are accepted, older rows leave no trace, and a repeat changes nothing."""
    warehouse = fresh()
    warehouse.load(before)
    warehouse.load(records, reload=ACCEPT_SMALLER)
    once = warehouse.rows()
    warehouse.load(records)
    assert warehouse.rows() == once == table(records)


@LAW
@given(st.lists(events(), max_size=8), st.randoms())
def test_order_does_not_matter(records, chance):
    """Any order of arrival makes the same table, made ids included."""
    shuffled = chance.sample(records, len(records))
    assert table(shuffled) == table(records)


@LAW
@given(st.lists(events(days=DAYS), max_size=10))
def test_packing_does_not_matter(records):
    """Days fetched together make the same table as days fetched one by one."""
    single = fresh()
    for day in (DAY + timedelta(days=number) for number in range(DAYS)):
        start = START_MS + (day - DAY).days * DAY_MS
        of_day = [r for r in records if start <= r["properties"]["time"] < start + DAY_MS]
        single.load(of_day, from_date=day)
    assert single.rows() == table(records)


def key_of(record: dict[str, Any]) -> tuple[Any, ...]:
    sent = record["properties"]
    before = sent.get("$distinct_id_before_identity")
    who = sent.get("distinct_id") if before is None else before
    return record["event"], sent["time"], sent["$insert_id"], who


@examples(3)
@given(st.lists(events(), max_size=12))
def test_repeats_follow_the_rule(records):
    """One copy per key stays, the one processed last; without `$insert_id` all stay."""
    named = [record for record in records if record["properties"].get("$insert_id")]
    latest: dict[Any, int] = {}
    for record in named:
        processed = record["properties"].get("mp_processing_time_ms") or 0
        latest[key_of(record)] = max(processed, latest.get(key_of(record), 0))
    warehouse = shared()
    report, *_ = warehouse.load(records, to_date=LAST, reload=ACCEPT_SMALLER)
    stored = warehouse.query(
        "SELECT event_name, time_raw, insert_id, "
        "coalesce(properties ->> '$.\"$distinct_id_before_identity\"', distinct_id), "
        "coalesce(epoch_ms(processed_at), 0) FROM events WHERE insert_id IN ('i', 'j')"
    )
    assert Counter(stored) == Counter((*key, processed) for key, processed in latest.items())
    assert report.duplicates_removed == len(named) - len(latest)
    assert report.row_count == len(records) - report.duplicates_removed


@LAW
@given(st.lists(events(), max_size=10))
def test_made_ids_equal_the_python_ones(records):
    """Rows without an id have the ids that `made_id` gives, twins numbered from 0."""
    seen: Counter[str] = Counter()
    expected = []
    for record in records:
        sent = record["properties"]
        if sent.get("$insert_id"):
            continue
        arguments = (record["event"], sent["time"], sent.get("distinct_id"), sent)
        first = made_id(*arguments)
        expected.append(made_id(*arguments, twin=seen[first]))
        seen[first] += 1
    stored = {row[3] for row in table(records)} - {"i", "j"}
    assert stored == set(expected)
    assert len(expected) == len(set(expected))


@pytest.mark.parametrize("size", siblings([0, 1, 5001], keep=1))
def test_rescued_rows_follow_the_same_rule(tmp_path, size):
    """Rows kept as text for their digits are repeats, twins and rows like all others."""
    line = (
        f'{{"event":"A","properties":{{"time":{START_MS},"$insert_id":"%s",'
        '"x":0.12345678901234567890}}'
    )
    lines = [(line % number).encode() for number in range(size)]
    warehouse = Warehouse(tmp_path)
    (report,) = warehouse.load([*lines, *lines[:7]])
    assert (report.row_count, report.duplicates_removed) == (size, len(lines[:7]))
