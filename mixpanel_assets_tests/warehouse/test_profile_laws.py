"""The laws of profile loads: what is stored equals a model, however the answer came."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mixpanel_assets.client.normalize import normalize_profile
from mixpanel_assets.warehouse.ledger import Target
from mixpanel_assets.warehouse.profile_pages import PageFile
from mixpanel_assets_tests.laws import examples, new_folder
from mixpanel_assets_tests.rules.test_json_text import crowded, names_once, written
from mixpanel_assets_tests.warehouse.conftest import DAY, Warehouse
from mixpanel_assets_tests.warehouse.profiles import profile, seen, store, store_days
from mixpanel_assets_tests.warehouse.test_load_laws import dumps, loads, names, values

LAW = examples(3)
IDS = "uvwxyz"
FIRST, LATER = datetime(2026, 3, 1, 1, tzinfo=UTC), datetime(2026, 3, 1, 2, tzinfo=UTC)
PEOPLE = Target("people", "main")

population = st.dictionaries(st.sampled_from(IDS), st.integers(0, 3))


@st.composite
def answers(draw: st.DrawFn) -> dict[str, Any]:
    """Pages of a population, with repeats over pages, some of which do not come."""
    pages: list[list[tuple[str, int]]] = [[] for _ in range(draw(st.integers(1, 4)))]
    people = draw(population)
    for one, value in people.items():
        for page in draw(st.sets(st.integers(0, len(pages) - 1), min_size=1, max_size=2)):
            pages[page].append((one, value + 10 * page))
    failed = draw(st.sets(st.integers(0, len(pages) - 1), max_size=len(pages) - 1))
    return {"pages": pages, "failed": failed, "total": len(people) + draw(st.integers(0, 1))}


def came(answer: dict[str, Any]) -> dict[str, int]:
    """Return what a reader of the pages in order knows at the end."""
    kept = [page for number, page in enumerate(answer["pages"]) if number not in answer["failed"]]
    return {one: value for page in kept for one, value in page}


def is_whole(answer: dict[str, Any]) -> bool:
    return not answer["failed"] and len(came(answer)) >= answer["total"]


def load(warehouse: Warehouse, answer: dict[str, Any], make: Any = profile, **options: Any) -> Any:
    pages = [
        [make(one, n=value) for one, value in page]
        for number, page in enumerate(answer["pages"])
        if number not in answer["failed"]
    ]
    return store_days(
        warehouse,
        *pages,
        expected_total=answer["total"],
        failed_pages=dict.fromkeys(sorted(answer["failed"]), "it broke"),
        **options,
    )


def fresh() -> Warehouse:
    return Warehouse(new_folder())


def stored(warehouse: Warehouse, table: str = "profiles") -> dict[str, int]:
    found = warehouse.query(f"SELECT distinct_id, (properties ->> 'n')::INTEGER FROM {table}")
    assert len(dict(found)) == len(found)
    return dict(found)


@LAW
@given(population, answers())
def test_what_is_stored_is_what_came_over_what_was_there(before, answer):
    """A whole answer replaces the day; anything less is merged in and deletes nothing."""
    warehouse = fresh()
    store(warehouse, [profile(one, n=value) for one, value in before.items()], at=FIRST)
    (report,) = load(warehouse, answer, days=[DAY], at=LATER)
    expected = came(answer) if is_whole(answer) else {**before, **came(answer)}
    assert stored(warehouse) == stored(warehouse, "profiles_current") == expected
    assert report.row_count == len(expected)
    assert report.missing_rows == answer["total"] - len(came(answer))
    assert report.is_complete == is_whole(answer)
    assert report.received - report.duplicates_removed == len(came(answer))


@LAW
@given(st.lists(st.tuples(answers(), st.integers(0, 1), st.booleans()), min_size=1, max_size=4))
def test_a_named_table_always_adds_up(loads):
    """Whatever is appended or replaced on whatever day, the ledger counts the table's rows."""
    warehouse, expected = fresh(), dict[str, int]()
    for answer, offset, merge in loads:
        day = DAY + timedelta(days=offset)
        load(warehouse, answer, days=[day], target=PEOPLE, merge=merge, filters={"n": str(answer)})
        replaces = is_whole(answer) and not merge
        expected = came(answer) if replaces else {**expected, **came(answer)}
        assert stored(warehouse, "people") == expected
        rows = warehouse.query("SELECT row_count FROM _metadata WHERE table_name = 'people'")
        assert rows == [(len(expected),)]


DAYS = [DAY + timedelta(days=offset) for offset in range(3)]


def split(people: dict[str, int]) -> set[tuple[date, str]]:
    """Return each profile's day: the value says how many days after the first it was seen."""
    return {
        (DAY + timedelta(days=value % 10), one) for one, value in people.items() if value % 10 < 3
    }


@LAW
@given(answers(), answers())
def test_every_profile_is_under_the_day_it_was_seen_on(earlier, answer):
    """Profiles of earlier responses are kept; those of days that were not requested are counted."""
    warehouse = fresh()

    def make(one: str, n: int) -> dict[str, Any]:
        return seen(one, DAY + timedelta(days=n % 10))

    load(warehouse, earlier, make, days=DAYS, scope="seen_on_day")
    reports = load(warehouse, answer, make, days=DAYS, scope="seen_on_day", at=LATER)
    expected = split(came(answer)) | split(came(earlier))
    found = set(warehouse.query("SELECT snapshot_date, distinct_id FROM profiles"))
    assert found == expected
    assert sum(report.row_count for report in reports) == len(expected)
    assert reports[0].elsewhere == len(came(answer)) - len(split(came(answer)))


@LAW
@given(st.dictionaries(names, values, max_size=5), st.sampled_from([None, (",", ":")]))
def test_properties_are_the_text_that_was_sent(properties, spaces):
    """Any names, any values, with spaces or without."""
    sent = dumps(properties)
    if spaces is None:
        sent = (
            b"{"
            + b", ".join(
                json.dumps(name).encode() + b": " + dumps(value)
                for name, value in properties.items()
            )
            + b"}"
        )
    page = PageFile(Path("page"), FIRST)
    _, text, _ = page.row(b'{"$distinct_id": "u", "$properties": %s}' % sent)
    assert list(loads(text).items()) == list(loads(sent).items())
    assert text.encode() == dumps(properties)


LAST_SEEN = ["2026-03-01T12:00:00", "2026-03-01T12:00:00+05:30", "2026-02-30", "", None, 5]
properties = st.dictionaries(names, values, max_size=5)


@LAW
@given(st.lists(st.tuples(properties, st.sampled_from(LAST_SEEN)), min_size=1, max_size=9))
def test_a_stored_row_is_the_row_of_its_line(sent):
    """However usual a line is, so whether it is read in one step or in parts."""
    lines = [
        dumps({"$distinct_id": str(number), "$properties": {**own, "$last_seen": seen_at}})
        for number, (own, seen_at) in enumerate(sent)
    ]
    warehouse = fresh()
    store(warehouse, lines)
    found = warehouse.query(
        "SELECT distinct_id, properties, last_seen FROM profiles ORDER BY distinct_id"
    )
    assert found == [PageFile(Path("page"), FIRST).row(line) for line in lines]


@given(st.lists(st.tuples(st.sampled_from(["plan", "$last_seen", "n"]), crowded), max_size=5))
def test_of_a_name_that_comes_twice_the_last_value_is_stored(pairs):
    """On every level; the profile then equals the one that a stream yields."""
    line = written(
        [("$distinct_id", 1), ("$distinct_id", "u"), ("$properties", pairs or {})], "", ""
    )
    distinct_id, text, _ = PageFile(Path("page"), FIRST).row(line.encode())
    streamed = normalize_profile(json.loads(line))
    found = json.loads(text, object_pairs_hook=names_once)
    found.pop("$last_seen", None)  # which stays where it is no time
    assert (distinct_id, found) == ("u", streamed["properties"])
