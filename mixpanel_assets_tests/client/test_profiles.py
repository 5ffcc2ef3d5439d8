"""Profile pages keep every byte of every profile."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_assets.client import MixpanelAPIClient, ProfilePageResult
from mixpanel_assets.client.profiles import ProfileQuery, _page_in, is_profile
from mixpanel_assets.errors import ConfigError, IncompleteExportError
from mixpanel_assets_tests.conftest import IMPATIENT, PLENTY


def results_of(body: bytes) -> list[bytes]:
    answer = _page_in(body, 0)
    assert answer.page_size == 3
    return list(answer.results)


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


DEEP = b"[" * 1100 + b"]" * 1100
ODD = [
    b'{"$distinct_id":"\xff","$properties":{"a":"\xed\xa0\xbd"}}',
    b'{"$distinct_id":"u","$properties":{"a":%b}}' % DEEP,
    b'{"$distinct_id":"u","$properties":{"\xff":%b}}' % DEEP,
    b'{"$distinct_id":"u","$properties":{"a":"\t"}}',
    b'{"$distinct_id":true,"$properties":null}',
    b'{"$distinct_id":{"a": 1.50}}',
    b'{"$distinct_id":[1]}',
    b'{"$distinct_id":1e400,"$properties":{"a":1e400}}',
    b'{"$distinct_id":%b}' % (b"1" * 5000),
    b'{"$distinct_id":"\\ud83d","$properties":{}}',
    b'{"$distinct_id":null,"$distinct_id":"u","$properties":5,"$properties":{}}',
    b'{"$distinct_id":"u","$properties":5,"$properties":null}',
    b'{"$distinct_id":"u","a":%b}' % DEEP,
]


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_an_odd_profile_does_not_spoil_its_page(odd):
    """Bytes, depth, numbers and kinds of ids: every result is the text that stood there."""
    plain = b'{"$distinct_id": "b", "$properties": {"n": 1.10}}'
    assert results_of(page(plain, odd, plain)) == [plain, odd, plain]
    assert is_profile(odd)


@pytest.mark.parametrize(
    "wrong",
    [
        *(b"5", b"[]", b"{}", b'{"$distinct_id":null}', b'{"$distinct_id":1,"$properties":[]}'),
        *(DEEP, b'{"$properties":5,"$properties":{}}'),
        b'{"$distinct_id":null,"$properties":5,"$properties":{}}',
        b'{"$distinct_id":"u","a":%b,"$properties":[]}' % DEEP,
    ],
)
def test_what_is_no_profile_is_told(wrong):
    """An id is missing or null, or the properties are no object, whatever else is odd about it."""
    assert not is_profile(wrong)


@pytest.mark.parametrize("cut", [1, 2, 20, 1200])
def test_a_cut_page_is_no_page(cut):
    """A cut page raises an error, whatever its profiles are."""
    with pytest.raises((msgspec.MsgspecError, ValueError)):
        _page_in(page(*ODD)[:-cut], 0)


@given(st.lists(st.text(max_size=5), max_size=5))
def test_profiles_come_out_as_received(names):
    """Each result is the text of the page, for any strings."""
    results = [json.dumps({"$distinct_id": n}).encode() for n in names]
    assert results_of(page(*results)) == results


def test_a_query_without_filters_sends_none():
    """A full snapshot requests every profile."""
    assert ProfileQuery().form() == {}
    assert ProfileQuery().filters == {}


def test_filters_in_use_are_named_by_their_attributes():
    """They are part of a stored snapshot's key, so a False that is the default is none."""
    query = ProfileQuery(cohort_id="1", include_all_users=True, distinct_ids=["a"])
    assert query.filters == {"cohort_id": "1", "include_all_users": True, "distinct_ids": ["a"]}


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ({"distinct_id": "a", "distinct_ids": ["b"]}, "Give distinct_id or distinct_ids, not both"),
        ({"behaviors": [{}], "cohort_id": "1", "where": "x"}, "Give behaviors or cohort_id"),
        ({"behaviors": [{}]}, "behaviors need a where"),
        ({"behaviors": [{}], "where": ""}, "behaviors need a where"),
        ({"include_all_users": True}, "include_all_users needs a cohort_id"),
        ({"distinct_ids": "abc"}, "lists of names, not a text"),
        ({"output_properties": "abc"}, "lists of names, not a text"),
        ({"cohort_id": "mine"}, "must be a cohort's number, not 'mine'"),
    ],
)
def test_filters_that_contradict_each_other_are_an_error(filters, said):
    """The error is raised before any request is sent."""
    with pytest.raises(ConfigError, match=said):
        ProfileQuery(**filters).check()


@pytest.mark.parametrize(
    ("total", "pages"), [("null", 1), ("0", 1), ("1", 1), ("3", 1), ("4", 2), ("7", 3)]
)
def test_the_number_of_pages_follows_from_the_total(total, pages):
    """Without profiles there is one page, which is empty."""
    body = page(b"{}").replace(b"{", b'{"total": %b, ' % total.encode(), 1)
    assert _page_in(body, 0).num_pages == pages
    one_each = _page_in(body.replace(b'"page_size": 3', b'"page_size": 1'), 0)
    assert one_each.num_pages == max(1, one_each.total or 0)


@pytest.mark.parametrize(("total", "pages"), [(0, 1), (1, 1), (3, 1), (4, 2), (7, 3)])
def test_a_page_of_a_caller_counts_pages_alike(total, pages):
    """A page of the caller counts pages as a received page does."""
    page = ProfilePageResult([], "s", 0, has_more=False, total=total, page_size=3)
    assert page.num_pages == pages


def test_every_filter_has_its_field():
    """As the API documents them; lists are JSON."""
    behaviors = [{"window": "90d", "name": "b1", "event_selectors": [{"event": "Order"}]}]
    query = ProfileQuery(
        where="a",
        output_properties=["b"],
        distinct_id="c",
        distinct_ids=["d"],
        group_id="e",
        behaviors=behaviors,
        as_of_timestamp=1,
        workspace_id=2,
    )
    assert query.form() == {
        "where": "a",
        "output_properties": '["b"]',
        "distinct_id": "c",
        "distinct_ids": '["d"]',
        "data_group_id": "e",
        "behaviors": json.dumps(behaviors),
        "as_of_timestamp": "1",
        "workspace_id": "2",
    }


def test_filters_that_fit_each_other_are_no_error():
    """Each has what it needs, and nothing stands against it."""
    ProfileQuery().check()
    ProfileQuery(distinct_ids=["a"], output_properties=["b"], where="c").check()
    ProfileQuery(cohort_id="1", include_all_users=True, distinct_id="a").check()
    ProfileQuery(behaviors=[{}], where="a").check()


def test_a_cohort_says_whether_members_without_profile_count():
    """The API's own default would list ids without profiles."""
    form = ProfileQuery(cohort_id="12").form()
    assert form == {"filter_by_cohort": '{"id": 12}', "include_all_users": "false"}
    form = ProfileQuery(cohort_id="12", include_all_users=True).form()
    assert form == {"filter_by_cohort": '{"id": 12}', "include_all_users": "true"}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"results": null, "total": 3}', "its `results` is null, not a list"),
        ('{"results": {"a": 1}}', "its `results` is an object, not a list"),
        ('{"results": "none"}', "its `results` is text, not a list"),
        ('{"results": 1.5}', "its `results` is a number, not a list"),
        ('{"results": 5}', "its `results` is a number, not a list"),
        ('{"total": 3}', "it has no `results`"),
        ("[]", "it is a list, not an object"),
        ('{"results": [], "total": true}', "its `total` is true or false, not a number"),
        ('{"results": [], "total": "many"}', "its `total` is 'many', not a number from 0"),
        ('{"results": [], "total": -1}', "its `total` is '-1', not a number from 0"),
        ('{"results": [], "total": 2.5}', "its `total` is '2.5', not a number from 0"),
        ('{"results": [], "page": [0]}', "its `page` is a list, not a number"),
        ('{"results": [], "page": ""}', "its `page` is '', not a number from 0"),
        ('{"results": [], "page_size": {}}', "its `page_size` is an object, not a number"),
        ('{"results": [], "session_id": {}}', "its `session_id` is an object, not text"),
        ('{"results": [], "session_id": 1.5}', "its `session_id` is a number, not text"),
        ('{"results": [', "is not a complete page of JSON"),
        ("", "is not a complete page of JSON"),
    ],
)
@pytest.mark.parametrize("read", ["stream_profiles", "export_profiles_page"])
def test_what_has_the_wrong_type_is_named(read, body, said, odd_server, credentials):
    """The field, and what came in its place."""
    odd_server.answers(200, body)
    with (
        MixpanelAPIClient(
            credentials, api_base_url=odd_server.url, retries=IMPATIENT, budget=PLENTY
        ) as client,
        pytest.raises(IncompleteExportError) as caught,
    ):
        list(client.stream_profiles()) if read == "stream_profiles" else (
            client.export_profiles_page(0)
        )
    assert f"{said}. Nothing" in caught.value.message
    assert "profiles page 0" in caught.value.message


@pytest.mark.parametrize("sent", ['"250"', "250", "250.0"])
def test_numbers_may_be_text(sent):
    """`total`, `page` and `page_size` are read as numbers, and the session as text."""
    fields = f'"total": {sent}, "page_size": "100", "page": "2", "session_id": 17'
    page = _page_in(f'{{"results": [], {fields}}}'.encode(), 0)
    assert (page.total, page.page_size, page.page, page.session_id) == (250, 100, 2, "17")


@pytest.mark.parametrize("fields", ["", ', "total": null, "page": null, "page_size": null'])
def test_what_is_null_is_as_if_it_were_missing(fields):
    """Later pages need no `total`; a full page holds 1,000 unless Mixpanel says otherwise."""
    page = _page_in(f'{{"results": []{fields}}}'.encode(), 3)
    assert (page.total, page.page_size, page.page, page.session_id) == (None, 1000, 3, None)


@pytest.mark.parametrize(("sent", "read"), [(0, 1), (1, 1), (2, 2)])
def test_a_full_page_holds_one_profile_at_least(sent, read):
    """A size of 0 would make pages without end."""
    assert _page_in(b'{"results": [], "page_size": %d}' % sent, 0).page_size == read


def test_a_page_with_something_else_among_its_profiles_is_refused(odd_server, credentials):
    """The place is named, counted from 0."""
    odd_server.answers(200, page(b'{"$distinct_id":"u"}', b"{}").replace(b"3", b'3, "total": 2'))
    with (
        MixpanelAPIClient(
            credentials, api_base_url=odd_server.url, retries=IMPATIENT, budget=PLENTY
        ) as client,
        pytest.raises(IncompleteExportError, match="at place 1 that is not a profile"),
    ):
        list(client.stream_profiles())


def test_odd_profiles_are_streamed(odd_server, credentials):
    """An id is the text of what was sent, as in the table; nothing refuses the page."""
    results = [*ODD[4:10], ODD[0], ODD[1].replace(b'"u"', b'"deep"')]
    odd_server.answers(200, page(*results).replace(b'"page_size": 3', b'"total": 8'))
    with MixpanelAPIClient(
        credentials, api_base_url=odd_server.url, retries=IMPATIENT, budget=PLENTY
    ) as client:
        ids = [profile["distinct_id"] for profile in client.stream_profiles()]
        raw = list(client.stream_profile_lines())
    assert ids[:5] == ["true", '{"a": 1.50}', "[1]", "1e400", "1" * 5000]
    assert ids[6:] == ["\udcff", "deep"]
    assert raw == results
