"""Profile pages keep every byte of every profile."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_assets.client.engage import (
    ProfileQuery,
    _as_received,
    _decode_envelope,
    _without_lone_surrogates,
)


def results_of(body: bytes) -> list[bytes]:
    return list(_as_received(body, _decode_envelope(_without_lone_surrogates(body)).results))


def page(*results: bytes) -> bytes:
    return b'{"page_size": 3, "results": [' + b",".join(results) + b'], "status": "ok"}'


@pytest.mark.parametrize(
    "text",
    [
        rb"\ud83d",
        rb"\ude00",
        rb"\ud83d\ude00",
        rb"\ud83d\ud83d\ude00",
        rb"\\ud83d",
        rb"\\\ud83d",
        rb"\ud83d\\ude00",
        rb"\"\ud83d\"",
    ],
)
def test_a_profile_with_any_escape_keeps_its_bytes(text):
    """Lone or paired, escaped or not: the profile comes out as it was received."""
    odd = b'{"$distinct_id":"' + text + b'","$properties":{"n":1.10}}'
    plain = b'{"$distinct_id": "b", "$properties": {"n": 123456789012345678901234567890}}'
    assert results_of(page(plain, odd, plain)) == [plain, odd, plain]


@given(st.lists(st.text(max_size=5), max_size=5))
def test_profiles_come_out_as_received(names):
    """Whatever the strings are, each result is the text that stood in the page."""
    results = [json.dumps({"$distinct_id": n}).encode() for n in names]
    assert results_of(page(*results)) == results


def test_a_query_without_filters_sends_none():
    """A full snapshot asks for everything."""
    assert ProfileQuery().form() == {}


def test_a_cohort_says_whether_members_without_profile_count():
    """The API's own default would list ids without profiles."""
    form = ProfileQuery(cohort_id="12").form()
    assert form == {"filter_by_cohort": '{"id": 12}', "include_all_users": "false"}
