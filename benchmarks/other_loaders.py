"""Load a received day of events as users of other loaders do, and print the costs as JSON.

`benchmarks.load` starts it with the interpreter of their environment, which lacks this package.
Arguments: the loader, the received file, the database.
"""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def _events(received: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(received) as lines:
        yield from map(json.loads, lines)


def frame_of(received: Path) -> pd.DataFrame:
    """Return the day as a DataFrame without duplicates."""
    import pandas as pd

    rows = []
    for event in _events(received):
        sent = event["properties"]
        fixed = {key: sent.pop(key, None) for key in ("time", "distinct_id", "$insert_id")}
        processed = sent.get("mp_processing_time_ms")
        rows.append((event["event"], *fixed.values(), processed, json.dumps(sent)))
    columns = ["event_name", "time_raw", "distinct_id", "insert_id", "processed", "properties"]
    frame = pd.DataFrame(rows, columns=columns).sort_values("processed")
    frame = frame.drop_duplicates(["event_name", "time_raw", "insert_id"], keep="last")
    frame["event_time"] = pd.to_datetime(frame["time_raw"], unit="ms")
    return frame


def load_with_io_manager(received: Path, database: Path) -> None:
    """Materialize an asset that returns the DataFrame, with Dagster's own IO manager."""
    import dagster as dg
    from dagster_duckdb_pandas import DuckDBPandasIOManager

    asset = dg.asset(name="events")(lambda: frame_of(received))
    manager = DuckDBPandasIOManager(database=str(database), schema="mixpanel")
    dg.materialize([asset], resources={"io_manager": manager})


def load_with_dlt(received: Path, database: Path) -> None:
    """Merge the events by their ids, with dlt's defaults: one column for each property."""
    import dlt

    def events() -> Iterator[list[dict[str, Any]]]:
        rows: list[dict[str, Any]] = []
        for event in _events(received):
            rows.append({"event_name": event["event"], **event["properties"]})
            if len(rows) == 1000:
                yield rows
                rows = []
        yield rows

    keys = ["event_name", "time", "$insert_id"]
    with tempfile.TemporaryDirectory() as folder:
        pipeline = dlt.pipeline(
            "benchmark",
            pipelines_dir=folder,
            destination=dlt.destinations.duckdb(str(database)),
            dataset_name="mixpanel",
        )
        pipeline.run(events(), table_name="events", write_disposition="merge", primary_key=keys)


def main() -> None:
    """Load the day and print the figures."""
    from stream_client import peak_bytes  # beside this file, where a script's imports are found

    ways = {"dlt": load_with_dlt, "io_manager": load_with_io_manager}
    way, received, database = sys.argv[1:]
    started = time.perf_counter()
    ways[way](Path(received), Path(database))
    figures = {"seconds": time.perf_counter() - started, "peak_bytes": peak_bytes()}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
