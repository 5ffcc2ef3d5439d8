"""Stream one day with one client and print what it cost as JSON.

Run by `benchmarks.stream` in a process of its own, also with interpreters that do not have
this package, so it imports nothing of it at the top. The MP_* variables say whom to ask.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

DAY = "2024-01-01"


def ours(way: str) -> Iterable[object]:
    """Return our stream: `raw`, `normalized`, `staged` (raw) or `lines`."""
    from mixpanel_assets import Workspace

    workspace = Workspace()
    if way == "lines":
        return workspace.stream_event_lines(from_date=DAY, to_date=DAY)
    return workspace.stream_events(
        from_date=DAY, to_date=DAY, raw=way != "normalized", staged=way == "staged"
    )


def headless(way: str) -> Iterable[object]:
    """Return the stream of mixpanel-headless: `raw` or `normalized`."""
    from mixpanel_headless import Workspace

    return Workspace().stream_events(from_date=DAY, to_date=DAY, raw=way == "raw")


def peak_bytes() -> int:
    """Return the most memory this program had; Linux counts the parent's in `ru_maxrss`."""
    status = Path("/proc/self/status")
    if status.exists():
        found = [x for x in status.read_text().splitlines() if x.startswith("VmHWM")]
        return int(found[0].split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Count the events and print the figures."""
    clients: dict[str, Callable[[str], Iterable[object]]] = {"ours": ours, "headless": headless}
    stream = clients[sys.argv[1]](sys.argv[2])
    started, spent = time.perf_counter(), time.process_time()
    events = sum(1 for _ in stream)
    figures = {
        "events": events,
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - spent,
        "peak_bytes": peak_bytes(),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
