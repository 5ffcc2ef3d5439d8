from __future__ import annotations

import uuid

import pytest

from mixpanel_assets.rules.made_ids import made_id, twin_id

CONTENT = {"b": [1, {"x": None}], "a": "é"}


def test_an_id_is_a_uuid_of_version_8():
    """The version marks an id as made; no Mixpanel library sends it."""
    made = uuid.UUID(made_id("A", 1, "u", CONTENT))
    assert (made.version, made.variant) == (8, uuid.RFC_4122)


def test_an_id_never_changes():
    """Ids are stored: another id for the same event would double it."""
    assert made_id("A", 1, "u", CONTENT) == "019f6615-1704-8168-8b75-abbc8a7613b8"
    assert made_id("A", 1, "u", CONTENT, twin=1) == "b6e62a8d-15c6-82d4-8a6e-043b9d0f823c"


def test_order_of_keys_does_not_matter():
    """Mixpanel does not promise an order of keys."""
    assert made_id("A", 1, "u", dict(reversed(CONTENT.items()))) == made_id("A", 1, "u", CONTENT)


# Not read from the module: a name that is missing there would be missing here.
@pytest.mark.parametrize(
    "key",
    [
        *("time", "distinct_id", "$insert_id", "$is_reshuffled", "$preshuffle_distinct_id"),
        *("$mp_api_timestamp_ms", "mp_processing_time_ms"),
        *("mp_original_event_name", "mp_original_distinct_id"),
    ],
)
def test_what_mixpanel_rewrites_does_not_matter(key):
    """A re-read with another processing time or marker is the same event."""
    assert made_id("A", 1, "u", {**CONTENT, key: 5}) == made_id("A", 1, "u", CONTENT)


def test_a_merged_identity_does_not_matter():
    """A row that was re-keyed keeps the id it had under its first distinct id."""
    rekeyed = {**CONTENT, "$distinct_id_before_identity": "u"}
    assert made_id("A", 1, "canonical", rekeyed) == made_id("A", 1, "u", CONTENT)


def test_a_hot_shard_row_keeps_its_id():
    """A row renamed for sitting on a hot shard is the event it was."""
    moved = {**CONTENT, "mp_original_event_name": "A", "mp_original_distinct_id": "u"}
    assert made_id("$hotshard_events", 1, "", moved) == made_id("A", 1, "u", CONTENT)


def test_an_original_name_counts_on_a_hot_shard_only():
    """Any event may have properties of these names, and a hot shard may lack them."""
    named = {**CONTENT, "mp_original_event_name": "B", "mp_original_distinct_id": "v"}
    assert made_id("A", 1, "u", named) == made_id("A", 1, "u", CONTENT)
    hot = made_id("$hotshard_events", 1, "u", CONTENT)
    assert hot == made_id("$hotshard_events", 1, "u", {**CONTENT, "mp_original_event_name": 5})
    assert hot != made_id("$hotshard_events", 1, "v", CONTENT)


@pytest.mark.parametrize(
    ("sent", "as_text"),
    [
        (5, "5"),
        (True, "true"),
        ([1, "a"], '[1,"a"]'),
        ({"b": 1, "a": "é"}, '{"a":"\\u00e9","b":1}'),
    ],
)
def test_a_distinct_id_that_is_no_text_is_its_json(sent, as_text):
    """Without spaces and with sorted names, so that neither changes the id."""
    expected = made_id("A", 1, as_text, CONTENT)
    assert made_id("A", 1, "x", {**CONTENT, "$distinct_id_before_identity": sent}) == expected
    moved = {**CONTENT, "mp_original_event_name": "A", "mp_original_distinct_id": sent}
    assert made_id("$hotshard_events", 1, "", moved) == expected


@pytest.mark.parametrize(
    "other", [("B", 1, "u", CONTENT), ("A", 2, "u", CONTENT), ("A", 1, None, CONTENT)]
)
def test_different_events_differ(other):
    """The name, the time and the user of an event are part of the id."""
    assert made_id(*other) != made_id("A", 1, "u", CONTENT)


def test_twins_differ_from_each_other():
    """Two equal events are two events."""
    first = made_id("A", 1, "u", CONTENT)
    twins = [made_id("A", 1, "u", CONTENT, twin=number) for number in range(5)]
    assert twins == [twin_id(first, number) for number in range(5)]
    assert len(set(twins)) == 5
