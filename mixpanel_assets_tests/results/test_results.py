"""Results: their names and fields, and the tables that they turn into."""

import json
from dataclasses import MISSING, FrozenInstanceError, fields, is_dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import mixpanel_assets
from mixpanel_assets import results
from mixpanel_assets.results.base import Table, arrow_table, frame, json_ready

# Name -> fields in order; `?` marks one with a default.
FIELDS = {
    "SQLResult": "columns rows",
    "SegmentationResult": "event from_date to_date unit segment_property total series? type?",
    "FunnelStep": "event count conversion_rate",
    "FunnelResult": "funnel_id funnel_name from_date to_date conversion_rate steps? segments?",
    "CohortInfo": "date size retention?",
    "RetentionResult": "born_event return_event from_date to_date unit cohorts?",
    "JQLResult": "_raw?",
    "FunnelInfo": "funnel_id name",
    "BookmarkInfo": (
        "id name type project_id created modified workspace_id? dashboard_id? description? "
        "creator_id? creator_name?"
    ),
    "SavedCohort": "id name count description created is_visible",
    "TopEvent": "event count percent_change",
    "EventCountsResult": "events from_date to_date unit type series",
    "PropertyCountsResult": "event property_name from_date to_date unit type series",
    "UserEvent": "event time properties?",
    "ActivityFeedResult": "distinct_ids from_date to_date events?",
    "SavedReportResult": "bookmark_id computed_at from_date to_date headers? series?",
    "FrequencyResult": "event from_date to_date unit addiction_unit data?",
    "NumericBucketResult": "event from_date to_date property_expr unit series?",
    "NumericSumResult": "event from_date to_date property_expr unit results? computed_at?",
    "NumericAverageResult": "event from_date to_date property_expr unit results?",
    "TableMetadata": (
        "type fetched_at from_date? to_date? filter_events? filter_where? filter_cohort_id? "
        "filter_output_properties? filter_group_id? filter_behaviors?"
    ),
    "TableInfo": "name type row_count fetched_at",
    "ColumnInfo": "name type nullable primary_key?",
    "TableSchema": "table_name columns",
    "WorkspaceInfo": "path project_id region account tables size_mb created_at snapshot_age?",
    "LexiconMetadata": "source display_name tags hidden dropped contacts team_contacts",
    "LexiconProperty": "type description metadata",
    "LexiconDefinition": "description properties metadata",
    "LexiconSchema": "entity_type name schema_json",
    "Certificate": (
        "table day project_id region status fetched_at run_id written_by request_from request_to "
        "requests verdict response_lines response_bytes lines rows_received duplicates quarantined "
        "rows_kept rows_moved rows_stored rows_counted lines_stored lines_counted digest "
        "live_stored live_count live_class live_asked_at last_error sums unknown"
    ),
    "Sum": "text holds",
    "CoverageResult": "days",
    "CoveredDay": "table day status row_count fetched_at",
    "ColumnSummary": (
        "column_name column_type min max approx_unique avg std q25 q50 q75 count null_percentage"
    ),
    "SummaryResult": "table row_count columns?",
    "EventStats": "event_name count unique_users first_seen last_seen pct_of_total",
    "EventBreakdownResult": "table total_events total_users date_range events?",
    "ColumnStatsResult": (
        "table column dtype count null_count null_pct unique_count unique_pct top_values? min? "
        "max? mean? std?"
    ),
    "PropertyValueCount": "value count percentage kind?",
    "PropertyDistributionResult": "event property_name from_date to_date total_count values",
    "NumericPropertySummaryResult": (
        "event property_name from_date to_date count min max sum avg stddev percentiles"
    ),
    "DailyCount": "date event count",
    "DailyCountsResult": "from_date to_date events counts",
    "LatenessStep": "days count share",
    "LatenessResult": "from_date to_date total unknown steps",
    "EngagementBucket": "bucket_min bucket_label user_count percentage",
    "EngagementDistributionResult": "from_date to_date events total_users buckets",
    "PropertyCoverage": "property defined_count null_count coverage_percentage",
    "PropertyCoverageResult": "event from_date to_date total_events coverage",
}
MOMENT = datetime(2024, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
DAYS = ("2024-01-01", "2024-01-02")
SERIES = {"b": {"2024-01-01": 1, "2024-01-02": 0}, "a": {"2024-01-01": 2, "2024-01-02": 3}}
BY_DATE = [
    ["2024-01-01", "b", 1],
    ["2024-01-01", "a", 2],
    ["2024-01-02", "b", 0],
    ["2024-01-02", "a", 3],
]
STEP = results.FunnelStep("A", 4, 1.0)
SAVED = {"Order": {"$overall": {"d1": 3}, "FR": {"d1": 2}}}
# A result, its columns, its rows, the same without content.
TABLES = [
    (
        results.SegmentationResult("e", *DAYS, "day", None, 6, SERIES),
        "date segment count",
        BY_DATE,
        results.SegmentationResult("e", *DAYS, "day", None, 0),
    ),
    (
        results.FunnelResult(1, "f", *DAYS, 0.5, [STEP, results.FunnelStep("B", 2, 0.5)]),
        "step event count conversion_rate",
        [[1, "A", 4, 1.0], [2, "B", 2, 0.5]],
        results.FunnelResult(1, "f", *DAYS, 0.0),
    ),
    (
        results.EventCountsResult(["b", "a"], *DAYS, "day", "general", SERIES),
        "date event count",
        BY_DATE,
        results.EventCountsResult([], *DAYS, "day", "general", {}),
    ),
    (
        results.PropertyCountsResult("e", "p", *DAYS, "day", "general", SERIES),
        "date value count",
        BY_DATE,
        results.PropertyCountsResult("e", "p", *DAYS, "day", "general", {}),
    ),
    (
        results.ActivityFeedResult(
            ["u"], *DAYS, [results.UserEvent("e", MOMENT, {"time": 1, "$distinct_id": "u", "x": 1})]
        ),
        "event time distinct_id x",
        [["e", MOMENT, "u", 1]],
        None,
    ),
    (
        results.ActivityFeedResult(["u"], None, None),
        "event time distinct_id",
        [],
        results.ActivityFeedResult(["u"], None, None),
    ),
    (
        results.SavedReportResult(1, "", *DAYS, ["$event"], {"Order": {"d2": 1, "d1": 2}}),
        "date event count",
        [["d1", "Order", 2], ["d2", "Order", 1]],
        results.SavedReportResult(1, "", *DAYS),
    ),
    (
        results.SavedReportResult(1, "", *DAYS, ["$event", "country"], SAVED),
        "date event country count",
        [["d1", "Order", "$overall", 3], ["d1", "Order", "FR", 2]],
        None,
    ),
    (
        results.SavedReportResult(1, "", *DAYS, ["$retention"], {"a": 1}),
        "series",
        [[{"a": 1}]],
        None,
    ),
    (
        results.FrequencyResult(None, *DAYS, "day", "hour", {"2024-01-01": [3, 1]}),
        "date period_1 period_2",
        [["2024-01-01", 3, 1]],
        None,
    ),
    (results.FrequencyResult(None, *DAYS, "day", "hour"), "date", [], None),
    (
        results.RetentionResult(
            "a", "b", *DAYS, "day", [results.CohortInfo("2024-01-01", 4, [0.5, 0.25])]
        ),
        "cohort_date cohort_size period_0 period_1",
        [["2024-01-01", 4, 0.5, 0.25]],
        None,
    ),
    (results.RetentionResult("a", "b", *DAYS, "day"), "cohort_date cohort_size", [], None),
    (
        results.NumericBucketResult("e", *DAYS, "p", "day", {"0 - 10": {"2024-01-01": 1}}),
        "date bucket count",
        [["2024-01-01", "0 - 10", 1]],
        results.NumericBucketResult("e", *DAYS, "p", "day"),
    ),
    (
        results.NumericSumResult("e", *DAYS, "p", "day", {"2024-01-01": 1.5}),
        "date sum",
        [["2024-01-01", 1.5]],
        results.NumericSumResult("e", *DAYS, "p", "day"),
    ),
    (
        results.NumericAverageResult("e", *DAYS, "p", "day", {"2024-01-01": 1.5}),
        "date average",
        [["2024-01-01", 1.5]],
        results.NumericAverageResult("e", *DAYS, "p", "day"),
    ),
    (
        results.SummaryResult(
            "t",
            1,
            [results.ColumnSummary("c", "INTEGER", 1, 2, 2, 1.5, 0.5, "1", "1", "2", 2, 0.0)],
        ),
        "column_name column_type min max approx_unique avg std q25 q50 q75 count null_percentage",
        [["c", "INTEGER", 1, 2, 2, 1.5, 0.5, "1", "1", "2", 2, 0.0]],
        results.SummaryResult("t", 0),
    ),
    (
        results.EventBreakdownResult(
            "t", 1, 1, (MOMENT, MOMENT), [results.EventStats("e", 1, 1, MOMENT, MOMENT, 100.0)]
        ),
        "event_name count unique_users first_seen last_seen pct_of_total",
        [["e", 1, 1, MOMENT, MOMENT, 100.0]],
        results.EventBreakdownResult("t", 0, 0, (MOMENT, MOMENT)),
    ),
    (
        results.ColumnStatsResult("t", "c", "VARCHAR", 2, 0, 0.0, 2, 100.0, [("x", 2)]),
        "value count",
        [["x", 2]],
        results.ColumnStatsResult("t", "c", "VARCHAR", 0, 0, 0.0, 0, 0.0),
    ),
    (
        results.PropertyDistributionResult(
            "e", "p", *DAYS, 2, (results.PropertyValueCount("x", 2, 100.0),)
        ),
        "value count percentage",
        [["x", 2, 100.0]],
        results.PropertyDistributionResult("e", "p", *DAYS, 0, ()),
    ),
    (
        results.DailyCountsResult(*DAYS, None, (results.DailyCount("2024-01-01", "e", 2),)),
        "date event count",
        [["2024-01-01", "e", 2]],
        results.DailyCountsResult(*DAYS, None, ()),
    ),
    (
        results.LatenessResult(*DAYS, 2, 0, (results.LatenessStep(1, 2, 1.0),)),
        "days count share",
        [[1, 2, 1.0]],
        results.LatenessResult(*DAYS, 0, 0, ()),
    ),
    (
        results.EngagementDistributionResult(
            *DAYS, None, 2, (results.EngagementBucket(1, "1", 2, 100.0),)
        ),
        "bucket_min bucket_label user_count percentage",
        [[1, "1", 2, 100.0]],
        results.EngagementDistributionResult(*DAYS, None, 0, ()),
    ),
    (
        results.PropertyCoverageResult("e", *DAYS, 2, (results.PropertyCoverage("p", 1, 1, 50.0),)),
        "property defined_count null_count coverage_percentage",
        [["p", 1, 1, 50.0]],
        results.PropertyCoverageResult("e", *DAYS, 0, ()),
    ),
    (
        results.CoverageResult(
            (results.CoveredDay("events", date(2024, 1, 1), "complete", 7, None),)
        ),
        "table day status row_count fetched_at",
        [["events", date(2024, 1, 1), "complete", 7, None]],
        results.CoverageResult(()),
    ),
    (
        results.SQLResult(["a", "b"], [(1, "x")]),
        "a b",
        [[1, "x"]],
        results.SQLResult(["a", "b"], []),
    ),
]
IDS = [f"{type(case[0]).__name__}-{number}" for number, case in enumerate(TABLES)]


def test_results_have_the_fields_that_users_know():
    """Names, order and defaults; each is a frozen dataclass that the package offers."""
    found = {}
    for name in FIELDS:
        kind = getattr(mixpanel_assets, name)
        assert is_dataclass(kind)
        assert kind.__dataclass_params__.frozen
        found[name] = " ".join(
            field.name
            + ("" if field.default is MISSING and field.default_factory is MISSING else "?")
            for field in fields(kind)
        )
    assert found == FIELDS
    offered = {name for name, one in vars(results).items() if isinstance(one, type)}
    assert offered == FIELDS.keys() | {"Result", "ResultWithDataFrame"}


@pytest.mark.parametrize(("result", "columns", "rows", "empty"), TABLES, ids=IDS)
def test_every_table_has_its_columns_and_rows(result, columns, rows, empty):
    """pandas, Arrow and dicts agree, and columns stay when there is nothing in them."""
    names = columns.split()
    assert list(result.df.columns) == names
    assert result.df.to_numpy(dtype=object).tolist() == rows
    assert [list(row) for row in result.to_table_dict()] == [names] * len(rows)
    assert result.arrow().column_names == names
    assert result.arrow().num_rows == len(rows)
    if empty is not None:
        assert list(empty.df.columns) == names
        assert empty.df.empty
        assert empty.arrow().num_rows == 0


@pytest.mark.parametrize("result", [case[0] for case in TABLES], ids=IDS)
def test_results_are_ready_for_json(result):
    """Fields by name; writing and reading them as JSON changes nothing."""
    told = result.to_dict()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    rows = result.to_table_dict()
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows


def test_a_result_cannot_be_changed_and_its_frame_is_built_once():
    """The frame is kept; a field cannot be set."""
    result = results.SegmentationResult("e", *DAYS, "day", None, 0)
    assert result.df is result.df
    with pytest.raises(FrozenInstanceError):
        result.total = 1


@pytest.mark.parametrize(
    ("raw", "columns", "rows"),
    [
        ([{"key": ["x", 1], "value": 2}], ["key_0", "key_1", "value"], [["x", 1, 2]]),
        ([{"key": ["x"], "value": [2, 3]}], ["key_0", "value_0", "value_1"], [["x", 2, 3]]),
        ([{"key": ["x"], "value": {"sum": 3}}], ["key_0", "sum"], [["x", 3]]),
        (
            [{"key": ["x"], "value": [{"percentile": 50, "value": 7}]}],
            ["key_0", "p50"],
            [["x", 7]],
        ),
        (
            [[{"percentile": 50, "value": 7}, {"percentile": 99, "value": 9}]],
            ["p50", "p99"],
            [[7, 9]],
        ),
        ([3, 4], ["value"], [[3], [4]]),
        ([{"a": 1}, {"b": 2}], ["a", "b"], [[1, None], [None, 2]]),
        ([3, {"a": 1}], ["value"], [[3], [{"a": 1}]]),
        ([], ["value"], []),
    ],
)
def test_a_script_s_result_becomes_a_table_by_its_shape(raw, columns, rows):
    """Groups, reducers, percentiles, objects and scalars; mixed ones stay whole."""
    result = mixpanel_assets.JQLResult(raw)
    assert list(result.df.columns) == columns
    table = result.to_table_dict()
    assert [list(row.values()) for row in table] == rows
    assert result.raw is raw
    assert result.to_dict() == {"raw": raw}


def test_a_property_never_takes_the_place_of_what_names_the_event():
    """Properties called like the first columns get a longer name."""
    own = {"event": "mine", "time": 5, "distinct_id": "u", "nested": {"a": [1]}}
    feed = results.ActivityFeedResult(["u"], *DAYS, [results.UserEvent("e", MOMENT, own)])
    [row] = feed.to_table_dict()
    assert row == {
        "event": "e",
        "time": MOMENT.isoformat(),
        "distinct_id": "u",
        "properties.event": "mine",
        "nested": {"a": [1]},
    }
    assert feed.arrow().column("nested").to_pylist() == ['{"a": [1]}']


def test_what_json_cannot_hold_is_text():
    """Decimals keep their digits; numbers that are not finite do not become null."""
    value = {1: (Decimal("1.10"), float("nan"), date(2024, 1, 1)), "path": Path("/x")}
    assert json_ready(value) == {"1": ["1.10", "nan", "2024-01-01"], "path": "/x"}


def test_numbers_from_a_frame_stay_numbers():
    """numpy's scalars and arrays are numbers and lists in JSON."""
    assert json_ready({"n": np.int64(5), "b": np.bool_(True), "a": np.array([1.5])}) == {
        "n": 5,
        "b": True,
        "a": [1.5],
    }


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="utf-8")),
    st.lists(st.integers(), max_size=2),
)


@given(st.lists(VALUES, max_size=6))
@example([2**53 + 1, 0.5])
@example([2**63, -1])
@example([2**60 + 1, None])
def test_frames_keep_every_digit(values):
    """Whatever stands together in a column, each value comes out equal; None is missing."""
    table = Table(["c"], [(value,) for value in values])
    found = frame(table)["c"]
    assert len(found) == len(values)
    for kept, value in zip(found, values, strict=True):
        if value is None:
            assert pd.isna(kept)
        else:
            assert kept == value


@given(st.lists(VALUES, max_size=6))
@example([2**53 + 1, 0.5])
def test_arrow_keeps_every_digit(values):
    """A column has one type that holds all values, or each is JSON text."""
    table = arrow_table(Table(["c"], [(value,) for value in values]))
    found = table.column("c").to_pylist()
    if found != values:
        assert table.schema.field("c").type == pa.string()
        assert [text and json.loads(text) for text in found] == values


def test_a_long_result_is_short_in_a_notebook():
    """What is cut says how much; the result still has all of it."""
    series = {f"event {n}": {f"2024-01-{day:02}": n for day in range(1, 29)} for n in range(500)}
    result = results.SegmentationResult("x" * 10_000, *DAYS, "day", None, 6, series)
    shown = repr(result)
    assert len(shown) < 4_000
    assert shown.startswith("SegmentationResult(event='xxx")
    assert "… 9,800 more" in shown
    assert "'event 0': {'2024-01-01': 0, " in shown
    assert "… 23 more}" in shown
    assert shown.endswith("… 490 more}, type='general')")
    rows = results.SQLResult(["n"], [(n,) for n in range(100_000)])
    assert repr(rows).endswith("(9,), … 99,990 more])")
    assert repr(mixpanel_assets.JQLResult([1] * 11)).startswith("JQLResult(raw=[1, 1, ")


@pytest.mark.parametrize("name", FIELDS)
def test_every_result_looks_alike_in_a_notebook(name):
    """None has a `repr` of its own that shows everything."""
    assert getattr(mixpanel_assets, name).__repr__ is results.Result.__repr__


def test_a_short_result_is_whole_in_a_notebook():
    """And can be pasted into code."""
    for result in (STEP, results.SQLResult(["a", "b"], [(1, "x")]), results.TopEvent("a", 1, 0.5)):
        assert eval(repr(result), vars(results)) == result
