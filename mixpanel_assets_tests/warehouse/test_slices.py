"""A slice is the rows of one partition: replaced as a whole, and nothing is ever stored twice."""

from datetime import date, datetime

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from mixpanel_assets.errors import StorageError
from mixpanel_assets.warehouse.slices import Partition, replace_slice
from mixpanel_assets_tests.laws import siblings

DAY = "2024-01-03"


def of_day(day, expression="day"):
    end = pd.Timestamp(day) + pd.Timedelta(days=1)
    condition = f"({expression}) >= '{day} 00:00:00' AND ({expression}) < '{end}'"
    return Partition(expression, condition, day, days=True)


@pytest.fixture
def shop():
    """A database that answers in lists of rows; a refused slice is undone."""
    with duckdb.connect() as connection:
        yield Shop(connection)


class Shop:
    def __init__(self, connection):
        self.connection = connection

    def store(self, rows, *partitions):
        self.connection.execute("BEGIN")
        try:
            self.connection.register("slice", rows)
            count = replace_slice(
                self.connection, "slice", table="orders", schema="main", partitions=partitions
            )
            self.connection.execute("COMMIT")
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        return count

    def rows(self, columns="*"):
        return self.connection.sql(f"SELECT {columns} FROM orders ORDER BY ALL").fetchall()

    def kinds(self):
        return {name: kind for name, kind, *_ in self.connection.sql("DESCRIBE orders").fetchall()}


@pytest.mark.parametrize(
    ("days", "said"),
    siblings(
        [
            ([DAY, "2024-01-04"], "1 rows for .* are outside of the partition 2024-01-03: day is"),
            ([pd.Timestamp("2024-01-03 05:00"), pd.NaT], "day is NULL"),
            ([None, DAY], "day is NULL"),
            (["2023-12-31"] * 7, "7 rows .* day is '2023-12-31"),
            ([DAY, "2024-01-02T23:59"], "1 rows .* day is '2024-01-02 23:59:00'"),
            ([pd.Timestamp("2024-01-04")], "day is '2024-01-04"),
            ([date(2024, 1, 2), date(2024, 1, 3)], "day is '2024-01-02"),
            ([f"2024-02-{n:02}" for n in range(1, 20)], "'2024-02-01.*'2024-02-05[ 0:]*' ..."),
            ([DAY, "3.1.2024", "tomorrow"], "text that is not a date .*'3.1.2024', 'tomorrow'"),
            (["2024-01-03T00:00:00+02:00"], "text that is not a date"),
            (["2024-02-30"], "text that is not a date"),
            (["20240103"], "text that is not a date"),
            ([""], "text that is not a date"),
            ([1704240000], "Conversion|BIGINT here"),
            ([True], "Conversion|BOOLEAN here"),
        ],
        keep=5,
    ),
)
@pytest.mark.parametrize("there", [False, True])
def test_rows_outside_of_their_partition_are_refused(days, said, there, shop):
    """At the first write as later: the values are named, and the stored rows are kept."""
    if there:
        shop.store(pd.DataFrame({"day": [pd.Timestamp(DAY)], "amount": 1}), of_day(DAY))
    with pytest.raises(StorageError, match=said):
        shop.store(pd.DataFrame({"day": days, "amount": 2}), of_day(DAY))
    if there:
        assert shop.rows("amount") == [(1,)]
    else:
        assert not shop.connection.sql("SHOW TABLES").fetchall()


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        (DAY, date(2024, 1, 3)),
        ("2024-01-03T23:59:59.5", datetime(2024, 1, 3, 23, 59, 59, 500000)),
        ("2024-01-03 00:00:00Z", datetime(2024, 1, 3)),
        ("2024-01-03 05:30", datetime(2024, 1, 3, 5, 30)),
    ],
)
def test_iso_text_in_the_partition_column_is_a_time(text, stored, shop):
    """Stored again it replaces itself; in a table of dates or of times alike."""
    for _ in range(2):
        shop.store(pd.DataFrame({"Day": [text], "amount": 1}), of_day(DAY))
    assert shop.rows("day") == [(stored,)]
    shop.store(pd.DataFrame({"Day": ["2024-01-04"], "amount": 1}), of_day("2024-01-04"))
    assert len(shop.rows()) == 2


def test_text_under_an_expression_of_the_author_is_kept(shop):
    """`strptime(day, ...)` reads it as it is."""
    partition = of_day(DAY, "strptime(day, '%d.%m.%Y')")
    for _ in range(2):
        shop.store(pd.DataFrame({"day": ["03.01.2024"]}), partition)
    assert shop.rows() == [("03.01.2024",)]


def test_a_table_with_text_for_its_days_is_refused(shop):
    """As an older version stored it: the next run would add the rows again."""
    shop.connection.execute("CREATE TABLE orders AS SELECT '2024-01-03' AS day, 1 AS amount")
    with pytest.raises(StorageError, match="'day' is VARCHAR there and DATE here"):
        shop.store(pd.DataFrame({"day": [DAY], "amount": 1}), of_day(DAY))
    assert shop.rows() == [(DAY, 1)]


@pytest.mark.parametrize("expression", ["dya", "day +", "sum_of(day)", "None", "(SELECT"])
@pytest.mark.parametrize("count", [0, 1])
def test_an_expression_that_is_no_sql_over_the_columns_is_refused(expression, count, shop):
    """Before there is a table, even for a slice without rows."""
    rows = pd.DataFrame({"day": [pd.Timestamp(DAY)], "amount": 1}).iloc[:count]
    with pytest.raises(StorageError, match="the columns are day, amount"):
        shop.store(rows, of_day(DAY, expression))


NOTHING = {
    "cut": pd.DataFrame({"day": [pd.Timestamp(DAY)], "customer": ["a"], "amount": [1]}).iloc[:0],
    "pandas": pd.DataFrame({"day": [], "customer": [], "amount": []}),
    "objects": pd.DataFrame({"day": [], "customer": [], "amount": []}, dtype=object),
    "none": pd.DataFrame({"day": [pd.Timestamp(DAY)], "customer": [None], "amount": [None]}),
    "arrow": pa.table({name: pa.nulls(0) for name in ("day", "customer", "amount")}),
    "polars": pl.DataFrame({"day": [], "customer": [], "amount": []}),
}


@pytest.mark.parametrize("first", NOTHING.values(), ids=NOTHING)
@pytest.mark.parametrize(
    ("customer", "amount", "kinds"),
    siblings(
        [
            ("a", 2.5, ("VARCHAR", "DOUBLE")),
            (2**40, "free", ("BIGINT", "VARCHAR")),
            (["x", "y"], date(2024, 1, 4), ("VARCHAR[]", "DATE")),
        ],
        keep=1,
    ),
)
def test_a_column_has_no_type_before_its_first_value(first, customer, amount, kinds, shop):
    """A first slice without values does not shut out the days after it, whatever they hold."""
    later = pd.DataFrame({"day": ["2024-01-04"], "customer": [customer], "amount": [amount]})
    for rows, day in ((first, DAY), (later, "2024-01-04"), (first, DAY), (later, "2024-01-04")):
        shop.store(rows, of_day(day))
    assert [row[1:] for row in shop.rows() if row[1] is not None] == [(customer, amount)]
    assert (shop.kinds()["customer"], shop.kinds()["amount"]) == kinds
    assert shop.kinds()["day"] in ("DATE", "TIMESTAMP", "TIMESTAMP_NS", "TIMESTAMP_S")


def test_a_column_with_a_value_keeps_its_type(shop):
    """A value that the table would change is refused, also as the only one there."""
    shop.store(pd.DataFrame({"day": [DAY], "amount": [1]}), of_day(DAY))
    with pytest.raises(StorageError, match="BIGINT there and DOUBLE here"):
        shop.store(pd.DataFrame({"day": [DAY], "amount": [1.5]}), of_day(DAY))
    assert shop.rows("amount") == [(1,)]


def test_a_reader_is_read_once(shop):
    """Though its rows are looked at before they are stored."""
    table = pa.table({"day": [date(2024, 1, 3)] * 3, "amount": [1, 2, 3]})
    assert shop.store(table.to_reader(max_chunksize=1), of_day(DAY)) == 3
    assert shop.store(table.to_reader(max_chunksize=1), of_day(DAY)) == 3
    assert len(shop.rows()) == 3


def test_the_text_of_a_column_that_begins_with_nothing_is_kept(shop):
    """A long run of None before the first value decides nothing."""
    values = [None] * 50_000 + ["x"]
    assert shop.store(pd.DataFrame({"day": DAY, "note": values}), of_day(DAY)) == 50_001
    assert shop.rows("note")[0] == ("x",)
