"""Adds up any number of events in constant memory: python bounded_memory.py FROM TO.

A stream parses while it downloads and keeps no event. Whether there are a thousand or a hundred
million, the process needs the same memory.
"""

import sys
import tracemalloc
from collections import Counter

from mixpanel_assets import Workspace


def main(from_date: str, to_date: str) -> None:
    """Print the events of each name, and the most memory that Python's objects took."""
    counts: Counter[str] = Counter()
    with Workspace() as ws:
        tracemalloc.start()
        for event in ws.stream_events(from_date=from_date, to_date=to_date):
            counts[event["event_name"]] += 1
        _, most = tracemalloc.get_traced_memory()
    for name, count in counts.most_common():
        print(f"{count:>10,}  {name}")
    # The loop ended normally, so the export was complete.
    print(f"{counts.total():,} events, at most {most / 1e6:.1f} MB of objects")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
