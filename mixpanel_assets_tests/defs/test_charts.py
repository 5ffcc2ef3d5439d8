"""Charts: what they draw, and that Dagster shows them in place."""

import base64
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_assets.defs.metadata import hour_chart

MOST_PIXELS = 330  # of the asset's page, on a screen of 1,440
SHOWN_IN_PLACE = 1_000  # characters; Dagster's UI hides longer Markdown behind a link


def drawn(markdown: str) -> ElementTree.Element:
    [encoded] = re.findall(r"\(data:image/svg\+xml;base64,(.*)\)", markdown)
    return ElementTree.fromstring(base64.b64decode(encoded))


@given(st.lists(st.integers(0, 10**12), min_size=24, max_size=24).filter(any))
def test_every_hour_with_events_has_a_bar(counts):
    """As many bars as hours with events, the greatest the highest, all shown in place."""
    markdown = hour_chart(counts)
    assert len(markdown) < SHOWN_IN_PLACE
    path = drawn(markdown).find("{*}path").get("d")
    tops = [int(top) for top in re.findall(r"V(\d+)", path)]
    assert len(tops) == sum(1 for count in counts if count)
    assert min(tops) == 12
    assert max(tops) <= 48
    assert int(drawn(markdown).get("width")) <= MOST_PIXELS


def test_the_greatest_hour_is_told_in_words():
    """Who cannot see the image, or wants the number, reads it."""
    markdown = hour_chart([0] * 13 + [1_234] + [7] * 10)
    assert "Most events: 1,234 at 13:00 UTC" in markdown
    assert "1,234 at 13:00" in ElementTree.tostring(drawn(markdown), "unicode")


@pytest.mark.parametrize("counts", [[], [0] * 24])
def test_a_day_without_events_says_so(counts):
    """An empty day has no bars to draw."""
    assert hour_chart(counts) == "No events."
