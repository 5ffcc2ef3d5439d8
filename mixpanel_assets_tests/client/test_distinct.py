"""Ids are counted once each, and take little memory."""

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from mixpanel_assets.client.profiles import DistinctIds


@given(st.lists(st.text(max_size=3)))
def test_it_counts_as_a_set_does(names):
    """The count is exact for any ids and any number of duplicates."""
    ids, expected = DistinctIds(), set()
    for name in names:
        assert (name in ids) == (name in expected)
        ids.add(name)
        expected.add(name)
        assert len(ids) == len(expected)


def test_many_ids_stay_small():
    """An id takes 24 bytes at most once it is in."""
    tracemalloc.start()
    ids = DistinctIds()
    for number in range(20_000):
        ids.add(f"user-{number}")
        ids.add(f"user-{number}")
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(ids) == 20_000
    assert held < 20_000 * 25
