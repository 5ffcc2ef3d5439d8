r"""Unusual but valid rows, as in real projects, on which simple loaders fail.

Every row is JSON text, not a Python value, because the exact spelling matters:
`-0.0`, `1.10`, `1e-7`, integers beyond 2^64, escapes, raw U+2028 and U+0085.
"""

# ruff: noqa: E501 - a value in two parts is harder to compare with stored ones

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

LONE_SURROGATE = rb"\ud83d"
BIG_ROW_CHARACTERS = 1_000_000  # Mixpanel accepts events of up to 1 MB of JSON
ROWS_FOR_A_SURROGATE = 200  # in smaller days, one invalid row is a large share


@dataclass(frozen=True)
class OddRow:
    """One row as JSON text. `{day}` in `head` (the ids) stands for the date."""

    event: str
    second: float
    head: str
    properties: str


def _ids(user: str, number: int) -> str:
    return f'"distinct_id":"{user}","$insert_id":"odd-{{day}}-{number:03d}"'


# Rows of every day, with or without the full set.
MILD = (
    OddRow(
        "Page View", 36000.5, _ids("user-9001", 1), '"title":"Ångström — Привет, хорошо","page":"Å"'
    ),
    OddRow("Page View", 36001.25, _ids("user-9002", 2), '"title":"🛒👩\u200d💻","coupon":null'),
    OddRow("Nightly Sync", 3600.0, _ids("", 3), '"rows":1200,"$import":true'),
    OddRow("Page View", 36003.0, '"distinct_id":"user-9003"', '"title":"no insert id"'),
)

TWIN = OddRow("Heartbeat", 43200.0, '"distinct_id":"user-9004"', '"title":"a true twin","beat":1')

# Event, second of the day, ids and other properties of a row.
# One sender gives all rows of a batch the same id, although they are different events.
_TABLE = r"""
Odd Text | 50001.0 | "distinct_id":"user-9005","$insert_id":"odd-{day}-011" | "control":"\u0000\u0001\u001f\b\f\n\r\t\"\\\/","pair":"\ud83d\ude00"
Odd Text | 50002.0 | "distinct_id":"user-9005","$insert_id":"odd-{day}-012" | "note":"the export was terminated early, said the mail","Item Name":"terminated early"
Odd Text | 50003.0 | "distinct_id":"user-9005","$insert_id":"odd-{day}-013" | "html":"<b>}}\n{\"event\":\"fake\"}</b>","sql":"'; DROP TABLE events; --"
Odd Names | 50010.0 | "distinct_id":"user-9006","$insert_id":"odd-{day}-020" | "Plan":"a","plan":"b","PLAN":"c","$email":"a@example.com","email":"b@example.com"
Odd Names | 50011.0 | "distinct_id":"user-9006","$insert_id":"odd-{day}-021" | "event":"not the event","Time":"noon","time ":1,"$time":2,"event_time":3,"event_name":4,"properties":{"time":5}
Odd Names | 50012.0 | "distinct_id":"user-9006","$insert_id":"odd-{day}-022" | "$distinct_id":"x","Distinct_Id":"y","DISTINCT_ID":"z","insert_id":"w","$INSERT_ID":"v","event_date":"2020-01-01"
Odd Names | 50013.0 | "distinct_id":"user-9006","$insert_id":"odd-{day}-023" | "":"empty name","a.b":1,"a[0]":2,"$.a":3,"quo\"te":4,"back\\slash":5,"new\nline":6,"tab\t":7,"Cart Size (# of Items)":8,"🙂":9
Odd Numbers | 50020.0 | "distinct_id":"user-9007","$insert_id":"odd-{day}-030" | "past_2_53":9007199254740993,"past_2_63":9223372036854775808,"past_2_64":18446744073709551617,"huge":123456789012345678901234567890123456789012345678901234567890
Odd Numbers | 50021.0 | "distinct_id":"user-9007","$insert_id":"odd-{day}-031" | "negative":-9223372036854775808,"tiny":1e-7,"price":1.10,"minus_zero":-0.0,"third":0.3333333333333333,"exp":1E+20,"whole":5.0
Odd Shapes | 50030.0 | "distinct_id":"user-9008","$insert_id":"odd-{day}-040" | "nothing":null,"empty_list":[],"empty_object":{},"nested":{"a":{"b":{"c":[1,{"d":null}]}}},"mixed":[1,"1",true,null,1.5,{"x":[]}]
Odd Shapes | 50031.0 | "distinct_id":"user-9008","$insert_id":"odd-{day}-041" | "items":[{"sku":"A1","qty":2},{"sku":"B7","qty":1,"price":9.90}],"Promised At":"2026-01-03T09:00:00","Birthday":"1990-02-29"
Odd Shapes | 50032.0 | "distinct_id":"user-9008","$insert_id":"odd-{day}-042" | "size":"3"
Odd Shapes | 50033.0 | "distinct_id":"user-9008","$insert_id":"odd-{day}-043" | "size":3
Odd Shapes | 50034.0 | "distinct_id":"user-9008","$insert_id":"odd-{day}-044" | "size":[3],"flag":"true","other":"<null>","undefined":"undefined"
Odd Ids | 50040.0 | "distinct_id":"","$insert_id":"odd-{day}-050" | "title":"empty distinct_id"
Odd Ids | 50041.0 | "$insert_id":"odd-{day}-051" | "title":"no distinct_id"
Odd Ids | 50042.0 | "distinct_id":1234567890123456789,"$insert_id":"odd-{day}-052" | "title":"numeric distinct_id"
Odd Ids | 50043.0 | "distinct_id":"0012345","$insert_id":"odd-{day}-053" | "title":"a number as text"
Odd Ids | 50044.0 | "distinct_id":"user-9009","$insert_id":"" | "title":"empty insert id"
Odd Ids | 50044.0 | "distinct_id":"user-9009","$insert_id":"" | "title":"empty insert id"
Odd Ids | 50045.0 |  | "title":"no id of any kind"
Odd Ids | 50046.0 | "distinct_id":null,"$insert_id":"odd-{day}-054" | "title":"null distinct_id"
Batch Row | 50050.0 | "distinct_id":"user-9010","$insert_id":"batch-{day}" | "n":1
Batch Row | 50053.0 | "distinct_id":"user-9010","$insert_id":"batch-{day}" | "n":2
Batch Row | 50050.0 | "distinct_id":"user-9011","$insert_id":"batch-{day}" | "n":3
Batch End | 50050.0 | "distinct_id":"user-9010","$insert_id":"batch-{day}" | "n":4
$hotshard_events | 50060.0 | "distinct_id":"","$insert_id":"odd-{day}-060" | "mp_original_event_name":"Page View","mp_original_distinct_id":"user-9012"
$merge | 50061.0 | "distinct_id":"user-9013","$insert_id":"odd-{day}-061" | "$distinct_ids":["user-9013","$device:9013"],"$failure_reason":"none"
Name "quoted" \ Å | 50062.0 | "distinct_id":"Ü \"quoted\" id","$insert_id":"odd-{day}-062" | "title":"quoted names"
Odd Edges | 0.0 | "distinct_id":"user-9014","$insert_id":"odd-{day}-070" | "title":"first instant"
Odd Edges | 86399.999 | "distinct_id":"user-9014","$insert_id":"odd-{day}-071" | "title":"last instant"
"""

RICH = (
    # In the table, these characters would end a line.
    OddRow("Odd Text", 50000.0, _ids("user-9005", 10), '"line":"a\u2028b\u2029c\u0085d"'),
    *(
        OddRow(event, float(second), head, properties)
        for event, second, head, properties in (
            line.split(" | ") for line in _TABLE.strip().split("\n")
        )
    ),
)

SURROGATE = OddRow(
    "Odd Text", 50070.0, _ids("user-9015", 80), r'"broken":"half a pair \ud83d here"'
)

EVENT_NAMES = frozenset(row.event for row in (*MILD, TWIN, *RICH, SURROGATE)) | {"Odd Size"}


def big_row() -> OddRow:
    """Return a row of about one megabyte."""
    text = "Å long text, " * (BIG_ROW_CHARACTERS // 14)
    return OddRow("Odd Size", 50080.0, _ids("user-9016", 90), f'"text":"{text}"')


def rows(*, rich: bool, room: int, turn: int) -> Iterator[OddRow]:
    """Yield the odd rows of day `turn`, at most `room` of them; all kinds if `rich`.

    A small maximum spreads the kinds over several days. The third day has the big row, and every
    fifth day a lone surrogate.
    """
    chosen = [*MILD, TWIN, TWIN, *(RICH if rich else ())]
    if len(chosen) > room:
        first = turn * max(room, 1) % len(chosen)
        chosen = (chosen + chosen)[first : first + room]
    if rich and turn == 2 and room:
        chosen[-1] = big_row()
    # In a small day, one invalid row would be a large share.
    if rich and turn % 5 == 3 and room * 4 >= ROWS_FOR_A_SURROGATE:
        chosen[0] = SURROGATE
    yield from chosen
