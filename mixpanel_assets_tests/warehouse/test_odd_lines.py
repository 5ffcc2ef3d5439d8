"""Lines that are whole but odd are stored as sent or put into quarantine, and spoil no other."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from decimal import Decimal

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_assets.client.normalize import EventNormalizer, parse_record
from mixpanel_assets.client.verdict import EventVerdict, Verdict
from mixpanel_assets.errors import IncompleteExportError
from mixpanel_assets.rules.json_text import NumberTexts
from mixpanel_assets.rules.lines import (
    BOM,
    HEAD_BYTES,
    MAX_LINE_BYTES,
    ReceivedDays,
    UnusualLines,
)
from mixpanel_assets.warehouse.lines import whole_number
from mixpanel_assets_tests.laws import examples, siblings
from mixpanel_assets_tests.rules.test_json_text import names_once, written
from mixpanel_assets_tests.warehouse.conftest import (
    ACCEPT_SMALLER,
    DAY,
    DAY_MS,
    START_MS,
    Warehouse,
    event,
)
from mixpanel_assets_tests.warehouse.test_load_laws import LAST, shared

NEXT_DAY = DAY + timedelta(days=1)
GOOD = [event("Good", n=number) for number in range(150)]  # of which 1 % may be bad
DEEP = b"[" * 1100 + b"]" * 1100
HALF_DEEP = b'[{"a":' * 260 + b"1" + b"}]" * 260


def odd(value: bytes, *, event_name: bytes = b'"Odd"', time: int = START_MS + DAY_MS) -> bytes:
    return b'{"event":%b,"properties":{"time":%d,"x":%b}}' % (event_name, time, value)


REFUSED = {
    "not UTF-8": odd(b'"\xff"'),
    "an emoji as two surrogates": odd(b'"\xed\xa0\xbd\xed\xb8\x80"'),
    "a character cut in two": odd(b'"\xf0\x9f\x98"'),
    "a name cut in two": odd(b'{"\xc3":1}'),
    "an event name that is not UTF-8": odd(b"1", event_name=b'"\xfe"'),
    "raw control characters": odd(b'"\x00\x1f\t"'),
    "1,100 lists": odd(DEEP),
    "520 lists and objects": odd(HALF_DEEP),
    "not UTF-8 and deep": odd(b'["\xff",%b]' % DEEP),
    "half a surrogate pair": odd(b'"\\ud83d"'),
}
STORED = {
    "499 levels less two": odd(b"[" * 498 + b"]" * 498),
    "250 objects and lists": odd(b'[{"a":' * 125 + b"1" + b"}]" * 125),
    "5,000 digits": odd(b"1" * 5000),
    "more than a double holds": odd(b"1e400"),
    "text of 9 kB": odd(b'"%b"' % (b"a" * 9000)),
    "brackets in a text": odd(b'"%b"' % (b"[{" * 1000)),
    "a byte order mark": BOM + odd(b"1"),
    "white space": b" \t" + odd(b"1") + b" \r",
}


def counted(lines: list[bytes]) -> int:
    """Return how many lines the client counts while it receives them."""
    verdict = Verdict(gzip=False)
    for _ in [*verdict.feed(b"\n".join(lines)), *verdict.finish()]:
        pass
    return verdict.lines


def load(warehouse: Warehouse, lines: list[bytes], **options: object):
    return warehouse.load(lines, to_date=NEXT_DAY, lines=counted(lines), **options)


GOOD_LINES = [json.dumps(record).encode() for record in GOOD]
QUARANTINE = "SELECT day, line, line_bytes, sha256 FROM mixpanel._quarantine ORDER BY line"


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])
def test_lines_that_no_table_holds_are_in_quarantine(warehouse, compress):
    """Byte for byte, under their own day; both days are complete, and a second load is the same."""
    others = [odd(b"%d" % number) for number in range(1000)]  # of which 1 % may be bad
    for _ in range(2):
        lines = [*GOOD_LINES, *REFUSED.values(), *others]
        reports = load(warehouse, lines, compress=compress)
        assert [(r.status, r.row_count, r.quarantined) for r in reports] == [
            ("complete", 150, 0),
            ("complete", 1000, len(REFUSED)),
        ]
        assert warehouse.query(QUARANTINE) == [
            (NEXT_DAY, line, len(line), hashlib.sha256(line).hexdigest())
            for line in sorted(REFUSED.values())
        ]


def test_lines_that_only_look_odd_are_rows(warehouse):
    """They are stored as they were sent; blank lines between them are skipped."""
    blank = [b"", b"  ", b"\t \r", BOM]
    lines = [*blank, *GOOD_LINES, *blank]
    for line in STORED.values():
        lines += [line, *blank]
    reports = load(warehouse, lines)
    assert [(r.row_count, r.quarantined) for r in reports] == [(150, 0), (len(STORED), 0)]
    stored = warehouse.query("SELECT properties FROM events WHERE event_name = 'Odd'")
    sent = sorted(line[line.index(b'"x"') : line.rindex(b"}}")] for line in STORED.values())
    assert sorted(properties[1:-1].encode() for (properties,) in stored) == sent


@pytest.mark.parametrize("blank", [b"", b"\r", BOM], ids=repr)
def test_blank_lines_are_no_lines(warehouse, blank):
    """Also where nothing else needs a second look."""
    [report, _] = load(warehouse, [blank, *GOOD_LINES, blank, blank])
    assert report.row_count == 150


@pytest.mark.parametrize("name", ["not UTF-8", "1,100 lists", "half a surrogate pair"])
def test_a_stream_yields_the_lines_that_are_in_quarantine(name, warehouse):
    """The stream counts them as the load does."""
    verdict = EventVerdict(gzip=False)
    lines = [*GOOD_LINES, REFUSED[name]]
    blocks = [*verdict.feed(b"\n".join(lines)), *verdict.finish()]
    came = [record for block in blocks for record in block]
    assert len(came) == 151
    assert came[-1]["properties"]["time"] == START_MS + DAY_MS
    [_, report] = load(warehouse, lines)
    reasons = warehouse.query("SELECT reason FROM mixpanel._quarantine")
    assert [(reason,) for reason in verdict.odd_lines.elements()] == reasons
    assert report.quarantined == 1


def long_line(more: bytes, size: int = MAX_LINE_BYTES) -> bytes:
    return odd(b'"%b"' % (b"a" * size + more))


def test_of_a_line_that_is_too_long_the_beginning_is_kept(warehouse):
    """Its length and its hash identify it; lines of every other kind are stored in full."""
    long, longer = long_line(b""), long_line(b"1", 2 * MAX_LINE_BYTES)
    others = [*(GOOD_LINES * 2), REFUSED["not UTF-8"], STORED["5,000 digits"], b"", odd(b"1")]
    reports = load(warehouse, [long, *others, longer])
    assert [(r.row_count, r.quarantined) for r in reports] == [(300, 2), (2, 1)]
    assert warehouse.query(f"SELECT line_bytes, * FROM ({QUARANTINE}) ORDER BY ALL")[1:] == [
        (len(line), DAY, line[:HEAD_BYTES], len(line), hashlib.sha256(line).hexdigest())
        for line in (long, longer)
    ]
    load(warehouse, [*others, longer])
    kept = warehouse.query("SELECT line_bytes, vanished_at IS NULL FROM mixpanel._quarantine")
    assert sorted(kept) == [
        (len(REFUSED["not UTF-8"]), True),
        (len(long), False),
        (len(longer), True),
    ]


@pytest.mark.parametrize(
    "line",
    siblings(
        [
            REFUSED["not UTF-8"][:-1],
            odd(b"\xff"),
            odd(DEEP[:-1]),
            long_line(b"")[:-2],
            b"[" * 1000,
        ],
        keep=2,
    ),
    ids=["cut", "no JSON", "a bracket open", "cut long", "brackets"],
)
def test_a_cut_line_is_not_taken_for_an_odd_one(warehouse, line):
    """It is named by its number, and nothing changes."""
    warehouse.load([event()])
    before = warehouse.rows()
    lines = [GOOD_LINES[0], b"", line]
    with pytest.raises(IncompleteExportError, match="line 3 is not a complete event"):
        warehouse.load(lines, to_date=NEXT_DAY, lines=2)
    assert warehouse.rows() == before


IDS = [b"-0", b"1.50", b"1E5", b"0.10", b"1e400", b"-0.0", b"9" * 30, b'[1.50, {"a" : -0}]']


@pytest.mark.parametrize("name", ["distinct_id", "$insert_id"])
def test_an_id_is_the_text_of_what_was_sent(warehouse, name):
    """Its digits and spaces stay; the stream says the same."""
    lines = [
        b'{"event":"A","properties":{"time":%d,"%b":%b,"n": 1}}' % (START_MS, name.encode(), sent)
        for sent in IDS
    ]
    warehouse.load(lines)
    column = name.removeprefix("$")
    stored = [value for (value,) in warehouse.query(f"SELECT {column} FROM events")]
    streamed = [EventNormalizer().convert(parse_record(line), line)[column] for line in lines]
    assert sorted(stored) == sorted(sent.decode() for sent in IDS)
    assert streamed == [sent.decode() for sent in IDS]


small = st.sampled_from([START_MS, START_MS + 1, 1, 1.5, "t", None])
names = st.sampled_from(
    [
        "time",
        "distinct_id",
        "$insert_id",
        "$distinct_id_before_identity",
        "mp_processing_time_ms",
        "mp_original_event_name",
        "plan",
        "a.b",
    ]
)
nested = st.recursive(
    small,
    lambda inner: st.lists(inner, max_size=2) | st.lists(st.tuples(names, inner), max_size=3),
    max_leaves=5,
)
spacings = st.sampled_from([("", ""), ("", " ")])


@st.composite
def repeated(draw: st.DrawFn) -> bytes:
    """An event in which names come twice, on any level; no other has its `n`."""
    properties = [
        *draw(st.lists(st.tuples(names, nested | small), max_size=6)),
        ("time", START_MS + draw(st.uuids()).int % DAY_MS),
        *draw(st.lists(st.tuples(names.filter(lambda name: name != "time"), nested), max_size=2)),
        ("n", str(draw(st.uuids()))),
    ]
    fields = [
        *draw(st.lists(st.tuples(st.sampled_from(["event", "properties", "x"]), nested))),
        ("event", draw(st.sampled_from(["A", "$hotshard_events"]))),
        ("properties", properties),
        *draw(st.lists(st.tuples(st.just("x"), nested), max_size=1)),
    ]
    spacing = draw(spacings)
    return written(fields, *spacing).encode()


@examples(8)
@given(st.lists(repeated(), min_size=1, max_size=20))
def test_of_a_name_that_comes_twice_the_last_value_counts(lines):
    """On every level, in the table as in a stream, in columns, ids and properties."""
    shared().load(lines, to_date=LAST, reload=ACCEPT_SMALLER)
    stored = shared().query(
        "SELECT event_name, time_raw, distinct_id, insert_id, epoch_ms(processed_at), properties "
        "FROM events"
    )
    normalizer = EventNormalizer()
    sent = [normalizer.convert(parse_record(line), line) for line in lines]
    expected = [
        (
            one["event_name"],
            json.loads(line)["properties"]["time"],
            one["distinct_id"],
            one["insert_id"],
            whole_number(one["properties"].get("mp_processing_time_ms")),
            json.dumps(one["properties"], sort_keys=True),
        )
        for line, one in zip(lines, sent, strict=True)
    ]
    found = [
        (*row, json.dumps(json.loads(text, object_pairs_hook=names_once), sort_keys=True))
        for *row, text in stored
    ]
    assert sorted(map(repr, found)) == sorted(map(repr, expected))


@pytest.mark.parametrize("name", ["$distinct_id_before_identity", "mp_original_distinct_id"])
def test_what_sql_reads_later_is_the_last_value(warehouse, name):
    """Repeats are told apart by it; events of a hot shard too."""
    fixed = f'{{"event":"$hotshard_events","properties":{{"time":{START_MS},"$insert_id":"i"'
    lines = [f'{fixed},"{name}":"a","{name}":"{last}"}}}}'.encode() for last in "bc"]
    [report] = warehouse.load([*lines, lines[0].replace(b'"a"', b'"z"')])
    apart = name == "$distinct_id_before_identity"
    assert report.row_count == (2 if apart else 1)
    found = warehouse.query(f"SELECT properties ->> '$.\"{name}\"' FROM events")
    assert found == ([("b",), ("c",)] if apart else found)
    assert {value for (value,) in found} <= {"b", "c"}


FRACTIONS = ["1e-7", "0.0000001", "5e-324", "25e-1", "1.5"]


@pytest.mark.parametrize("value", siblings(FRACTIONS, keep=2))
@pytest.mark.parametrize(
    "other", [b"1", b"0.12345678901234567890"], ids=["read by DuckDB", "read here"]
)
def test_a_fraction_is_no_time_of_processing(warehouse, value, other):
    """However it is written; the reader of odd lines and DuckDB agree."""
    line = b'{"event":"A","properties":{"time":%d,"mp_processing_time_ms":%b,"x":%b}}'
    load(warehouse, [line % (START_MS, value.encode(), other)])
    assert warehouse.query("SELECT processed_at FROM events") == [(None,)]


digits = st.integers(0, 10**19).map(str)
number_texts = st.one_of(
    st.builds("{}{}.{}".format, st.sampled_from(["", "-"]), st.integers(0, 10**17), digits),
    st.builds("{}.{}e{}".format, st.integers(0, 9), digits, st.integers(-330, 300)),
    st.builds("{}E+{}".format, st.integers(-9, 9), st.integers(0, 99)),
    st.sampled_from(["18446744073709551616", "-9223372036854775809"]),
    st.integers(-(2**70), 2**70).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["12345678901234567.25", "-0.12345678901234567", "1.1234567890123456789E10"]),
    st.sampled_from(["-0", "-0.0", "0", "1e400", "21.90", "5.0", '"6ba7b810-9dad-11d1"']),
)


@st.composite
def hostile(draw: st.DrawFn) -> bytes:
    """A complete line that DuckDB reads, reads differently, or refuses."""
    if draw(st.integers(0, 3)) == 0:
        return draw(st.sampled_from([*REFUSED.values(), *STORED.values()]))
    ids = {"$insert_id": st.uuids().map(lambda one: f'"{one.hex}"'), "distinct_id": number_texts}
    properties = {name: draw(value) for name, value in ids.items() if draw(st.booleans())}
    properties["n"] = draw(number_texts)
    space = draw(st.sampled_from(["", " "]))
    pairs = [f'"{name}":{space}{value}' for name, value in properties.items()]
    body = ",".join([f'"time":{START_MS}', *pairs])
    around = draw(st.sampled_from(["", " ", "\t\r"]))
    line = f'{around}{{"event":"A{draw(st.uuids())}","properties":{{{body}}}}}{around}'
    return draw(st.sampled_from([b"", b"", BOM])) + line.encode()


STORED_LINES = """
    SELECT event_name, distinct_id, insert_id, processed_at, properties FROM events ORDER BY ALL
"""


@examples(6)
@given(st.lists(st.one_of(hostile(), st.sampled_from([b"", b" ", BOM])), max_size=20))
def test_what_the_client_knows_of_odd_lines_changes_no_row(lines):
    """Of each line the same becomes of it as if the load had to look for odd lines itself."""
    lines = [*(odd(b"%d" % number) for number in range(2000)), *lines]  # 1 % may be bad
    found = []
    for known in (True, False):
        load(shared(), lines, reload=ACCEPT_SMALLER, unusual_known=known)
        rows = shared().query(STORED_LINES)
        texts = [
            json.loads(one.pop(), parse_float=Decimal, parse_int=Decimal) for one in map(list, rows)
        ]
        found.append(([row[:-1] for row in rows], texts, shared().query(QUARANTINE)))
    assert found[0] == found[1]


def test_lines_that_the_client_kept_are_not_looked_for_again(warehouse):
    """The load finds them in no file; if they are not as many as DuckDB refused, it looks there."""
    odd_line, other = REFUSED["half a surrogate pair"], REFUSED["not UTF-8"]
    spool = warehouse.spool([*GOOD_LINES, odd_line])
    for kept in ([other], [other, other], None):
        known = UnusualLines(kept, ())
        received = ReceivedDays(spool, DAY, NEXT_DAY, 151, names_once=True, unusual=known)
        warehouse.store(received, reload=ACCEPT_SMALLER)
        [(line,)] = warehouse.query(
            "SELECT line FROM mixpanel._quarantine WHERE vanished_at IS NULL"
        )
        assert line == (other if kept == [other] else odd_line)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_duckdb_writes_the_shortest_digits_of_a_fraction(value):
    """So a text of 16 digits that Python writes the same is stored as it was sent."""
    numbers = NumberTexts()
    numbers.may_differ = False
    text = repr(value)
    numbers[text]
    if not numbers.may_differ:
        query = "SELECT (json_extract(?::JSON, '$.n'))::VARCHAR"
        [(written_text,)] = CONNECTION.execute(query, [f'{{"n":{text}}}']).fetchall()
        assert Decimal(written_text) == Decimal(text)
        assert "e" in text or written_text == text


CONNECTION = duckdb.connect()
