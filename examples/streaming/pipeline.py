"""Events flow through functions into a CSV file: python pipeline.py FROM TO FILE.

Nothing is stored but the result. `staged=True` checks each response before its first event, so an
incomplete export never reaches the file.
"""

import csv
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mixpanel_assets import Workspace

FIELDS = ("time", "user", "amount", "currency")


def orders(events: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the orders among the events, as rows."""
    for event in events:
        if event["event_name"] == "Order Completed":
            properties = event["properties"]
            yield {
                "time": event["event_time"].isoformat(),
                "user": event["distinct_id"],
                "amount": properties.get("amount"),
                "currency": properties.get("currency"),
            }


def main(from_date: str, to_date: str, target: Path) -> None:
    """Write the file; it appears only when all days are complete."""
    unfinished = target.with_suffix(".part")
    with Workspace() as ws, unfinished.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        events = ws.stream_events(from_date=from_date, to_date=to_date, staged=True)
        writer.writerows(orders(events))
    unfinished.replace(target)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
