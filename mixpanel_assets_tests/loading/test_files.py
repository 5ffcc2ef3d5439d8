"""Files of records: whole or not there, and what comes back is what went in."""

import json
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_assets.errors import ConfigError, StorageError
from mixpanel_assets.loading import files
from mixpanel_assets.loading.files import EVENT_COLUMNS, complete_file, record_file

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
NUMBER = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBER | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
MOMENT = st.datetimes(datetime(1971, 1, 1), datetime(9999, 1, 1), timezones=st.just(UTC)).map(
    lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000)
)
RECORDS = st.lists(
    st.fixed_dictionaries(
        {
            "event_name": TEXT,
            "event_time": st.none() | MOMENT,
            "distinct_id": st.none() | TEXT,
            "insert_id": TEXT,
            "properties": st.dictionaries(st.text(max_size=3), JSON, max_size=3),
        }
    ),
    max_size=5,
)


def written(records, format, directory):
    path = Path(directory) / f"records.{format}"
    with record_file(path, EVENT_COLUMNS, format) as file:
        for record in records:
            file.add(record)
    assert file.rows == len(records)
    return path


def same(value):
    return json.dumps(value, sort_keys=True)


@pytest.mark.slow
@given(RECORDS)
def test_lines_hold_the_records(records):
    """One line each, whatever stands in a text; equal as JSON values."""
    with TemporaryDirectory() as directory:
        text = written(records, "jsonl", directory).read_bytes().decode()
    lines = text.splitlines()
    assert len(lines) == len(records)
    for line, record in zip(lines, records, strict=True):
        found = json.loads(line)
        moment = found["event_time"] and datetime.fromisoformat(found["event_time"])
        assert moment == record["event_time"]
        assert same(found | {"event_time": None}) == same(record | {"event_time": None})


@given(RECORDS)
def test_parquet_holds_the_records(records):
    """The same schema for any records, none included."""
    with TemporaryDirectory() as directory:
        table = pq.read_table(written(records, "parquet", directory), partitioning=None)
    assert tuple(table.column_names) == EVENT_COLUMNS
    for found, record in zip(table.to_pylist(), records, strict=True):
        assert same(json.loads(found.pop("properties"))) == same(record["properties"])
        assert found == {name: record[name] for name in EVENT_COLUMNS[:-1]}


def test_row_groups_are_bounded(tmp_path):
    """Many rows, or few large ones, are written before all of them have come."""
    record = {**dict.fromkeys(EVENT_COLUMNS), "properties": {"text": "x" * 40_000}}
    path = written([record] * 2_000, "parquet", tmp_path)
    groups = pq.ParquetFile(path).metadata
    assert groups.num_rows == 2_000
    assert groups.num_row_groups == -(-2_000 * 40_011 // files.BYTES_PER_GROUP)


def test_half_of_a_pair_is_refused_by_parquet_alone(tmp_path):
    """The sentence says what to choose; no file is left."""
    record = {**dict.fromkeys(EVENT_COLUMNS), "event_name": "\ud83d", "properties": {}}
    with pytest.raises(StorageError, match="jsonl"):
        written([record], "parquet", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    assert json.loads(written([record], "jsonl", tmp_path).read_bytes())["event_name"] == "\ud83d"


def test_a_file_that_breaks_off_was_never_there(tmp_path):
    """An earlier file is kept, and no temporary file is left."""
    path = tmp_path / "out" / "records.jsonl"
    path.parent.mkdir()
    path.write_text("before")

    def break_off():
        with complete_file(path) as file:
            file.write(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        break_off()
    assert path.read_text() == "before"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    """A file stands in its place."""
    (tmp_path / "taken").write_text("")
    with (
        pytest.raises(StorageError, match="cannot be written"),
        complete_file(tmp_path / "taken/x"),
    ):
        pass


def test_raw_records_are_no_parquet(tmp_path):
    """The format is refused before a file is created."""
    path = tmp_path / "x.parquet"
    with (
        pytest.raises(ConfigError, match="jsonl"),
        record_file(path, (), "parquet", raw=True),
    ):
        pass
