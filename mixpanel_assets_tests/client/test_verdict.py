"""An answer is believed only if it is whole."""

import gzip
import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_assets.client.verdict import LineSplitter, NotWholeError, Verdict

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
    return lines


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


def test_a_missing_final_newline_is_no_fault():
    """The last line counts with or without its newline."""
    assert len(judge(f"{EVENT}\n{EVENT}".encode())) == 2


def test_an_empty_body_is_whole():
    """Zero bytes are a day without events."""
    assert judge(b"") == []


@pytest.mark.parametrize(
    ("tail", "said"),
    [
        (b"terminated early", "`terminated early`"),
        (b'{"event":"b","properties":{"Item Name":terminated early', "`terminated early`"),
        (b'{"event":"b","properties":{"a"', "cut"),
        (b'{"error":"internal"}', "error object"),
        (b"<html><body>Bad gateway</body></html>", "HTML"),
        (b"\n", "blank"),
        (b"5", "not an event"),
        (b"[1]", "not an event"),
        (b'{"event":5,"properties":{}}', "not an event with properties"),
        (b'{"event":"a","properties":[]}', "not an event with properties"),
        (b'{"event":"a"}', "not an event with properties"),
        (b'{"event":"a","properties":{"x":NaN}}', "cut or is not JSON"),
        (b'{"event":"a","properties":{"x":1,}}', "cut or is not JSON"),
        (b'{"event":"a","properties":{"x":"\xff"}}', "UTF-8"),
        (b'{"event":"a","properties":{}} {}', "cut or is not JSON"),
    ],
)
def test_a_line_that_is_no_event_makes_the_answer_not_whole(tail, said):
    """Whatever stands after whole records and is not one, the answer is refused and says why."""
    with pytest.raises(NotWholeError, match=said):
        judge(EVENT.encode() + b"\n" + tail + b"\n")


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
            with pytest.raises(NotWholeError):
                judge(body[:position])


def test_a_gzip_stream_cut_anywhere_is_refused():
    """A compressed answer that lacks any of its last bytes is never whole."""
    body = gzip.compress(f"{EVENT}\n{EVENT}\n".encode())
    for position in range(len(body)):
        with pytest.raises(NotWholeError):
            judge(body[:position], compressed=True)


def test_a_damaged_gzip_stream_is_refused():
    """A flipped byte does not pass the stream's own checksum."""
    body = bytearray(gzip.compress(f"{EVENT}\n".encode() * 50))
    body[len(body) // 2] ^= 0xFF
    with pytest.raises(NotWholeError):
        judge(bytes(body), compressed=True)


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
