"""An answer is believed only if it is whole."""

import gzip
import json
import sys
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_assets.client.verdict import (
    EventVerdict,
    IncompleteBodyError,
    Inflater,
    Judge,
    RecordVerdict,
    Verdict,
)
from mixpanel_assets.rules.json_text import MAX_DEPTH
from mixpanel_assets.rules.lines import (
    BOM,
    MAX_LINE_BYTES,
    SHORT_LINE_BYTES,
    LineSplitter,
    UnusualLines,
    why_unstorable,
)

EVENT = '{"event":"Order","properties":{"time":1704067200000,"city":"Ærø"}}'
ODD_EVENTS = [
    '{"event":"a","properties":{}}',
    '{"properties":{"text":"the export said terminated early, honestly"},"event":"b"}',
    '{"event":"c\u2028d\u2029e\u0085f","properties":{"Å":"хлеб"}}',
    '{"event":"d","properties":{"half":"\\ud83d"}}',
    '{"event":"e","properties":{"huge":1e400,"big":123456789012345678901234567890}}',
    '{"event":"f","properties":{"event":1,"properties":[],"error":"no"}}',
]


def judge(body: bytes, *, chunks: list[int] | None = None, compressed: bool = False) -> list[bytes]:
    verdict = Verdict(gzip=compressed)
    blocks = [block for chunk in cut(body, chunks or []) for block in verdict.feed(chunk)]
    blocks += verdict.finish()
    lines = [line for block in blocks for line in block]
    assert verdict.lines == len(lines)
    assert verdict.json_bytes == len(gzip.decompress(body) if compressed else body)
    return lines


def events(body: bytes) -> list[dict]:
    return items_of(EventVerdict(gzip=False), body)


def records(body: bytes) -> list[tuple[dict, bytes]]:
    return items_of(RecordVerdict(lambda event, line: (event, line), gzip=False), body)


def kept_lines(*, gzip: bool) -> RecordVerdict:
    return RecordVerdict(lambda event, line: line, gzip=gzip)


def items_of(verdict: Judge, body: bytes) -> list:
    items = [item for block in [*verdict.feed(body), *verdict.finish()] for item in block]
    assert verdict.lines == len(items)
    return items


def cut(body: bytes, sizes: list[int]) -> Iterator[bytes]:
    start = 0
    for size in sizes:
        yield body[start : start + size]
        start += size
    yield body[start:]


@pytest.mark.parametrize("event", ODD_EVENTS)
def test_odd_but_honest_lines_are_whole(event):
    """A line is an event whatever its strings and numbers hold."""
    assert judge(event.encode() + b"\n") == [event.encode()]


TWICE = [
    b'{"event":"a","properties":{"n":1,"n":1}}',
    b'{"event":"a","event":"b","properties":{}}',
    b'{"event":"a","properties":{"l":[{"n":1,"m":2},{"m":1,"m":1}]}}',
    b'{"event":"a","properties":{"n":1,"\\u006e":2}}',
    b'{"event" : "a", "properties" : {"n" :1, "n"\t:2}}',
    b'{"event":"a","properties":{"n":123456789012345678901234567890,"n":1e400}}',
    BOM + b'{"event":"a","properties":{"half":"\\ud83d","half":""}}',
    b'{"event":"a","properties":{"n\\\\":1.0,"n\\\\":1}}',
    b'{"event":"a","properties":{"t":"\\"","n":"\\u0022:","n":"\\\\","m":1.0}}',
    b'{"event":"a","properties":{"t":"\\u005c","n":1.0,"n":"\\\\"}}',
    b'  {"event":"a","properties":{"n":1,"n":1}}' + b" " * SHORT_LINE_BYTES,
    b'{"event":"a","properties":{"d":%b{"n":1,"n":2}%b}}' % (b"[" * 1100, b"]" * 1100),
]
ONCE = [
    *(event.encode() for event in ODD_EVENTS),
    b'{"event":"a","properties":{"l":[{"n":1},{"n":2}],"n":3,"N":4}}',
    b'{"event": "a", "properties": {"json": "{\\"n\\":1,\\"n\\":2}", "n" : ":\\":"}}',
    b'{"event":"a","properties":{"n":1.50,"html":"\\u003cb\\/\\u003e"}}',
    b'{"event":"a","properties":{"n":1.50,"n\\\\":"\\u005c","m":"\\u0022:\\"\\\\"}}',
    b'{"event":"a","properties":{"long":"%b"}}' % (b"x" * 100_000),
    b'{"event":"a","properties":{"long":"%b","n":1,"n":1}}' % (b"x" * 100_000),  # read exactly
]


@given(st.lists(st.sampled_from(ONCE), max_size=20), st.sampled_from([b"", *TWICE]), st.data())
def test_a_name_that_comes_twice_is_seen(once, twice, data):
    """In any line that is not long, on any level, however it is written."""
    place = data.draw(st.integers(0, len(once)))
    verdict = Verdict(gzip=False)
    for block in verdict.feed(b"\n".join([*once[:place], twice, *once[place:], b""])):
        list(block)
    assert verdict.names_once is (not twice)


@pytest.mark.parametrize("more", [0, 1])
def test_a_name_is_looked_for_twice_in_lines_that_are_not_long(more):
    """The load reads longer ones to the letter, whatever they hold."""
    fixed = b'{"event":"a","properties":{"t":"","n":1,"n":1}}'
    line = fixed.replace(b'""', b'"%b"' % (b"x" * (SHORT_LINE_BYTES + more - len(fixed))))
    verdict = Verdict(gzip=False)
    for block in verdict.feed(b" %b\r\n" % line):
        list(block)
    assert verdict.names_once is bool(more)


def test_a_missing_final_newline_is_no_fault():
    """The last line counts with or without its newline."""
    assert len(judge(f"{EVENT}\n{EVENT}".encode())) == 2


def test_an_empty_body_is_whole():
    """Zero bytes are a day without events."""
    assert judge(b"") == []


@pytest.mark.parametrize("read", [judge, events, records])
@pytest.mark.parametrize(
    ("tail", "said"),
    [
        (b"terminated early", "`terminated early`"),
        (b'{"event":"b","properties":{"Item Name":terminated early', "`terminated early`"),
        (b'{"event":"b","properties":{"a"', "cut"),
        (b'{"error":"internal"}', "error object"),
        (b"<html><body>Bad gateway</body></html>", "HTML"),
        (b"5", "not an event"),
        (b"[1]", "not an event"),
        (b'["event","properties","error"]', "not an event"),
        (b'{"properties":{}}', "not an event"),
        (b'{"event":5,"properties":{}}', "not an event with properties"),
        (b'{"event":"a","properties":[]}', "not an event with properties"),
        (b'{"event":"a"}', "not an event with properties"),
        (b'{"event":"a","properties":{"x":NaN}}', "cut or is not JSON"),
        (b'{"event":"a","properties":{"x":1,}}', "cut or is not JSON"),
        (b'{"event":"a","properties":{"x":"\xff"', "cut or is not JSON"),
        (b'{"event":"a","properties":{"x":\xff}}', "cut or is not JSON"),
        (b'{"event":"a","properties":{"x":"\tterminated early', "`terminated early`"),
        (b'{"event":"a","properties":{"x":%b' % (b"[" * 5000), "cut or is not JSON"),
        (b'{"event":"a","properties":{"x":%b' % (b"[" * 5000 + b"]" * 4999 + b"}}"), "cut or is"),
        (b'{"error":"\xff"}', "error object"),
        (b'{"event":"a","properties":{}} {}', "cut or is not JSON"),
    ],
)
def test_a_line_that_is_no_event_makes_the_answer_not_whole(tail, said, read):
    """Whatever stands after whole records and is not one, the answer is refused and says why.

    The line is named by its number within the answer, blank ones included.
    """
    with pytest.raises(IncompleteBodyError, match=f"line 2 .*{said}"):
        read(EVENT.encode() + b"\n" + tail + b"\n")
    with pytest.raises(IncompleteBodyError, match=f"line 4 .*{said}"):
        read(b" \r\n" + EVENT.encode() + b"\n\n" + tail)


DEEP = b"[" * 5000 + b"]" * 5000
WHOLE_BUT_ODD = [
    b'{"event":"a","properties":{"x":"\xff"}}',
    b'{"event":"\xed\xa0\xbd\xed\xb8\x80","properties":{}}',  # an emoji as two surrogates
    b'{"event":"a","properties":{"x":"\xf0\x9f\x98"}}',  # a character cut in two
    b'{"event":"a","properties":{"\xc3":1}}',
    b'{"event":"a","properties":{"x":"\x00\x1f\t"}}',
    b'{"event":"a","properties":{"x":%b}}' % DEEP,
    b'{"event":"a","properties":{"x":%b}}' % (b'{"a":' * 5000 + b"1" + b"}" * 5000),
    b'{"event":"a","properties":{"x":"\xff","y":%b}}' % DEEP,
    b'{"event":"a","properties":{"x":%b}}' % (b"1" * 5000),
    b'\xef\xbb\xbf{"event":"a","properties":{}}',
]


@pytest.mark.parametrize("line", WHOLE_BUT_ODD, ids=range(len(WHOLE_BUT_ODD)))
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"], ids=["cut", "newline", "crlf"])
def test_a_line_that_is_whole_but_odd_spoils_no_other(line, end):
    """Bytes, depth, control characters and digits that parsers refuse are no sign of a cut."""
    around = EVENT.encode()
    assert judge(around + b"\n" + line + end)[1:] == [line + end.removesuffix(b"\n")]
    assert len(judge(line + b"\n" + around)) == 2
    [_, event] = events(around + b"\n" + line + end)
    assert set(event) == {"event", "properties"}


@pytest.mark.parametrize("line", WHOLE_BUT_ODD, ids=range(len(WHOLE_BUT_ODD)))
def test_a_cut_inside_an_odd_line_is_seen(line):
    """Its brackets and strings are open then, whatever else is odd about it."""
    for position in {4, 5, 10, 30, len(line) // 2, *range(len(line) - 6, len(line))}:
        with pytest.raises(IncompleteBodyError, match="line 2 "):
            judge(EVENT.encode() + b"\n" + line[:position])


@pytest.mark.parametrize("read", [judge, events, records])
@pytest.mark.parametrize(
    "body", [b"%b%b\n\n", b"%b%b\n \n", b"\n%b%b\n", b"%b\n%b%b\n\n", b"%b %b\n\n%b\n"]
)
def test_two_events_in_one_line_are_refused_beside_a_blank_line(body, read):
    """The blank line does not make up for the newline that is missing between them."""
    with pytest.raises(IncompleteBodyError, match="is cut or is not JSON"):
        read(body.replace(b"%b", EVENT.encode()))


@pytest.mark.parametrize("read", [judge, events, records])
@pytest.mark.parametrize("value", [b'{"b":{}\n}', b"\n{}"], ids=["closed", "opened"])
def test_an_event_of_two_lines_does_not_make_up_for_two_events_in_one_line(value, read):
    """There are as many events as lines, and yet no line is an event."""
    body = b'%b%b\n{"event":"a","properties":%b}\n' % (EVENT.encode(), EVENT.encode(), value)
    with pytest.raises(IncompleteBodyError, match="is cut or is not JSON"):
        read(body)


def test_a_record_is_made_of_an_event_and_its_line():
    """Of many lines at once, and of one that must be checked alone."""
    lines = [event.encode() for event in ODD_EVENTS]
    for body in (b"\n".join(lines), b"\n\n".join(lines)):
        assert [line for _, line in records(body)] == lines
        assert [event for event, _ in records(body)] == events(body)
    assert records(EVENT.encode()) == [(json.loads(EVENT), EVENT.encode())]


@pytest.mark.parametrize("verdict", [Verdict, EventVerdict, kept_lines])
def test_lines_are_judged_together(verdict):
    """A call for each line would be slow; long lines and brackets in texts change nothing."""
    fixed = b'{"event":"a","properties":{"text":""}}'
    for text in (b"", b"x" * 2000, b"[" * (2 * MAX_DEPTH - len(fixed))):
        line = fixed.replace(b'""', b'"%b"' % text)
        [block] = verdict(gzip=False).feed(b"%b\n%b\n" % (EVENT.encode(), line))
        assert len(list(block)) == 2


@pytest.mark.parametrize("end", [b"", b" ", b"\r", b"\t\r"])
def test_white_space_at_the_end_of_a_line_is_kept(end):
    """Files and records have each line as it was sent, however many are judged at once."""
    lines = [EVENT.encode() + end] * 2
    for body in (b"\n".join(lines), b"\n".join([*lines, b""]), b"\n\n".join(lines)):
        assert judge(body) == lines
        assert [line for _, line in records(body)] == lines


@pytest.mark.parametrize("beside", [0, 1, 2])
@pytest.mark.parametrize("read", [events, records])
def test_depth_does_not_depend_on_the_lines_beside(read, beside):
    """A value of one level too many is text, and one level less is a list."""
    depths = [MAX_DEPTH - 2, MAX_DEPTH - 1]
    lines = [
        b'{"event":"a","properties":{"x":%b%b}}' % (b"[" * depth, b"]" * depth) for depth in depths
    ]
    body = b"\n".join([EVENT.encode()] * beside + lines)
    read_events = [each[0] if isinstance(each, tuple) else each for each in read(body)]
    kinds = [type(event["properties"]["x"]) for event in read_events[beside:]]
    assert kinds == [list, str]


@pytest.mark.parametrize("read", [events, records])
def test_white_space_around_a_line_changes_nothing(read):
    """A carriage return, a blank or a tab before or after an event is not part of it."""
    body = b"".join(
        b"%b%b%b\n" % (a, EVENT.encode(), b) for a in (b"", b" ") for b in (b"\r", b"\t")
    )
    read_events = [each[0] if isinstance(each, tuple) else each for each in read(body)]
    assert read_events == [json.loads(EVENT)] * 4


def test_a_bad_byte_beside_the_properties_is_counted():
    """It is in no value that is decoded, and the table will refuse the line."""
    verdict = Verdict(gzip=False)
    line = b'{"event":"a","other":"\xff","properties":{}}'
    blocks = [*verdict.feed(line + b"\n"), *verdict.finish()]
    assert [each for block in blocks for each in block] == [line]
    assert verdict.odd_lines.total() == 1


def test_odd_lines_are_counted_by_what_is_odd():
    """Each reason is the one that a quarantine gives; a byte order mark is no reason."""
    verdict = EventVerdict(gzip=False)
    for line in [*WHOLE_BUT_ODD, b'{"event":"a","properties":{"x":"\\ud83d"}}']:
        list(verdict.feed(line + b"\n"))
    assert list(verdict.odd_lines.values()) == [5, 1, 2, 1]
    assert verdict.lines == 11


@pytest.mark.parametrize("blank", [b"", b"   ", b"\t", b"\r", b" \t \r", BOM, b"\x0c"])
def test_blank_lines_are_skipped_and_counted(blank):
    """At the beginning, between lines and at the end, as many as there are."""
    event = EVENT.encode()
    for body in (
        b"\n".join([blank, event, blank, blank, event, b""]),
        b"\n".join([event, event, blank, blank, blank, b""]),
    ):
        verdict = Verdict(gzip=False)
        lines = [line for block in [*verdict.feed(body), *verdict.finish()] for line in block]
        assert lines == [event, event]
        assert (verdict.lines, verdict.blank_lines) == (2, 3)


@pytest.mark.parametrize("more", [-1, 0, 1])
@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gzip"])
def test_a_line_that_is_too_long_is_one_line_and_not_kept(more, compressed):
    """Up to 16 MiB a line is as any other; a longer one is counted and named."""
    fixed = b'{"event":"a","properties":{"x":""}}'
    line = fixed[:-3] + b"a" * (MAX_LINE_BYTES + more - len(fixed)) + fixed[-3:]
    body = b"\n".join([EVENT.encode(), line, EVENT.encode(), line])
    verdict = Verdict(gzip=compressed)
    pieces = cut(gzip.compress(body, 1) if compressed else body, [70_000] * 200)
    came = [line for piece in pieces for block in verdict.feed(piece) for line in block]
    came += [line for block in verdict.finish() for line in block]
    assert (verdict.lines, len(came)) == ((4, 4) if more <= 0 else (4, 2))
    assert verdict.long_lines == ([] if more <= 0 else ["line 2", "line 4"])
    unread = verdict.unusual.unread  # shorter ones take too much memory to be remembered
    assert [each.length for each in unread or ()] == ([] if more <= 0 else [len(line)] * 2)


@pytest.mark.parametrize(
    ("begin", "middle", "end"),
    [
        (b"", b"a", b""),
        (b'{"event":"a","properties":{"x":"', b"a", b""),
        (b'{"event":"a","properties":{"x":"', b'\\"' + b"a" * 1000, b"}}"),
        (b'{"event":"a","properties":{"x":[', b"[],", b'"a"}}'),
        (b'{"event":"a","properties":{"x":"', b"a", b'terminated early"'),
    ],
)
def test_a_long_line_that_is_cut_is_seen(begin, middle, end):
    """A string or a bracket is open then."""
    verdict = Verdict(gzip=False)
    line = begin + middle * (MAX_LINE_BYTES // len(middle) + 1) + end
    with pytest.raises(IncompleteBodyError, match="line 2 is cut"):
        list(verdict.feed(EVENT.encode() + b"\n" + line + b"\n"))


def test_a_few_bytes_that_inflate_to_a_lot_take_little_memory():
    """Neither a large body nor a long line is held in memory in full."""
    line = b'{"event":"a","properties":{"x":"' + b"a" * (64 << 20) + b'"}}\n'
    small = gzip.compress(line)
    del line
    tracemalloc.start()
    verdict = Verdict(gzip=True)
    assert not list(verdict.feed(small))
    assert not list(verdict.finish())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert verdict.long_lines == ["line 1"]
    assert peak < 3 * MAX_LINE_BYTES


@given(st.lists(st.sampled_from(ODD_EVENTS), max_size=6), st.lists(st.integers(0, 80), max_size=30))
def test_any_chunking_gives_the_same_lines(events, sizes):
    """How the bytes were chunked, compressed or not, changes nothing."""
    body = "".join(event + "\n" for event in events).encode()
    expected = [event.encode() for event in events]
    assert judge(body, chunks=sizes) == expected
    assert judge(gzip.compress(body), chunks=sizes, compressed=True) == expected


def test_a_body_cut_anywhere_but_between_lines_is_refused():
    """Every cut inside a line is seen; between two lines nothing can be."""
    body = f"{EVENT}\n{EVENT}\n".encode()
    length = len(EVENT.encode())
    unseen = {0, length, length + 1, 2 * length + 1}
    for position in range(len(body)):
        if position in unseen:
            judge(body[:position])
        else:
            with pytest.raises(IncompleteBodyError):
                judge(body[:position])


def test_a_gzip_stream_cut_anywhere_is_refused():
    """A compressed answer that lacks any of its last bytes is never whole."""
    body = gzip.compress(f"{EVENT}\n{EVENT}\n".encode())
    for position in range(len(body)):
        with pytest.raises(IncompleteBodyError):
            judge(body[:position], compressed=True)


def test_a_damaged_gzip_stream_is_refused():
    """A flipped byte does not pass the stream's own checksum."""
    body = bytearray(gzip.compress(f"{EVENT}\n".encode() * 50))
    body[len(body) // 2] ^= 0xFF
    with pytest.raises(IncompleteBodyError):
        judge(bytes(body), compressed=True)


@given(
    st.lists(
        st.sampled_from([0, 1, 2, 3, 9, 10, -9, -8, -5, -1]) | st.integers(0, 400), max_size=3
    ),
    st.binary(min_size=1, max_size=3),
    st.sampled_from([0, 1, 9]),
)
def test_a_gzip_stream_is_whole_if_zlib_says_so(places, put, level):
    """Bytes at some places, also of its head and its end, are others."""
    body = bytearray(gzip.compress(f"{EVENT}\n".encode() * 9, compresslevel=level))
    for place in places:
        body[place % len(body)] = put[0]
    body += put[1:]
    inflater, found = Inflater(gzip=True), None
    with suppress(IncompleteBodyError):
        inflated = b"".join(inflater.feed(bytes(body)))
        inflater.finish()
        found = inflated
    assert found == inflated_by_zlib(bytes(body))


def inflated_by_zlib(body: bytes) -> bytes | None:
    """Return what the members of a stream hold; None: the last one does not end, or is damaged."""
    stream, inflated = zlib.decompressobj(31), b""
    while True:
        try:
            inflated += stream.decompress(body)
        except zlib.error:
            return None
        if not (body := stream.unused_data):
            return inflated if stream.eof else None
        stream = zlib.decompressobj(31)


def test_a_compressed_body_is_gzip_alone():
    """The end of another format has no length to check; a name of it is not gzip's."""
    for body in (zlib.compress(EVENT.encode()), EVENT.encode()):
        with pytest.raises(IncompleteBodyError, match="the compressed stream is damaged"):
            judge(body, compressed=True)


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gzip"])
def test_a_body_is_inflated_in_small_pieces(compressed):
    """However many bytes come at once, a piece of them has 64 KiB at most."""
    body = bytes(300_000)
    inflater = Inflater(gzip=compressed)
    pieces = list(inflater.feed(gzip.compress(body) if compressed else body))
    assert b"".join(pieces) == body
    assert max(map(len, pieces)) == 65536


def test_several_gzip_members_are_one_body():
    """Members that follow each other read as one stream."""
    line = f"{EVENT}\n".encode()
    assert len(judge(gzip.compress(line) + gzip.compress(line), compressed=True)) == 2


@given(st.binary(max_size=200), st.lists(st.integers(0, 40), max_size=20))
def test_lines_end_at_newlines_only(data, sizes):
    """No other byte splits a line, however the bytes are chunked."""
    splitter = LineSplitter()
    blocks = [block for chunk in cut(data, sizes) for block in splitter.feed(chunk)]
    blocks += splitter.finish()
    lines = [line for block in blocks for line in block[:-1].split(b"\n")]
    expected = data.split(b"\n")
    assert lines == (expected[:-1] if expected[-1] == b"" else expected)


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=8) | st.integers() | st.none()))
def test_every_event_that_json_can_write_is_whole(properties):
    """No property name or value makes an honest line suspect."""
    line = json.dumps({"event": "e", "properties": properties}, ensure_ascii=False)
    assert judge(line.encode("utf-8", "surrogatepass") + b"\n")


USUAL = [
    EVENT.encode(),
    b'{"event":"a","properties":{"third":0.3333333333333333,"price":21.90,"n":123456789012345678}}',
    b'{"event":"a","properties":{"id":"6ba7b810e9dad411d180b400c04fd430"}}',
    b'{"event": "a", "properties": {"html": "\\u003cb\\/\\u003e", "n": 1.5}}',
]
LONG_NUMBERS = [
    b'{"event":"a","properties":{"n":0.33333333333333333}}',
    b'{"event": "a", "properties":{"n":12345678901234567890123}}',
    b'{"event":"a","properties":{"nested":[{"n":1.5e-300}]}}',
]
UNREAD = [
    BOM + EVENT.encode(),
    b'{"event":"a","properties":{"half":"\\ud83d"}}',
    b'{"event":"a","properties":{"raw":"\t"}}',
    b'{"event":"a","properties":{"bytes":"\xff"}}',
    b'{"event":"a","properties":{"long":"%b"}}' % (b"x" * SHORT_LINE_BYTES),
    b'{"event":"a","properties":{"deep":%b%b}}' % (b"[" * 600, b"]" * 600),
]


@given(st.lists(st.sampled_from([*USUAL, *LONG_NUMBERS, *UNREAD]), max_size=40))
def test_unusual_lines_are_remembered(lines):
    """Those that DuckDB refuses, and the lengths of those whose numbers it may round."""
    verdict = Verdict(gzip=False)
    for block in [*verdict.feed(b"\n".join([*lines, b""])), *verdict.finish()]:
        list(block)
    assert verdict.unusual == UnusualLines(
        tuple(line for line in lines if line in UNREAD),
        {len(line) for line in lines if line in LONG_NUMBERS},
    )


PIECES = [
    *(rb"\ud83d", rb"\uDBFF", rb"\ude00", rb"\uDFFF", rb"\u0041", rb"\\", rb"\"", b"ud83d", b" "),
    *(
        b"\t",
        b"\r",
        b"\x00",
        b"\x1f",
        b"\x7f",
        b"\xff",
        b"\xed\xa0\xbd",
        b"\xed\xb8\x80",
        "é".encode(),
    ),
]
FORMS = [
    b'{"event":"%b","properties":{}}',
    b'{"event":"a","properties":{"%b":["%b"]}}',
    b'{"event": "a", "properties": {"%b": 1}, "%b": "%b"}',
]


@given(st.lists(st.tuples(st.sampled_from(FORMS), st.lists(st.sampled_from(PIECES), max_size=4))))
def test_every_line_with_odd_text_is_remembered(texts):
    """Half pairs, control characters and bytes, in the event, in properties and beside them."""
    lines = [form.replace(b"%b", b"".join(pieces)) for form, pieces in texts]
    verdict = Verdict(gzip=False)
    for line in [*lines, b"\n".join(lines)]:
        for block in verdict.feed(line + b"\n"):
            list(block)
    unread = tuple(line for line in lines if why_unstorable(line))
    assert verdict.unusual.unread == unread * 2


def test_unusual_lines_are_remembered_up_to_4_mib():
    """What Python needs for them counts; one byte more, and the load looks for them in the file."""
    fixed = b'{"event":"a","properties":{"long":""}}'
    line = fixed.replace(b'""', b'"%b"' % (b"x" * (16384 - sys.getsizeof(fixed))))
    assert sys.getsizeof(line) == 16384
    verdict = Verdict(gzip=False)
    for _ in range(256):
        [block] = verdict.feed(line + b"\n")
        assert list(block) == [line]
    assert verdict.unusual == UnusualLines((line,) * 256, frozenset())
    list(verdict.feed(BOM + EVENT.encode() + b"\n"))
    assert verdict.unusual == UnusualLines(None, frozenset())


def test_a_hundred_lengths_are_remembered():
    """With one more, a line of any length may have a number that DuckDB writes differently."""
    verdict = Verdict(gzip=False)
    lines = [b'{"event":"a","properties":{"n":0.%b}}' % (b"1" * (17 + n)) for n in range(101)]
    for number, line in enumerate(lines, 1):
        list(verdict.feed(line + b"\n"))
        lengths = verdict.unusual.number_lengths
        assert lengths == (set(map(len, lines[:number])) if number <= 100 else None)


def test_of_many_unusual_lines_nothing_is_remembered():
    """Memory stays small: the load looks for them in the file."""
    verdict = Verdict(gzip=False)
    event = b'{"event":"a","properties":{"n":%b}}\n'
    for number in range(1000):
        for value in (b'"%b"' % (b"x" * 10_000), b"0.%b" % (b"1" * (17 + number))):
            for block in verdict.feed(event % value):
                list(block)
    assert verdict.unusual == UnusualLines(None, None)
