"""The IO manager keeps slices: one transaction, columns by name, waiting instead of failing."""

import subprocess
import sys
from datetime import date, datetime
from decimal import Decimal
from functools import cache

import dagster as dg
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from mixpanel_assets.defs.io_managers import WarehouseIOManager
from mixpanel_assets.errors import ConfigError
from mixpanel_assets.rules.location import LakeLocation, Location
from mixpanel_assets.warehouse import copy_path, database_at
from mixpanel_assets_tests.laws import siblings

DAYS = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-10")
DAY = "2024-01-03"


@pytest.fixture
def path(place: Location) -> Location:
    return place


def table_asset(make, **options):
    @dg.asset(
        key=["shop", "orders"],
        partitions_def=DAYS,
        io_manager_key="warehouse",
        metadata={"partition_expr": "day"},
        **options,
    )
    def orders(context: dg.AssetExecutionContext):
        return make(context.partition_key)

    return orders


def frame(day, amount=1):
    return pd.DataFrame({"day": [pd.Timestamp(day)], "customer": ["a"], "amount": [amount]})


@cache
def instance():
    return dg.DagsterInstance.ephemeral()


@pytest.fixture(autouse=True, scope="module")
def one_instance():
    """Runs share it: what earlier ones left in it changes no table."""
    with instance():
        yield


def run(path, *assets, day=DAY, select=None, **options):
    return dg.materialize(
        list(assets),
        selection=select,
        partition_key=day,
        resources={"warehouse": manager_of(path, **options)},
        instance=instance(),
        raise_on_error=False,
    )


def manager_of(path, **options):
    data_path = path.data_path if isinstance(path, LakeLocation) else ""
    return WarehouseIOManager(database=str(path), data_path=data_path, **options)


def rows(path, query="SELECT customer, amount FROM shop.orders ORDER BY ALL"):
    """Read without the locks of the package, where it is a file."""
    is_lake = isinstance(path, LakeLocation)
    reading = database_at(path).read() if is_lake else duckdb.connect(path, read_only=True)
    with reading as connection:
        return connection.execute(query).fetchall()


def message_of(result):
    [event] = [event for event in result.all_events if event.is_step_failure]
    return event.step_failure_data.error.message


CONVERT = pytest.mark.parametrize(
    "convert",
    siblings(
        [
            lambda f: f,
            lambda f: pa.Table.from_pandas(f, preserve_index=False).to_reader(),
            pl.from_pandas,
            lambda f: pa.Table.from_pandas(f, preserve_index=False),
        ],
        keep=3,
    ),
    ids=["pandas", "arrow reader", "polars", "arrow"],
)


@CONVERT
def test_a_slice_stored_twice_is_one_slice(convert, path):
    """Whatever the type, running again replaces the day and leaves the others."""
    orders = table_asset(lambda day: convert(frame(day)))
    for day in ("2024-01-02", DAY, DAY):
        assert run(path, orders, day=day).success
    assert rows(path) == [("a", 1), ("a", 1)]


def test_columns_are_matched_by_name(path):
    """A frame with its columns in another order is not stored crosswise."""
    run(path, table_asset(frame))
    run(
        path,
        table_asset(lambda day: frame(day, 2)[["amount", "day", "customer"]]),
        day="2024-01-04",
    )
    assert rows(path) == [("a", 1), ("a", 2)]


def test_a_column_the_table_lacks_is_refused_and_changes_nothing(path):
    """The failure names the column; the slice of before stays."""
    run(path, table_asset(frame))
    result = run(path, table_asset(lambda day: frame(day, 2).assign(surprise=1)))
    assert not result.success
    assert "surprise" in message_of(result)
    assert rows(path) == [("a", 1)]


@pytest.mark.parametrize(
    ("column", "named"),
    siblings(
        [
            ({"amount": [1.5]}, "BIGINT there and DOUBLE here"),
            ({"amount": ["007"]}, "BIGINT there and VARCHAR here"),
            ({"amount": [2**70]}, "BIGINT there"),
            ({"customer": [7]}, "VARCHAR there and BIGINT here"),
            ({"day": [pd.Timestamp(DAY, tz="UTC")]}, "TIME ZONE here"),
        ],
        keep=2,
    ),
)
def test_a_value_that_the_table_would_change_is_refused(column, named, path):
    """The failure names column and types; nothing is rounded, and the slice of before stays."""
    run(path, table_asset(frame))
    result = run(path, table_asset(lambda day: frame(day).assign(**column)))
    assert not result.success
    assert named in message_of(result)
    assert repr(next(iter(column))) in message_of(result)
    assert rows(path) == [("a", 1)]


def test_a_slice_without_a_column_of_the_table_is_refused(path):
    """A forgotten column is not filled with NULLs in silence."""
    run(path, table_asset(frame))
    result = run(path, table_asset(lambda day: frame(day).drop(columns="customer")))
    assert "it lacks 'customer' (VARCHAR)" in message_of(result)
    assert rows(path) == [("a", 1)]


@pytest.mark.parametrize(
    ("first", "then", "stored"),
    siblings(
        [
            (pa.array([1], pa.int64()), pa.array([2], pa.int32()), 2),
            (pa.array([1], pa.int64()), pa.array([2.0], pa.float64()), 2),
            (pa.array([1.5], pa.float64()), pa.array([0.25], pa.float32()), 0.25),
            (pa.array([1.5], pa.float64()), pa.array([2**60], pa.int64()), 2.0**60),
            (pa.array(["x"]), pa.array([None], pa.null()), None),
            (pa.array(["x"]), pa.array([None], pa.int32()), None),
            (pa.array([True]), pa.array([None], pa.null()), None),
            (pa.array(["x"]), pa.array(["y"]).dictionary_encode(), "y"),
            (
                pa.array([datetime(2024, 1, 1, 5)], pa.timestamp("us")),
                pa.array([date(2024, 1, 2)], pa.date32()),
                datetime(2024, 1, 2),
            ),
            (
                pa.array([datetime(2024, 1, 1, 5)], pa.timestamp("us")),
                pa.array([datetime(2024, 1, 2, 6)], pa.timestamp("ns")),
                datetime(2024, 1, 2, 6),
            ),
        ],
        keep=2,
    ),
)
def test_another_type_that_keeps_every_value_fits(first, then, stored, path):
    """Whole numbers, dates and NULLs go into a wider type, also from a reader read once."""
    day = pa.array([date.fromisoformat(DAY)])
    slices = iter([first, then])
    asset = table_asset(lambda _: pa.table({"day": day, "value": next(slices)}).to_reader())
    assert run(path, asset).success
    assert run(path, asset).success
    assert rows(path, "SELECT value FROM shop.orders") == [(stored,)]


def test_an_empty_slice_makes_the_table_and_empties_the_day(path):
    """Zero rows are stored as zero rows, the first time as well."""
    empty = table_asset(lambda day: frame(day).iloc[:0])
    assert run(path, empty).success
    assert rows(path) == []
    run(path, table_asset(frame))
    assert run(path, empty).success
    assert rows(path) == []


@pytest.mark.parametrize("kind", siblings([pd.DataFrame, pa.Table, pl.DataFrame], keep=1))
def test_a_downstream_asset_gets_the_type_it_asks_for(kind, path):
    """The annotation decides; the slice is the day's."""
    seen = []

    def consume(orders):
        seen.append(orders)

    consume.__annotations__ = {"orders": kind, "return": None}
    downstream = dg.asset(
        consume, name="consume", partitions_def=DAYS, ins={"orders": dg.AssetIn(["shop", "orders"])}
    )
    orders = table_asset(frame)
    run(path, orders, day="2024-01-02")
    assert run(path, orders, downstream).success
    assert isinstance(seen[0], kind)
    assert len(seen[0]) == 1


@pytest.mark.parametrize(
    "key", siblings([["my-shop", "daily-counts"], ["select", "order"], ["a.b", "c"]], keep=1)
)
def test_a_name_that_sql_would_misread_is_a_name(key, path):
    """Dashes, dots and keywords in asset keys and columns store, replace and load."""
    seen = []

    @dg.asset(
        key=key,
        partitions_def=DAYS,
        io_manager_key="warehouse",
        metadata={"partition_expr": '"the day"'},
    )
    def orders():
        return pd.DataFrame({"the day": [pd.Timestamp(DAY)], "order": [1], "un-used": [2]})

    @dg.asset(partitions_def=DAYS, ins={"orders": dg.AssetIn(key, metadata={"columns": ["order"]})})
    def consume(orders) -> None:
        seen.append(orders.to_dict("list"))

    assert run(path, orders).success
    assert run(path, orders, consume).success
    assert seen == [{"order": [1]}]


def test_static_partitions_are_kept_apart(path):
    """A slice of a partition that is no time is replaced alone, whatever its key holds."""
    keys = dg.StaticPartitionsDefinition(["it's", "b"])

    @dg.asset(
        key=["shop", "orders"],
        partitions_def=keys,
        io_manager_key="warehouse",
        metadata={"partition_expr": "customer"},
    )
    def orders(context: dg.AssetExecutionContext):
        return pd.DataFrame({"customer": [context.partition_key], "amount": [1]})

    for key in ("it's", "b", "it's"):
        assert run(path, orders, day=key).success
    assert rows(path) == [("b", 1), ("it's", 1)]


@pytest.mark.on_file
@pytest.mark.parametrize(
    "key",
    [
        ["mixpanel", "events"],
        ["mixpanel", "Profiles"],
        ["mixpanel", "profiles_current"],
        ["mixpanel", "_days"],
        ["mixpanel", "_mine"],
        ["main", "_metadata"],
        ["main", "events"],
    ],
)
def test_a_table_of_ours_cannot_be_overwritten(key, path):
    """A frame under one of our names is refused before the file is touched."""
    asset = dg.asset(key=key, io_manager_key="warehouse")(lambda: pd.DataFrame({"a": [1]}))
    result = run(path, asset, day=None)
    assert not result.success
    assert "Choose another" in message_of(result)
    assert not path.exists()


def test_connection_config_is_refused(path):
    """A setting that would have no effect is named with those that have one."""
    with pytest.raises(ConfigError, match="memory_limit"):
        WarehouseIOManager(database=str(path), connection_config={"threads": 1})


def test_connection_config_from_run_config_is_refused(path):
    """What is set when the run is launched is looked at as well."""
    resource = WarehouseIOManager.configure_at_launch()
    config = {"database": str(path), "connection_config": {"threads": 1}}
    with dg.DagsterInstance.ephemeral() as instance, pytest.raises(dg.DagsterError) as caught:
        dg.materialize(
            [table_asset(frame)],
            partition_key=DAY,
            resources={"warehouse": resource},
            run_config={"resources": {"warehouse": {"config": config}}},
            instance=instance,
        )
    assert "memory_limit" in str(caught.getrepr(chain=True))


def test_the_table_name_tells_nothing_of_the_machine(path):
    """Schema and table, not where the file lies."""
    result = run(path, table_asset(frame))
    [materialization] = result.asset_materializations_for_node("shop__orders")
    assert materialization.metadata["dagster/table_name"].value == "shop.orders"
    assert str(path) not in str(materialization.metadata)


@pytest.mark.on_file
def test_a_held_file_is_waited_for_and_its_holder_named(path):
    """With a limit the wait ends in one sentence that names the process."""
    run(path, table_asset(frame))
    hold = f"import duckdb; c = duckdb.connect({str(path)!r}); print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        result = run(path, table_asset(frame), lock_timeout=1.0)
        holder.communicate(b"\n")
    assert not result.success
    assert str(holder.pid) in message_of(result)


@pytest.mark.on_file
def test_readers_get_what_a_run_stored(path):
    """Once the run is done, its last step included, or failed: a snapshot lies beside the file."""
    snapshot = copy_path(path)
    assert run(path, table_asset(frame)).success
    assert rows(snapshot) == [("a", 1)]

    @dg.asset(key=["shop", "paid"], io_manager_key="warehouse", deps=[["shop", "orders"]])
    def paid():
        raise ValueError("no")

    orders = table_asset(lambda day: frame(day, 2))
    result = run(path, orders, paid)
    assert not result.success
    assert rows(snapshot) == [("a", 2)]


@pytest.mark.on_file
def test_a_run_takes_one_snapshot(path):
    """One snapshot is taken at the end, not one after each commit."""
    seen = []

    @dg.asset(
        key=["shop", "paid"],
        io_manager_key="warehouse",
        partitions_def=DAYS,
        metadata={"partition_expr": "day"},
        deps=[["shop", "orders"]],
    )
    def paid(context: dg.AssetExecutionContext):
        seen.append(copy_path(path).exists())
        return frame(context.partition_key)

    assert run(path, table_asset(frame), paid).success
    assert seen == [False]
    assert rows(copy_path(path), "SELECT amount FROM shop.paid") == [(1,)]


def test_a_downstream_asset_reads_the_file_not_its_snapshot(path):
    """What was committed a moment ago is what it gets."""
    seen = []

    @dg.asset(
        key=["shop", "totals"], partitions_def=DAYS, ins={"orders": dg.AssetIn(["shop", "orders"])}
    )
    def totals(orders: pd.DataFrame) -> None:
        seen.extend(orders["amount"])

    run(path, table_asset(frame))
    assert run(path, table_asset(lambda day: frame(day, 2)), totals).success
    assert seen == [2]


@pytest.mark.on_file
def test_snapshots_can_be_off(path):
    """With `off` no snapshot is taken."""
    assert run(path, table_asset(frame), snapshot="off").success
    assert not copy_path(path).exists()


@pytest.mark.on_file
def test_the_file_is_free_after_a_failed_write(path):
    """A failed slice leaves no connection and no lock behind."""
    run(path, table_asset(frame))
    run(path, table_asset(lambda day: frame(day, 2).assign(surprise=1)))
    with duckdb.connect(path) as connection:
        connection.execute("INSERT INTO shop.orders SELECT * FROM shop.orders")


@pytest.mark.parametrize("kind", siblings([pd.DataFrame, pa.Table, pl.DataFrame], keep=1))
def test_no_number_is_rounded(kind, path):
    """A frame is stored and read back: whole numbers stay whole, beside NULLs as well."""
    numbers = [2**53 + 1, -(2**63), 2**63 + 1, 2**100 + 1, Decimal("1234567890123456.7"), 1.5]
    columns = {f"n{i}": [number] * 2 for i, number in enumerate(numbers)}
    columns |= {f"null{i}": [number, None] for i, number in enumerate(numbers)}
    seen = []

    def consume(orders):
        seen.append(orders)

    consume.__annotations__ = {"orders": kind, "return": None}
    orders = table_asset(
        lambda day: pd.DataFrame(columns, dtype=object).assign(day=pd.Timestamp(day))
    )
    downstream = dg.asset(
        consume, name="consume", partitions_def=DAYS, ins={"orders": dg.AssetIn(["shop", "orders"])}
    )
    assert run(path, orders, downstream).success
    for name, values in columns.items():
        column = seen[0][name]
        found = column.to_pylist() if kind is pa.Table else column.to_list()
        found = [None if pd.isna(value) else value for value in found]
        assert sorted(found, key=str) == sorted(values, key=str)


def test_a_frame_read_without_rows_makes_the_table_of_one_with_rows(path):
    """Text stays text: what an empty day leads to does not shut out the days after it."""
    orders = table_asset(lambda day: frame(day) if day == DAY else frame(day).iloc[:0])

    @dg.asset(
        key=["shop", "copies"],
        partitions_def=DAYS,
        io_manager_key="warehouse",
        metadata={"partition_expr": "day"},
        ins={"orders": dg.AssetIn(["shop", "orders"])},
    )
    def copies(orders: pd.DataFrame) -> pd.DataFrame:
        return orders

    assert run(path, orders, copies, day="2024-01-02").success
    assert run(path, orders, copies).success
    assert rows(path, "SELECT customer, amount FROM shop.copies") == [("a", 1)]


@pytest.mark.on_file
def test_rows_outside_of_their_partition_are_refused_at_the_first_write(path):
    """Running the partition again would add them once more; column and values are named."""
    result = run(path, table_asset(lambda _: pd.concat([frame(DAY), frame("2024-01-04")])))
    assert not result.success
    assert "day is '2024-01-04" in message_of(result)
    with duckdb.connect(path, read_only=True) as connection:
        assert not connection.sql("FROM duckdb_tables() WHERE table_name = 'orders'").fetchall()


@CONVERT
def test_the_key_of_a_partition_as_text_is_its_day(convert, path):
    """As `context.partition_key` gives it: replaced when run again, and read back."""
    seen = []

    @dg.asset(partitions_def=DAYS, ins={"orders": dg.AssetIn(["shop", "orders"])})
    def consume(orders: pd.DataFrame) -> None:
        seen.extend(orders["day"])

    orders = table_asset(lambda day: convert(frame(day).assign(day=day)))
    assert run(path, orders).success
    assert run(path, orders, consume).success
    assert len(rows(path)) == 1
    assert seen == [pd.Timestamp(DAY)]


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("dya", "`partition_expr` is 'dya', the columns are day, customer, amount"),
        (None, "it is None. Give the asset metadata={'partition_expr': 'column'}"),
        ({"day": "day"}, "it is {'day': 'day'}"),
    ],
)
def test_a_partition_column_that_is_not_there_is_refused_at_the_first_write(expression, said, path):
    """Misspelt, or not given at all."""

    @dg.asset(
        key=["shop", "orders"],
        partitions_def=DAYS,
        io_manager_key="warehouse",
        metadata={"partition_expr": expression} if expression else {},
    )
    def orders(context: dg.AssetExecutionContext):
        return frame(context.partition_key)

    assert said in message_of(run(path, orders))


@pytest.mark.parametrize("given", ["day", {"day": "day"}])
def test_each_dimension_of_partitions_needs_its_column(given, path):
    """Dagster would compare with a column of the name None."""
    keys = dg.MultiPartitionsDefinition({"day": DAYS, "shop": dg.StaticPartitionsDefinition(["a"])})

    @dg.asset(
        key=["shop", "orders"],
        partitions_def=keys,
        io_manager_key="warehouse",
        metadata={"partition_expr": given},
    )
    def orders():
        return frame(DAY)

    result = run(path, orders, day=dg.MultiPartitionKey({"day": DAY, "shop": "a"}))
    assert "{'day': 'column_of_day', 'shop': 'column_of_shop'}" in message_of(result)


def test_two_dimensions_replace_their_part_alone(path):
    """Rows of another day or shop are kept, and refused when they are returned."""
    keys = dg.MultiPartitionsDefinition(
        {"day": DAYS, "shop": dg.StaticPartitionsDefinition(["a", "b"])}
    )
    returned = {"a": ["a"], "b": ["b", "a"]}

    @dg.asset(
        key=["shop", "orders"],
        partitions_def=keys,
        io_manager_key="warehouse",
        metadata={"partition_expr": {"day": "day", "shop": "customer"}},
    )
    def orders(context: dg.AssetExecutionContext):
        part = context.partition_key.keys_by_dimension
        return pd.DataFrame({"day": part["day"], "customer": returned[part["shop"]], "amount": 1})

    def key(shop):
        return dg.MultiPartitionKey({"day": DAY, "shop": shop})

    assert run(path, orders, day=key("a")).success
    assert run(path, orders, day=key("a")).success
    result = run(path, orders, day=key("b"))
    assert "outside of the partition b: customer is 'a'" in message_of(result)
    assert rows(path) == [("a", 1)]


def test_a_named_index_is_stored_as_columns(path):
    """Also as the partition column; an index without a name, or one that is a column, is not."""
    grouped = table_asset(lambda day: frame(day).groupby(["day", "customer"]).sum())
    assert run(path, grouped).success
    assert run(path, table_asset(lambda day: frame(day, 2).set_index("day"))).success
    assert rows(path) == [("a", 2)]
    assert run(path, table_asset(lambda day: frame(day, 3).set_index("day", drop=False))).success
    assert rows(path) == [("a", 3)]


@pytest.mark.parametrize(
    "make",
    [
        lambda: pd.DataFrame([[1, 2]], columns=["a", "A"]),
        lambda: pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]),
    ],
)
def test_columns_that_differ_in_case_alone_are_refused(make, path):
    """DuckDB would rename one of them in silence, or fail in words of its own."""
    asset = dg.asset(key=["shop", "orders"], io_manager_key="warehouse")(make)
    result = run(path, asset, day=None)
    assert "Two columns have one name for DuckDB: 'a'" in message_of(result)


def consumer_of(annotation, seen):
    def consume(orders):
        seen.append(orders)

    consume.__annotations__ = {"orders": annotation, "return": None}
    return dg.asset(
        consume, name="consume", partitions_def=DAYS, ins={"orders": dg.AssetIn(["shop", "orders"])}
    )


@pytest.mark.parametrize(
    ("annotation", "loaded"),
    [(pd.DataFrame | None, pd.DataFrame), (pa.RecordBatchReader, pa.RecordBatchReader)],
)
def test_an_input_is_what_its_annotation_says(annotation, loaded, path):
    """The type beside None, and a reader as a reader."""
    seen = []
    assert run(path, table_asset(frame), consumer_of(annotation, seen)).success
    assert isinstance(seen[0], loaded)


@pytest.mark.parametrize("annotation", [list[dict], dict[str, int], pd.Series, pl.LazyFrame | None])
def test_an_annotation_that_cannot_be_served_names_those_that_can(annotation, path):
    """One sentence, instead of a TypeError of Python's."""
    said = message_of(run(path, table_asset(frame), consumer_of(annotation, [])))
    assert "The input `orders` is annotated" in said
    assert "Tables are: pandas.DataFrame, pyarrow.Table" in said


@pytest.mark.parametrize("value", [[{"a": 1}], pl.LazyFrame({"a": [1]})])
def test_a_value_that_is_not_a_table_is_refused(value, path):
    """With the types that can be stored; nothing is stored."""
    asset = dg.asset(key=["shop", "orders"], io_manager_key="warehouse")(lambda: value)
    said = message_of(run(path, asset, day=None))
    assert f"returned `{type(value).__qualname__}`, which is not a table" in said
    assert "Tables are: pandas.DataFrame, pyarrow.Table" in said
